//! States that differ in nothing that matters become one.
//!
//! Stamps are compared with each other only, so they are renamed to 1, 2, 3 … in their order. What can no longer
//! make a difference is forgotten: decisions beyond their time, and orders that no late message can meet.

use crate::network::Message;
use crate::state::State;

/// Makes it so.
pub fn normalise(s: &mut State) {
    forget_orders(s);
    let mut live = Vec::new();
    each_stamp(s, &mut |stamp| live.push(*stamp));
    live.sort_unstable();
    live.dedup();
    live.retain(|stamp| *stamp > 0);
    let in_order = live.iter().zip(1..).all(|(stamp, rank)| *stamp == rank);
    s.stamps = live.len() as u8;
    if !in_order {
        each_stamp(s, &mut |stamp| *stamp = live.iter().position(|l| l == stamp).map_or(0, |i| i as u8 + 1));
    }
}

/// An entry of a fetch log matters while it is open, or something may arrive that is compared with it.
fn forget_orders(s: &mut State) {
    let now = s.now;
    let State { volumes, network, .. } = s;
    for (v, volume) in volumes.iter_mut().enumerate() {
        for i in 0..volume.fetched.len() {
            let Some(order) = volume.fetched[i] else { continue };
            let met = |m: &Message| match m {
                Message::Settle { volume, version, .. }
                | Message::SettleAnswer { volume, version, .. }
                | Message::Keep { volume, version, .. } => (usize::from(*volume), usize::from(*version)) == (v, i),
                Message::Reclaim { volume, removals, .. } => usize::from(*volume) == v && removals[i].is_some(),
                Message::Fetch(order) => (usize::from(order.target), usize::from(order.version)) == (v, i),
                _ => false,
            };
            if order.commit_by < now && !network.iter().any(met) {
                volume.fetched[i] = None;
            }
        }
    }
}

fn each_stamp(s: &mut State, f: &mut impl FnMut(&mut u8)) {
    s.master.orders.iter_mut().for_each(|o| f(&mut o.sent));
    s.master.reclaiming.iter_mut().flatten().for_each(&mut *f);
    for volume in &mut s.volumes {
        volume.fetched.iter_mut().flatten().for_each(|o| f(&mut o.sent));
        for task in &mut volume.tasks {
            if let crate::state::Task::Fetching(order) = task {
                f(&mut order.sent);
            }
        }
    }
    s.network.change(|m| match m {
        Message::Settle { asked: stamp, .. }
        | Message::SettleAnswer { asked: stamp, .. }
        | Message::Reclaim { sent: stamp, .. }
        | Message::ReclaimDone { sent: stamp, .. }
        | Message::Keep { sent: stamp, .. } => f(stamp),
        Message::Fetch(order) | Message::Fetched(order) => f(&mut order.sent),
        Message::Commit { .. } | Message::CommitAnswer { .. } | Message::Outcome { .. } => {}
    });
}
