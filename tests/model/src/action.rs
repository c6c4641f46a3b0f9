//! What may happen next.

use crate::Cluster;
use crate::bounds::{Flaw, Op};
use crate::master;
use crate::network::Message;
use crate::state::{Client, Copy, Order, Reader, State, Task, Volume, has, members};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The master redirects a client to a volume.
    Redirect { write: u8, at: Volume },
    /// The client sends its value, or asks for its delete, with the ticket.
    Begin { write: u8 },
    /// A copy of the chain becomes durable.
    Prepare { write: u8, volume: Volume },
    /// The first volume asks for the commit.
    Ask { write: u8 },
    /// It gives the upload up: the chain is broken.
    Abandon { write: u8 },
    /// It stops waiting for the commit's answer.
    GiveUp { write: u8 },
    /// A message arrives.
    Deliver(Message),
    /// A volume asks what became of a version.
    Settle { volume: Volume, version: u8, early: bool },
    /// A volume drops a copy without asking (a flaw).
    DropUnasked { volume: Volume, version: u8 },
    /// The master has a volume work off its reclaim list.
    Reclaim { volume: Volume },
    /// It stops waiting for that call.
    ReclaimTimeout { volume: Volume },
    /// The master orders a copy.
    Order(Order),
    /// The target has fetched it.
    Bring { volume: Volume, version: u8 },
    /// The master stops waiting for it.
    OrderTimeout(Order),
    /// A reader asks the master, and is sent to a volume; none: there is no value, or no volume.
    LookUp { reader: u8, at: Option<Volume> },
    /// The volume answers a reader.
    Serve { reader: u8 },
    /// A copy is found bad.
    PutAside { volume: Volume },
    /// The clock moves on.
    Tick,
    /// A batch becomes durable later than it was answered (a flaw).
    MakeDurable,
    /// The master is killed and started again.
    KillMaster,
    /// A volume is killed and started again.
    KillVolume(Volume),
    /// A volume's power is cut, and it is started again.
    CutPower(Volume),
}

impl Cluster {
    /// Steps that the servers take by themselves, sooner or later, if nothing else happens.
    pub fn progress(&self, s: &State, out: &mut Vec<Action>) {
        out.extend(s.network.iter().cloned().map(Action::Deliver));
        for write in self.numbers() {
            self.chain_steps(s, write, out);
        }
        for volume in 0..self.bounds.volumes {
            self.volume_steps(s, volume, out);
        }
        if s.now < self.bounds.ticks {
            out.push(Action::Tick);
        }
        if s.master.disk != s.master.shown {
            out.push(Action::MakeDurable);
        }
    }

    fn chain_steps(&self, s: &State, write: u8, out: &mut Vec<Action>) {
        let w = usize::from(write);
        let first = s.volumes[usize::from(self.first(s, write))].tasks[w];
        if first == Task::Asked {
            let open = s.network.asks(write) || s.network.answers(write);
            if !open {
                out.push(Action::Ask { write });
            }
        }
        if self.op(write) == Op::Delete {
            return;
        }
        let chain = self.spec(write).chain;
        let second = s.volumes[usize::from(chain[1])].tasks[w];
        if second == Task::Receiving {
            out.push(Action::Prepare { write, volume: chain[1] });
        }
        match (first, second) {
            (Task::Receiving, Task::Durable) => out.push(Action::Ask { write }),
            (Task::Receiving, Task::None) => out.push(Action::Abandon { write }),
            _ => {}
        }
    }

    fn volume_steps(&self, s: &State, volume: Volume, out: &mut Vec<Action>) {
        let v = usize::from(volume);
        let state = &s.volumes[v];
        for version in 0..self.versions() {
            let i = usize::from(version);
            if let Task::Fetching(_) = state.tasks[i] {
                out.push(Action::Bring { volume, version });
            }
            let Copy::Value { commit_by, seq: None, .. } = state.copies[i] else { continue };
            if state.tasks[i] != Task::None {
                continue;
            }
            if commit_by < s.now && self.bounds.has(Flaw::DropUnasked) {
                out.push(Action::DropUnasked { volume, version });
            } else if commit_by < s.now && !state.is_open(i, s.now) && !state.settling {
                out.push(Action::Settle { volume, version, early: false });
            }
        }
        if s.master.reclaiming[v].is_none() && s.master.shown.reclaim[v].iter().any(Option::is_some) {
            out.push(Action::Reclaim { volume });
        }
    }

    /// What clients do, and what goes wrong, within the budgets.
    pub fn disturbances(&self, s: &State, out: &mut Vec<Action>) {
        for write in self.numbers() {
            self.client_steps(s, write, out);
        }
        for reader in 0..self.bounds.readers {
            self.reader_steps(s, reader, out);
        }
        self.repairs(s, out);
        for volume in 0..self.bounds.volumes {
            self.faults_of(s, volume, out);
        }
        if s.left.master_crashes > 0 {
            out.push(Action::KillMaster);
        }
    }

    fn client_steps(&self, s: &State, write: u8, out: &mut Vec<Action>) {
        let w = usize::from(write);
        let state = &s.writes[w];
        match state.client {
            // Versions are given out in order; a ticket's times must end within the exploration.
            Client::Idle => {
                let in_turn = self.numbers().take_while(|n| *n < write).all(|n| s.writes[usize::from(n)].client != Client::Idle);
                if in_turn && s.now + self.bounds.commit_within < self.bounds.ticks {
                    let to = match self.op(write) {
                        Op::Delete => s.master.shown.record.map_or(0, |r| r.replicas),
                        _ => 1 << self.spec(write).chain[0],
                    };
                    out.extend(members(to).map(|at| Action::Redirect { write, at }));
                }
            }
            Client::Unknown if s.left.reuses > 0 && s.now <= state.start_by => out.push(Action::Begin { write }),
            Client::Waiting => {
                let asked = s.volumes[usize::from(self.first(s, write))].tasks[w] == Task::Asked;
                if asked && s.left.timeouts > 0 {
                    out.push(Action::GiveUp { write });
                }
                if asked && s.left.retries > 0 && !s.network.asks(write) && s.network.answers(write) {
                    out.push(Action::Ask { write });
                }
            }
            _ => {}
        }
    }

    fn reader_steps(&self, s: &State, reader: u8, out: &mut Vec<Action>) {
        let (version, missed) = match s.readers[usize::from(reader)] {
            Reader::Idle => (None, 0),
            Reader::Back { version, missed, .. } => (Some(version), missed),
            Reader::Sent { .. } => return out.push(Action::Serve { reader }),
            Reader::Done => return,
        };
        let to = s.master.shown.record.map_or(0, |r| if Some(r.version) == version { r.replicas & !missed } else { r.replicas });
        match to {
            0 => out.push(Action::LookUp { reader, at: None }),
            _ => out.extend(members(to).map(|at| Action::LookUp { reader, at: Some(at) })),
        }
    }

    fn repairs(&self, s: &State, out: &mut Vec<Action>) {
        out.extend(s.master.orders.iter().filter(|_| s.left.timeouts > 0).map(|o| Action::OrderTimeout(*o)));
        let at_once = if self.bounds.has(Flaw::TwoRepairsAtOnce) || self.bounds.has(Flaw::NoCompareOfReplicas) { 2 } else { 1 };
        let Some(record) = s.master.shown.record else { return };
        if s.left.repairs == 0 || s.master.orders.len() >= at_once || s.now >= self.bounds.ticks {
            return;
        }
        let (version, before) = (record.version, record.replicas);
        let bad = |v: Volume| has(s.volumes[usize::from(v)].bad, version);
        for target in (0..self.bounds.volumes).filter(|t| master::may_be_target(&self.bounds, &s.master.shown, record, *t)) {
            let Some(source) = members(before).find(|v| *v != target && !bad(*v)) else { continue };
            let mut order = |after, seq| {
                let sent = s.stamps + 1;
                out.push(Action::Order(Order { sent, version, target, source, before, after, commit_by: s.now, seq }));
            };
            if !has(before, target) {
                // `plan::step` gives up what is bad before anything else, `plan::shift` moves any.
                let some_bad = members(before).any(bad);
                let may_go = members(before).filter(|v| !some_bad || bad(*v));
                may_go.for_each(|gone| order(before & !(1 << gone) | 1 << target, None));
            } else if self.bounds.bad_copies > 0 {
                // It may be taken for bad without being so.
                order(before, Some(record.seq));
            }
        }
    }

    fn faults_of(&self, s: &State, volume: Volume, out: &mut Vec<Action>) {
        let v = usize::from(volume);
        if s.left.volume_kills > 0 {
            out.push(Action::KillVolume(volume));
        }
        if s.left.power_cuts > 0 {
            out.push(Action::CutPower(volume));
        }
        if s.left.timeouts > 0 && s.master.reclaiming[v].is_some() {
            out.push(Action::ReclaimTimeout { volume });
        }
        if s.left.bad_copies > 0
            && let Some(record) = s.master.disk.record
            && has(record.replicas, volume)
        {
            let good = |v: &Volume| s.volumes[usize::from(*v)].copies[usize::from(record.version)].is_value();
            if good(&volume) && members(record.replicas).filter(good).count() > 1 {
                out.push(Action::PutAside { volume });
            }
        }
        if s.left.early_questions > 0 && !s.volumes[v].settling {
            let prepared = |i: &u8| {
                let (copy, task) = (s.volumes[v].copies[usize::from(*i)], s.volumes[v].tasks[usize::from(*i)]);
                copy.is_value() && copy.seq().is_none() && task == Task::None
            };
            out.extend((0..self.versions()).filter(prepared).map(|version| Action::Settle { volume, version, early: true }));
        }
    }
}
