//! The simulation in small: what a fleet must stand, and that a seed says all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../examples/simulation/sim/mod.rs"]
mod sim;

use std::time::Duration;

use sim::{Config, ConnectivityState, Row};

fn small() -> Config {
    Config {
        seed: 7,
        clients: 20,
        instances: 200,
        subset: 20,
        rate: 10,
        phase: Duration::from_secs(20),
    }
}

fn of(rows: &[Row], phase: ConnectivityState) -> &Row {
    rows.iter().find(|row| row.phase == phase).unwrap()
}

#[test]
fn a_fleet_stands_what_happens_to_fleets() {
    let rows = sim::simulate(&small()).unwrap();
    let table = sim::table(&rows).to_string();
    let row = |phase| of(&rows, phase);
    for phase in [
        ConnectivityState::Steady,
        ConnectivityState::SlowTenth,
        ConnectivityState::Recovery,
    ] {
        assert_eq!(row(phase).lost, 0, "lost calls in {phase:?}:\n{table}");
    }
    for phase in [ConnectivityState::Churn, ConnectivityState::RegistryOutage] {
        assert!(
            row(phase).lost_share() < 0.001,
            "lost calls in {phase:?}:\n{table}"
        );
    }
    let outage = row(ConnectivityState::FullOutage);
    // Those under way when it ended may be answered.
    assert!(outage.lost_share() > 0.99, "who answered?\n{table}");
    assert!(
        outage.amplification <= 1.1,
        "the outage was multiplied:\n{table}"
    );
    let steady = row(ConnectivityState::Steady);
    assert!(
        (steady.amplification - 1.0).abs() < 0.01,
        "retries without a reason:\n{table}"
    );
    // Twenty clients with twenty connections each to two hundred instances.
    assert!(
        (steady.connections_mean - 2.0).abs() < 1e-9,
        "connections were lost or doubled:\n{table}"
    );
    assert!(
        row(ConnectivityState::Churn).registry_rate <= 2.0 * 20.0,
        "a watch asked more than twice a second:\n{table}"
    );
}

#[test]
fn the_same_seed_gives_the_same_table() {
    let config = Config {
        clients: 5,
        instances: 100,
        subset: 10,
        phase: Duration::from_secs(6),
        ..small()
    };
    let first = sim::simulate(&config).unwrap();
    let second = sim::simulate(&config).unwrap();
    assert_eq!(first, second);
    let other = sim::simulate(&Config { seed: 8, ..config }).unwrap();
    assert_ne!(first, other);
}
