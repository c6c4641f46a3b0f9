//! The protocol, explored within bounds. `KVDB_MODEL_BOUNDS=large` explores more, for minutes to hours.

// A test says what it explored.
#![allow(clippy::print_stdout)]

use kvdb_model::bounds::Bounds;
use kvdb_model::{explore, scenario};
use std::time::Instant;

fn hold(all: Vec<Bounds>) {
    let (began, mut states) = (Instant::now(), 0);
    for bounds in all {
        let (name, since) = (bounds.name, Instant::now());
        let report = explore(bounds);
        println!("{:>9} states, {:>2} steps deep, {:>5.1} s: {name}", report.states, report.depth, since.elapsed().as_secs_f64());
        for (property, actions) in &report.wrong {
            println!("NOT SO: {property}");
            actions.iter().for_each(|a| println!("    {a:?}"));
        }
        assert!(report.wrong.is_empty(), "{name}: {} properties do not hold, see above", report.wrong.len());
        assert!(report.complete && report.came_to_rest, "{name}: nothing was shown");
        states += report.states;
    }
    println!("{states:>9} states in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn nothing_wrong_is_reachable_within_the_bounds() {
    hold(scenario::small());
    if std::env::var("KVDB_MODEL_BOUNDS").is_ok_and(|b| b == "large") {
        hold(scenario::large());
    }
}
