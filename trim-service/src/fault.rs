//! Faults for drills: delays or fails a share of the calls. Health checks are not affected, so the
//! registry still reports the instance as healthy.

use std::{str::FromStr, time::Duration};

use bootstrap::values::positive_duration;
use discovery::Code;
use tonic::Status;

/// One fault, in the form of `--fault`: `latency=300ms,rate=1` or `error=unavailable,rate=0.3`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    kind: Kind,
    /// Share of the affected calls, above 0 and up to 1.
    rate: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Latency(Duration),
    Error(Code),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut kind = None;
        let mut rate = 1.0;
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?}: expected KEY=VALUE"))?;
            match key {
                "latency" if kind.is_none() => {
                    kind = Some(Kind::Latency(positive_duration(value)?));
                }
                "error" if kind.is_none() => {
                    let code: Code = value.parse().map_err(|e| format!("{e}"))?;
                    if code == Code::Ok {
                        return Err("OK is not an error code".to_owned());
                    }
                    kind = Some(Kind::Error(code));
                }
                "latency" | "error" => {
                    return Err("one fault per flag; repeat the flag for more".into());
                }
                "rate" => {
                    rate = value
                        .parse()
                        .ok()
                        .filter(|rate| *rate > 0.0 && *rate <= 1.0)
                        .ok_or_else(|| {
                            format!("rate {value:?}: expected a number above 0 and up to 1")
                        })?;
                }
                _ => return Err(format!("{key:?}: expected latency, error or rate")),
            }
        }
        let kind = kind.ok_or("expected latency=DURATION or error=CODE")?;
        Ok(Self { kind, rate })
    }
}

/// Delays or fails one call, by chance at each fault's rate.
pub(crate) async fn inject(faults: &[Fault]) -> Result<(), Status> {
    for fault in faults {
        if fault.rate < 1.0 && fastrand::f64() >= fault.rate {
            continue;
        }
        match &fault.kind {
            Kind::Latency(time) => tokio::time::sleep(*time).await,
            Kind::Error(code) => {
                return Err(Status::new((*code).into(), "fault injected by --fault"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_flag_writes() {
        assert_eq!(
            "latency=300ms,rate=1".parse(),
            Ok(Fault {
                kind: Kind::Latency(Duration::from_millis(300)),
                rate: 1.0
            })
        );
        assert_eq!(
            "rate=0.3,error=internal".parse(),
            Ok(Fault {
                kind: Kind::Error(Code::Internal),
                rate: 0.3
            })
        );
        for text in [
            "",
            "latency",
            "latency=3",
            "latency=0s",
            "error=teapot",
            "error=ok",
            "rate=1",
            "latency=1s,error=internal",
            "latency=1s,rate=0",
            "latency=1s,rate=2",
            "latency=1s,rate=NaN",
            "delay=1s",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text:?} was taken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_meets_its_share_of_the_calls() {
        let fault: Fault = "error=unavailable,rate=0.3".parse().unwrap();
        let mut failed = 0;
        for _ in 0..2_000 {
            failed += usize::from(inject(std::slice::from_ref(&fault)).await.is_err());
        }
        assert!((450..750).contains(&failed), "{failed} of 2000");
        let slow: Fault = "latency=5s".parse().unwrap();
        let begun = tokio::time::Instant::now();
        inject(&[slow]).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }
}
