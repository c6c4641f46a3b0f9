//! The model for the checker, and the steps of clients and servers.

use crate::action::Action;
use crate::bounds::{Bounds, Flaw, Op, WriteSpec};
use crate::canon::normalise;
use crate::master;
use crate::network::{Message, Network};
use crate::property;
use crate::state::{
    Answer, Catalog, Client, Copy, Left, Master, Order, Reader, Record, State, Task, VOLUMES, Version, Volume, VolumeState, Volumes,
    WRITES, Write, has,
};
use stateright::{Model, Property};

/// A cluster with its bounds.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How much may happen.
    pub bounds: Bounds,
}

impl Cluster {
    /// The clients' writes.
    pub fn numbers(&self) -> std::ops::Range<u8> {
        let first = u8::from(self.bounds.begin_with_value);
        first..self.versions()
    }

    /// One more than the last version.
    pub fn versions(&self) -> u8 {
        u8::try_from(self.bounds.first_write() + self.bounds.writes.len()).unwrap_or(u8::MAX)
    }

    pub(crate) fn spec(&self, write: u8) -> WriteSpec {
        self.bounds.writes[usize::from(write) - self.bounds.first_write()]
    }

    pub(crate) fn op(&self, write: u8) -> Op {
        self.spec(write).op
    }

    pub(crate) fn chain(&self, write: u8) -> Volumes {
        self.spec(write).chain.iter().map(|v| 1 << v).sum()
    }

    /// The volume that asks for the commit.
    pub(crate) fn first(&self, s: &State, write: u8) -> Volume {
        match self.op(write) {
            Op::Delete => s.writes[usize::from(write)].at,
            Op::Create | Op::Replace => self.spec(write).chain[0],
        }
    }

    /// The volume that a message is for; none: the master.
    pub(crate) fn addressee(&self, s: &State, message: &Message) -> Option<Volume> {
        match message {
            Message::Commit { .. } | Message::Settle { .. } | Message::ReclaimDone { .. } | Message::Fetched(_) => None,
            Message::CommitAnswer { write, .. } => Some(self.first(s, *write)),
            Message::Outcome { write, .. } => Some(self.spec(*write).chain[1]),
            Message::SettleAnswer { volume, .. } | Message::Reclaim { volume, .. } | Message::Keep { volume, .. } => Some(*volume),
            Message::Fetch(order) => Some(order.target),
        }
    }

    fn initial(&self) -> State {
        let b = &self.bounds;
        let mut volumes = std::array::from_fn(|_| VolumeState::empty());
        let mut catalog = Catalog { record: None, reclaim: [[None; WRITES]; VOLUMES], decisions: [None; WRITES], history: Vec::new() };
        if b.begin_with_value {
            catalog.record = Some(Record { version: 0, replicas: 0b11, seq: 1 });
            catalog.history.push(Some(0));
            for volume in &mut volumes[..2] {
                volume.copies[0] = Copy::Value { commit_by: 0, chain: 0b11, seq: Some(1), synced: true };
            }
        }
        State {
            now: 0,
            stamps: 0,
            master: Master { disk: catalog.clone(), shown: catalog, orders: Vec::new(), reclaiming: [None; VOLUMES] },
            volumes,
            network: Network::default(),
            writes: [Write { client: Client::Idle, start_by: 0, commit_by: 0, at: 0, since: 0 }; WRITES],
            readers: [Reader::Idle; 2],
            left: Left {
                master_crashes: b.master_crashes,
                volume_kills: b.volume_kills,
                power_cuts: b.power_cuts,
                timeouts: b.timeouts,
                retries: b.retries,
                reuses: b.reuses,
                repairs: b.repairs,
                bad_copies: b.bad_copies,
                early_questions: b.early_questions,
            },
            told_drop: 0,
            power_was_cut: false,
            wrongs: crate::state::Wrongs::default(),
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.progress(state, actions);
        self.disturbances(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        self.step(&mut s, action);
        normalise(&mut s);
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::all()
    }
}

impl Cluster {
    fn step(&self, s: &mut State, action: Action) {
        match action {
            Action::Redirect { write, at } => self.redirect(s, write, at),
            Action::Begin { write } => self.begin(s, write),
            Action::Prepare { write, volume } => self.prepare(s, write, volume),
            Action::Ask { write } => self.ask(s, write),
            Action::Abandon { write } => self.abandon(s, write),
            Action::GiveUp { write } => {
                s.left.timeouts -= 1;
                self.leave_in_doubt(s, write);
            }
            Action::Deliver(message) => {
                s.network.remove(&message);
                self.deliver(s, message);
            }
            Action::Settle { volume, version, early } => settle(s, volume, version, early),
            Action::DropUnasked { volume, version } => self.remove(s, volume, version, None),
            Action::Reclaim { volume } => reclaim(s, volume),
            Action::ReclaimTimeout { volume } => {
                s.left.timeouts -= 1;
                s.master.reclaiming[usize::from(volume)] = None;
            }
            Action::Order(order) => {
                s.left.repairs -= 1;
                s.stamps = order.sent;
                s.master.orders.push(order);
                s.network.insert(Message::Fetch(order));
            }
            Action::Bring { volume, version } => bring(s, volume, version),
            Action::OrderTimeout(order) => {
                s.left.timeouts -= 1;
                s.master.orders.retain(|o| *o != order);
            }
            Action::LookUp { reader, at } => look_up(s, reader, at),
            Action::Serve { reader } => self.serve(s, reader),
            Action::PutAside { volume } => {
                s.left.bad_copies -= 1;
                let version = s.master.disk.record.map_or(0, |r| r.version);
                s.volumes[usize::from(volume)].put_aside(usize::from(version));
            }
            Action::Tick => self.tick(s),
            Action::MakeDurable => s.master.disk = s.master.shown.clone(),
            Action::KillMaster => self.kill_master(s),
            Action::KillVolume(volume) => {
                s.left.volume_kills -= 1;
                self.lose_connections(s, volume);
                s.volumes[usize::from(volume)].kill();
            }
            Action::CutPower(volume) => {
                s.left.power_cuts -= 1;
                s.power_was_cut = true;
                self.lose_connections(s, volume);
                s.volumes[usize::from(volume)].cut_power();
            }
        }
    }

    /// The master gives a ticket, and the client begins at once: what may come in between, may come later as well.
    fn redirect(&self, s: &mut State, write: u8, at: Volume) {
        let since = if self.op(write) == Op::Delete { s.master.shown.seq() } else { 0 };
        let commit_by = s.now + self.bounds.commit_within;
        s.writes[usize::from(write)] = Write { client: Client::Waiting, start_by: s.now, commit_by, at, since };
        self.begin(s, write);
    }

    /// `put::put` and `delete::delete` up to where a ticket is refused; a refused one leaves everything as it is.
    fn begin(&self, s: &mut State, write: u8) {
        let w = usize::from(write);
        if s.now > s.writes[w].start_by {
            return;
        }
        if self.op(write) == Op::Delete {
            let at = usize::from(s.writes[w].at);
            if s.volumes[at].tasks[w] == Task::None {
                self.note_begin(s, w);
                s.volumes[at].tasks[w] = Task::Asked;
                s.network.insert(Message::Commit { write, awaited: true });
            }
            return;
        }
        let chain = self.spec(write).chain.map(usize::from);
        // `claim` and `refuse_used`, at each; a tombstone is met only when the copy is to be entered.
        let free = chain.iter().all(|v| s.volumes[*v].tasks[w] == Task::None && !s.volumes[*v].copies[w].is_value());
        if !free || has(s.volumes[chain[0]].used, write) || chain.iter().any(|v| matches!(s.volumes[*v].copies[w], Copy::Tombstone { .. }))
        {
            return;
        }
        self.note_begin(s, w);
        chain.iter().for_each(|v| s.volumes[*v].tasks[w] = Task::Receiving);
    }

    fn note_begin(&self, s: &mut State, w: usize) {
        if s.writes[w].client == Client::Unknown {
            s.left.reuses -= 1;
        }
        s.writes[w].client = Client::Waiting;
    }

    fn prepare(&self, s: &mut State, write: u8, volume: Volume) {
        let (w, chain, commit_by) = (usize::from(write), self.chain(write), s.writes[usize::from(write)].commit_by);
        let state = &mut s.volumes[usize::from(volume)];
        state.tasks[w] = if state.put(w, commit_by, chain) { Task::Durable } else { Task::None };
    }

    fn ask(&self, s: &mut State, write: u8) {
        let (w, first) = (usize::from(write), usize::from(self.first(s, write)));
        if s.network.answers(write) {
            s.left.retries -= 1;
        }
        if s.volumes[first].tasks[w] == Task::Receiving {
            self.prepare(s, write, self.first(s, write));
            if s.volumes[first].tasks[w] == Task::None {
                self.end_chain(s, write, Some(Answer::Refused));
                return self.abandon(s, write);
            }
        }
        s.volumes[first].tasks[w] = Task::Asked;
        s.volumes[first].used |= if self.bounds.reuses > 0 { 1 << write } else { 0 };
        s.network.insert(Message::Commit { write, awaited: true });
    }

    /// `PreparedUpload::abandon` at the first volume, and word of it to the second.
    pub(crate) fn abandon(&self, s: &mut State, write: u8) {
        let first = self.first(s, write);
        self.remove(s, first, write, None);
        s.volumes[usize::from(first)].tasks[usize::from(write)] = Task::None;
        self.tell(s, write, Client::Refused);
    }

    /// A client that uses its ticket once more may be refused although its first try had an effect.
    pub(crate) fn tell(&self, s: &mut State, write: u8, answer: Client) {
        let reused = s.left.reuses < self.bounds.reuses;
        s.writes[usize::from(write)].client = if reused && answer == Client::Refused { Client::Unknown } else { answer };
    }

    /// `Durable::leave_in_doubt` at the first volume; the second sees the chain end.
    pub(crate) fn leave_in_doubt(&self, s: &mut State, write: u8) {
        let w = usize::from(write);
        let first = usize::from(self.first(s, write));
        s.volumes[first].tasks[w] = Task::None;
        s.writes[w].client = Client::Unknown;
        self.stop_waiting(s, write);
        self.end_chain(s, write, None);
    }

    /// Nobody waits for the commit's answer any more; the call may arrive all the same.
    pub(crate) fn stop_waiting(&self, s: &mut State, write: u8) {
        drop(s.network.take(|m| matches!(m, Message::CommitAnswer { write: w, .. } if *w == write)));
        s.network.change(|m| match m {
            Message::Commit { write: w, awaited } if *w == write => *awaited = false,
            _ => {}
        });
    }

    /// The chain's last frame, or its end without one.
    pub(crate) fn end_chain(&self, s: &mut State, write: u8, answer: Option<Answer>) {
        let said = s.network.iter().any(|m| matches!(m, Message::Outcome { write: w, .. } if *w == write));
        if self.op(write) != Op::Delete
            && !said
            && s.volumes[usize::from(self.spec(write).chain[1])].tasks[usize::from(write)] != Task::None
        {
            s.network.insert(Message::Outcome { write, answer });
        }
    }

    /// `Store::remove`, and what the properties want to know of it.
    pub(crate) fn remove(&self, s: &mut State, volume: Volume, version: Version, deleted: Option<u8>) {
        let state = &mut s.volumes[usize::from(volume)];
        let named = s.master.disk.record.is_some_and(|r| r.version == version && has(r.replicas, volume));
        s.wrongs.dropped_named |= named && state.copies[usize::from(version)].is_value();
        state.remove(usize::from(version), deleted.filter(|_| !self.bounds.has(Flaw::NoTombstone)));
    }

    fn serve(&self, s: &mut State, reader: u8) {
        let Reader::Sent { version, at, missed, since } = s.readers[usize::from(reader)] else { return };
        let copies = &s.volumes[usize::from(at)].copies;
        let served = match self.bounds.has(Flaw::ServePrepared) {
            true => (0..self.versions()).rev().find(|v| copies[usize::from(*v)].is_value()),
            false => Some(version).filter(|v| copies[usize::from(*v)].is_value()),
        };
        s.readers[usize::from(reader)] = match served {
            Some(version) => {
                let window = s.master.shown.history.iter().skip(usize::from(since).saturating_sub(1));
                s.wrongs.read |= !window.into_iter().any(|v| *v == Some(version));
                Reader::Done
            }
            None => Reader::Back { version, missed: missed | 1 << at, since },
        };
    }

    /// The clock moves on: what waits for less than a tick gives up, and deferred syncs are done.
    fn tick(&self, s: &mut State) {
        s.now += 1;
        if !self.bounds.late_commits && !self.bounds.has(Flaw::CommitsLongAfter) {
            drop(s.network.take(|m| matches!(m, Message::Commit { .. })));
            for write in self.numbers() {
                if s.volumes[usize::from(self.first(s, write))].tasks[usize::from(write)] == Task::Asked {
                    self.leave_in_doubt(s, write);
                }
            }
        }
        s.volumes.iter_mut().for_each(VolumeState::rest);
        let now = s.now;
        for catalog in [&mut s.master.disk, &mut s.master.shown] {
            master::forget(catalog, now);
        }
    }
}

fn settle(s: &mut State, volume: Volume, version: Version, early: bool) {
    s.left.early_questions -= u8::from(early);
    let state = &mut s.volumes[usize::from(volume)];
    let Copy::Value { commit_by, .. } = state.copies[usize::from(version)] else { return };
    state.settling = true;
    let asked = state.last_fetch(usize::from(version));
    s.network.insert(Message::Settle { volume, version, commit_by, asked });
}

fn reclaim(s: &mut State, volume: Volume) {
    s.stamps += 1;
    s.master.reclaiming[usize::from(volume)] = Some(s.stamps);
    let removals = s.master.shown.reclaim[usize::from(volume)];
    s.network.insert(Message::Reclaim { volume, removals, sent: s.stamps });
}

/// `fetch::bring`.
fn bring(s: &mut State, volume: Volume, version: Version) {
    let (v, i) = (usize::from(volume), usize::from(version));
    let Task::Fetching(order) = s.volumes[v].tasks[i] else { return };
    s.volumes[v].tasks[i] = Task::None;
    let there = s.volumes[usize::from(order.source)].copies[i].is_value();
    match there && s.volumes[v].put(i, order.commit_by, order.after) {
        true => s.network.insert(Message::Fetched(order)),
        false => fail(s, &order),
    }
}

/// The master learns that an order failed.
pub(crate) fn fail(s: &mut State, order: &Order) {
    s.master.orders.retain(|o| o != order);
}

fn look_up(s: &mut State, reader: u8, at: Option<Volume>) {
    let record = s.master.shown.record;
    let (missed_of, missed, since) = match s.readers[usize::from(reader)] {
        Reader::Back { version, missed, since } => (Some(version), missed, since),
        _ => (None, 0, s.master.shown.seq()),
    };
    s.readers[usize::from(reader)] = match (record, at) {
        (Some(record), Some(at)) => {
            let missed = if missed_of == Some(record.version) { missed } else { 0 };
            Reader::Sent { version: record.version, at, missed, since }
        }
        (Some(_), None) => {
            s.wrongs.unreadable = true;
            Reader::Done
        }
        (None, _) => Reader::Done,
    };
}
