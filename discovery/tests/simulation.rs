//! A small simulation: the faults that a fleet must survive, and that a seed fixes the result.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use testkit::simulation::{Config, Phase, Row, simulate, table};

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

fn of(rows: &[Row], phase: Phase) -> &Row {
    rows.iter().find(|row| row.phase == phase).unwrap()
}

#[test]
fn a_fleet_stands_what_happens_to_fleets() {
    let rows = simulate(&small()).unwrap();
    let printed = table(&rows).to_string();
    let row = |phase| of(&rows, phase);
    for phase in [Phase::Steady, Phase::SlowTenth, Phase::Recovery] {
        assert_eq!(row(phase).lost, 0, "lost calls in {phase:?}:\n{printed}");
    }
    for phase in [Phase::Churn, Phase::RegistryOutage] {
        assert!(
            row(phase).lost_share() < 0.001,
            "lost calls in {phase:?}:\n{printed}"
        );
    }
    let outage = row(Phase::FullOutage);
    // Calls in flight at the end of the outage may be answered.
    assert!(
        outage.lost_share() > 0.99,
        "calls were answered during the outage:\n{printed}"
    );
    assert!(
        outage.amplification <= 1.1,
        "the outage was multiplied:\n{printed}"
    );
    let steady = row(Phase::Steady);
    assert!(
        (steady.amplification - 1.0).abs() < 0.01,
        "retries without a reason:\n{printed}"
    );
    // Twenty clients with twenty connections each to two hundred instances.
    assert!(
        (steady.connections_mean - 2.0).abs() < 1e-9,
        "connections were lost or doubled:\n{printed}"
    );
    assert!(
        row(Phase::Churn).registry_rate <= 2.0 * 20.0,
        "a watch sent more than two requests a second:\n{printed}"
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
    let first = simulate(&config).unwrap();
    let second = simulate(&config).unwrap();
    assert_eq!(first, second);
    let other = simulate(&Config { seed: 8, ..config }).unwrap();
    assert_ne!(first, other);
}
