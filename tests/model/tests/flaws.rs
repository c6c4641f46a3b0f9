//! The checker finds what is wrong: each deliberate flaw of the model shows.

// A test says what it explored.
#![allow(clippy::print_stdout)]

use kvdb_model::bounds::Flaw;
use kvdb_model::{explore, scenario};

#[test]
fn each_flaw_shows() {
    let all = scenario::flawed();
    for flaw in Flaw::ALL {
        assert!(all.iter().any(|b| b.has(flaw)), "{flaw:?} is not tried");
    }
    for bounds in all {
        let flaw = bounds.flaw;
        let report = explore(bounds);
        let found: Vec<_> = report.wrong.iter().map(|(name, actions)| format!("{name} ({} steps)", actions.len())).collect();
        println!("{flaw:?}, {} states: {}", report.states, found.join("; "));
        assert!(!found.is_empty(), "{flaw:?} does not show");
    }
}

/// Else it might be the scenario that is wrong, and not the flaw.
#[test]
fn without_its_flaw_nothing_shows() {
    for bounds in scenario::flawed() {
        let flaw = bounds.flaw;
        let report = explore(kvdb_model::bounds::Bounds { flaw: None, ..bounds });
        println!("without {flaw:?}: {} states", report.states);
        assert!(report.wrong.is_empty() && report.complete, "{flaw:?}: {:?}", report.wrong);
    }
}
