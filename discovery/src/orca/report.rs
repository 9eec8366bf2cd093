//! One load report, and its form in metadata.

use std::collections::BTreeMap;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;

use super::proto::OrcaLoadReport;

/// The trailing metadata that has a call's report (gRFC A51).
pub(super) const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Binary metadata is written without padding and read with or without (gRPC over HTTP2).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The load that a server reports (`xds.data.orca.v3.OrcaLoadReport`). A figure of zero is not reported.
///
/// ```
/// use discovery::orca::LoadReport;
///
/// let report = LoadReport::new().with_application_utilization(0.4).with_rps(120.0);
/// assert_eq!(report.rps, 120.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Share of its CPU time that the server uses. More than 1 if it uses more than it was given.
    pub cpu_utilization: f64,
    /// Share of its memory that the server uses, from 0 to 1.
    pub mem_utilization: f64,
    /// Share of its capacity that the server uses, by a measure of its own. If it is set, it counts in
    /// place of the CPU share. More than 1 if it is overloaded.
    pub application_utilization: f64,
    /// Calls a second.
    pub rps: f64,
    /// Failed calls a second, as the server defines a failure.
    pub eps: f64,
    /// Costs of this call, by name. In reports of a call only.
    pub request_cost: BTreeMap<String, f64>,
    /// Shares in use of other resources, by name, from 0 to 1.
    pub utilization: BTreeMap<String, f64>,
    /// Other figures, by name.
    pub named_metrics: BTreeMap<String, f64>,
}

/// Metadata that is not a load report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed endpoint-load-metrics-bin {value:?}: expected an OrcaLoadReport in base64")]
pub struct InvalidReport {
    value: HeaderValue,
}

impl LoadReport {
    /// A report without figures.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`cpu_utilization`](Self::cpu_utilization).
    #[must_use]
    pub fn with_cpu_utilization(mut self, share: f64) -> Self {
        self.cpu_utilization = share;
        self
    }

    /// Sets [`application_utilization`](Self::application_utilization).
    #[must_use]
    pub fn with_application_utilization(mut self, share: f64) -> Self {
        self.application_utilization = share;
        self
    }

    /// Sets [`rps`](Self::rps).
    #[must_use]
    pub fn with_rps(mut self, rate: f64) -> Self {
        self.rps = rate;
        self
    }

    /// Sets [`eps`](Self::eps).
    #[must_use]
    pub fn with_eps(mut self, rate: f64) -> Self {
        self.eps = rate;
        self
    }

    /// Reads the report in the trailing metadata of a call, for a client that wants the costs of its
    /// calls. `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the metadata is not a load report.
    pub fn from_trailers(trailers: &HeaderMap) -> Result<Option<Self>, InvalidReport> {
        let Some(value) = trailers.get(HEADER) else {
            return Ok(None);
        };
        let bytes = BASE64.decode(value).ok();
        let report = bytes.and_then(|bytes| OrcaLoadReport::decode(bytes.as_slice()).ok());
        match report {
            Some(report) => Ok(Some(report.into())),
            None => Err(InvalidReport {
                value: value.clone(),
            }),
        }
    }

    /// The report as metadata. `None` if it has no figure.
    pub(super) fn to_header(&self) -> Option<HeaderValue> {
        let bytes = OrcaLoadReport::from(self.clone()).encode_to_vec();
        if bytes.is_empty() {
            return None;
        }
        HeaderValue::try_from(BASE64.encode(bytes)).ok()
    }

    /// Replaces its figures by those that `other` has.
    pub(super) fn replace(&mut self, other: &Self) {
        for (figure, other) in [
            (&mut self.cpu_utilization, other.cpu_utilization),
            (&mut self.mem_utilization, other.mem_utilization),
            (
                &mut self.application_utilization,
                other.application_utilization,
            ),
            (&mut self.rps, other.rps),
            (&mut self.eps, other.eps),
        ] {
            if other != 0.0 {
                *figure = other;
            }
        }
        for (figures, other) in [
            (&mut self.request_cost, &other.request_cost),
            (&mut self.utilization, &other.utilization),
            (&mut self.named_metrics, &other.named_metrics),
        ] {
            figures.extend(other.iter().map(|(name, value)| (name.clone(), *value)));
        }
    }
}

/// A figure that is not a share or a rate is not reported.
fn valid(figure: f64) -> f64 {
    if figure.is_finite() && figure > 0.0 {
        figure
    } else {
        0.0
    }
}

impl From<OrcaLoadReport> for LoadReport {
    fn from(report: OrcaLoadReport) -> Self {
        Self {
            cpu_utilization: valid(report.cpu_utilization),
            mem_utilization: valid(report.mem_utilization),
            application_utilization: valid(report.application_utilization),
            rps: valid(report.rps_fractional),
            eps: valid(report.eps),
            request_cost: report.request_cost,
            utilization: report.utilization,
            named_metrics: report.named_metrics,
        }
    }
}

impl From<LoadReport> for OrcaLoadReport {
    fn from(report: LoadReport) -> Self {
        Self {
            cpu_utilization: valid(report.cpu_utilization),
            mem_utilization: valid(report.mem_utilization),
            application_utilization: valid(report.application_utilization),
            rps_fractional: valid(report.rps),
            eps: valid(report.eps),
            request_cost: report.request_cost,
            utilization: report.utilization,
            named_metrics: report.named_metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(value: &str) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert(HEADER, HeaderValue::try_from(value).unwrap());
        trailers
    }

    #[test]
    fn a_report_survives_metadata_with_and_without_padding() {
        let mut report = LoadReport::new()
            .with_cpu_utilization(0.25)
            .with_rps(8.0)
            .with_eps(0.5);
        report.request_cost.insert("bytes".to_owned(), 7.0);
        let header = report.to_header().unwrap();
        let text = header.to_str().unwrap().to_owned();
        assert!(!text.contains('='), "{text}");
        let padded = format!(
            "{text}{}",
            "=".repeat(text.len().next_multiple_of(4) - text.len())
        );
        for text in [text, padded] {
            let read = LoadReport::from_trailers(&trailers(&text));
            assert_eq!(read.unwrap().as_ref(), Some(&report));
        }
        assert_eq!(LoadReport::from_trailers(&HeaderMap::new()), Ok(None));
        assert_eq!(LoadReport::new().to_header(), None);
    }

    #[test]
    fn metadata_that_is_not_a_report_is_named() {
        for value in ["!", "CQ", "/////w"] {
            let error = LoadReport::from_trailers(&trailers(value)).unwrap_err();
            assert!(error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn figures_that_are_no_numbers_are_not_reported() {
        let report = LoadReport::new()
            .with_cpu_utilization(f64::NAN)
            .with_application_utilization(-1.0)
            .with_rps(f64::INFINITY);
        assert_eq!(report.to_header(), None);
    }

    #[test]
    fn the_figures_of_a_call_replace_those_of_the_server() {
        let mut server = LoadReport::new().with_cpu_utilization(0.5).with_rps(9.0);
        server.replace(&LoadReport::new().with_cpu_utilization(0.75));
        let expected = LoadReport::new().with_cpu_utilization(0.75).with_rps(9.0);
        assert_eq!(server, expected);
    }
}
