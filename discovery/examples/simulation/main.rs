//! A thousand clients and ten thousand instances in one process, through churn, a slow tenth, a
//! registry outage and an outage of everything, on a clock that jumps from event to event.
//!
//! The clients are real channels: balancing, retry, budget, ejection and the endpointer are the
//! ones a service uses. What is simulated is around them: instances and connections without
//! sockets, and a registry whose watches ask as the Consul watch does. One thread and one seed:
//! the same seed prints the same table.
//!
//! ```text
//! cargo run --release -p discovery --example simulation -- --seed 1
//! ```

#![allow(clippy::print_stdout, reason = "the table is the result")]

mod sim;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

const USAGE: &str = "\
Simulates a fleet of clients and instances and prints what their calls met.

  --seed N        same seed, same table (default 1)
  --clients N     (default 1000)
  --instances N   (default 10000)
  --subset N      instances each client connects to (default 50)
  --rate N        calls a second of each client (default 10)
  --seconds N     length of each phase (default 30)";

fn main() -> anyhow::Result<()> {
    let Some(config) = config(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let begun = Instant::now();
    let rows = sim::simulate(&config)?;
    println!(
        "{} clients, {} instances, subset {}, {} calls a second each, seed {}\n\n{}",
        config.clients,
        config.instances,
        config.subset,
        config.rate,
        config.seed,
        sim::table(&rows)
    );
    println!("took {:.1?}", begun.elapsed());
    Ok(())
}

/// `None` asks for help.
fn config(mut args: impl Iterator<Item = String>) -> anyhow::Result<Option<sim::Config>> {
    let mut config = sim::Config::default();
    while let Some(flag) = args.next() {
        if flag == "--help" || flag == "-h" {
            return Ok(None);
        }
        let value = args
            .next()
            .with_context(|| format!("{flag} needs a value; see --help"))?;
        let value: u32 = value
            .parse()
            .with_context(|| format!("{flag} {value}: expected a number"))?;
        match flag.as_str() {
            "--seed" => config.seed = value.into(),
            "--clients" => config.clients = value,
            "--instances" => config.instances = value,
            "--subset" => config.subset = value as usize,
            "--rate" => config.rate = value,
            "--seconds" => config.phase = Duration::from_secs(value.into()),
            _ => bail!("unknown flag {flag}; see --help"),
        }
    }
    Ok(Some(config))
}
