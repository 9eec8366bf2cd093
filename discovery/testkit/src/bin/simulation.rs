//! Runs the simulation and prints its table.
//!
//! ```text
//! cargo run --release -p testkit --bin simulation -- --seed 1
//! ```

#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use testkit::simulation::{self, Config};

const USAGE: &str = "\
Simulates a fleet of clients and instances and prints the results of their calls.

  --seed N        same seed, same table (default 1)
  --clients N     (default 1000)
  --instances N   (default 10000)
  --subset N      instances each client connects to (default 50)
  --rate N        calls per second of each client (default 10)
  --seconds N     length of each phase (default 30)";

fn main() -> anyhow::Result<()> {
    let Some(config) = config(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let begun = Instant::now();
    let rows = simulation::simulate(&config)?;
    println!(
        "{} clients, {} instances, subset {}, {} calls per second each, seed {}\n\n{}",
        config.clients,
        config.instances,
        config.subset,
        config.rate,
        config.seed,
        simulation::table(&rows)
    );
    println!("took {:.1?}", begun.elapsed());
    Ok(())
}

/// Parses the flags. `None` if help is asked for.
fn config(mut args: impl Iterator<Item = String>) -> anyhow::Result<Option<Config>> {
    let mut config = Config::default();
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
