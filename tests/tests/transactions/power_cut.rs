//! The power of all machines is cut at once, at any moment of a transaction.

use crate::world::{Random, World};
use crate::{KEYS, commit, content, round_of};
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Answer, Request};
use std::sync::Mutex;
use std::time::Duration;

const ROUNDS: u64 = 8;

/// How far a transaction is known to have come when the power went.
#[derive(Clone, Debug, Default)]
struct Known {
    txn: Option<String>,
    staged: usize,
    committed: bool,
}

fn ok(answer: std::io::Result<Answer>, status: u16) -> Option<Answer> {
    answer.ok().filter(|a| a.status == status)
}

/// Goes on until something fails.
fn run(master: &str, round: u64, known: &Mutex<Known>) -> Option<()> {
    let begun = ok(Request::post("/?txn", "").try_send(master), 201)?.json();
    let txn = begun["txn"].as_str()?.to_string();
    known.lock().unwrap().txn = Some(txn.clone());
    for i in 0..KEYS {
        ok(Request::put(&format!("/k{i}?txn={txn}"), content(round, i)).try_follow(master), 202)?;
        known.lock().unwrap().staged = i + 1;
    }
    ok(commit(&txn).try_send(master), 200)?;
    known.lock().unwrap().committed = true;
    Some(())
}

#[test]
fn a_power_cut_at_any_moment_of_a_transaction_shows_all_of_it_or_nothing() {
    let seed = std::env::var("KVDB_POWER_SEED").map_or(u64::from(std::process::id()), |t| t.parse().expect("a number"));
    println!("KVDB_POWER_SEED={seed}");
    let mut random = Random::new(seed);
    let Some(mut world) = World::new() else { return };
    let (mut before, mut committed) = (None, 0);
    for round in 0..ROUNDS {
        let (master, known) = (world.cluster.master_addr(), Mutex::new(Known::default()));
        let wait = Duration::from_micros(random.below(60_000) * (1 + round % 2));
        // What is answered once the power goes proves nothing, so what was known is read before.
        let known = std::thread::scope(|scope| {
            let _runs = scope.spawn(|| run(&master, round, &known));
            std::thread::sleep(wait);
            let sure = known.lock().unwrap().clone();
            world.cut(&mut random);
            sure
        });
        world.restart();
        let now = round_of(&world.cluster, ROUNDS);
        assert!(now == Some(round) || (now == before && !known.committed), "round {round}: {now:?} after {known:?}");
        committed += u64::from(known.committed);
        if let Some(txn) = known.txn.as_ref().filter(|_| now == before) {
            // What was taken before the power went is there still, and can be gone on with.
            let shown = world.cluster.ask(&crate::show(txn)).expect(200).json();
            assert!(shown["members"].as_array().unwrap().len() >= known.staged, "{shown} after {known:?}");
            (0..KEYS).for_each(|i| drop(crate::stage(&world.cluster, txn, &format!("/k{i}"), &content(round, i)).expect(202)));
            world.cluster.ask(&commit(txn)).expect(200);
        }
        before = round_of(&world.cluster, ROUNDS);
    }
    let settled = until_settled(&world.cluster);
    println!("{ROUNDS} power cuts, {committed} after an acknowledged commit, settled {settled:?} after the last");
    assert_eq!(round_of(&world.cluster, ROUNDS), before);
}
