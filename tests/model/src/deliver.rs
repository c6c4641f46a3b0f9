//! Messages arrive.

use crate::Cluster;
use crate::bounds::{Flaw, Op};
use crate::master;
use crate::network::Message;
use crate::state::{Answer, Client, Copy, Order, Outcome, Record, Removal, Standing, State, Task, Version, Volume, WRITES, has};
use crate::step::fail;

impl Cluster {
    pub(crate) fn deliver(&self, s: &mut State, message: Message) {
        match message {
            Message::Commit { write, awaited } => self.commit(s, write, awaited),
            Message::CommitAnswer { write, answer } => self.answered(s, write, answer),
            Message::Outcome { write, answer } => self.outcome(s, write, answer),
            Message::Settle { volume, version, commit_by, asked } => self.settle(s, volume, version, commit_by, asked),
            Message::SettleAnswer { volume, version, outcome, asked } => self.settled(s, volume, version, outcome, asked),
            Message::Reclaim { volume, removals, sent } => self.reclaim(s, volume, removals, sent),
            Message::ReclaimDone { volume, removals, sent } => self.reclaim_done(s, volume, &removals, sent),
            Message::Fetch(order) => self.fetch(s, order),
            Message::Fetched(order) => self.fetched(s, &order),
            Message::Keep { volume, version, seq, sent } => {
                let state = &mut s.volumes[usize::from(volume)];
                if self.bounds.has(Flaw::LateKeepApplied) || !state.outdates(usize::from(version), sent) {
                    state.mark_committed(usize::from(version), seq);
                }
            }
        }
    }

    /// One batch of the committer.
    fn batch<T>(&self, s: &mut State, change: impl FnOnce(&mut crate::state::Catalog) -> T) -> T {
        let result = change(&mut s.master.shown);
        if !self.bounds.has(Flaw::AnswerBeforeDurable) {
            let reclaim = s.master.disk.reclaim;
            s.master.disk = s.master.shown.clone();
            if self.bounds.has(Flaw::ReclaimInLaterBatch) {
                s.master.disk.reclaim = reclaim;
            }
        }
        result
    }

    fn commit(&self, s: &mut State, write: u8, awaited: bool) {
        let before = s.master.shown.seq();
        let (state, now) = (s.writes[usize::from(write)], s.now);
        let answer = self.batch(s, |catalog| master::commit(&self.bounds, catalog, now, write, self.op(write), self.chain(write), &state));
        if s.master.shown.seq() > before && self.op(write) != Op::Delete {
            s.wrongs.drop_not_final |= has(s.told_drop, write);
        }
        if awaited {
            s.network.insert(Message::CommitAnswer { write, answer });
        }
    }

    /// `commit_upload` and the end of `delete::delete`.
    fn answered(&self, s: &mut State, write: u8, answer: Answer) {
        let (w, first) = (usize::from(write), self.first(s, write));
        if s.volumes[usize::from(first)].tasks[w] != Task::Asked {
            return;
        }
        match (answer, self.op(write)) {
            (Answer::Committed { seq, removed, .. }, Op::Delete) => {
                self.remove(s, first, removed.unwrap_or_default(), Some(seq));
                self.tell(s, write, Client::Acknowledged);
            }
            (Answer::Refused, Op::Delete) => self.tell(s, write, Client::Refused),
            (Answer::Committed { .. }, _) => {
                self.conclude(s, first, write, answer);
                self.end_chain(s, write, Some(answer));
                self.tell(s, write, Client::Acknowledged);
            }
            (Answer::Refused, _) => {
                self.end_chain(s, write, Some(answer));
                self.abandon(s, write);
            }
        }
        s.volumes[usize::from(first)].tasks[w] = Task::None;
    }

    /// What a volume of the chain does with its copy when it hears of the commit.
    fn conclude(&self, s: &mut State, volume: Volume, write: u8, answer: Answer) {
        let Answer::Committed { seq, standing, .. } = answer else { return self.remove(s, volume, write, None) };
        match standing {
            _ if self.bounds.has(Flaw::MarkSuperseded) => s.volumes[usize::from(volume)].mark_committed(usize::from(write), seq),
            Standing::Current => s.volumes[usize::from(volume)].mark_committed(usize::from(write), seq),
            // It asks, as for any version in doubt.
            Standing::Moved => {}
            Standing::Gone => self.remove(s, volume, write, None),
        }
    }

    /// The second volume hears the outcome, or that the chain has ended.
    fn outcome(&self, s: &mut State, write: u8, answer: Option<Answer>) {
        let (w, second) = (usize::from(write), self.spec(write).chain[1]);
        let task = std::mem::replace(&mut s.volumes[usize::from(second)].tasks[w], Task::None);
        if let (Task::Durable, Some(answer)) = (task, answer) {
            self.conclude(s, second, write, answer);
        }
    }

    fn settle(&self, s: &mut State, volume: Volume, version: Version, commit_by: u8, asked: u8) {
        let outcome = master::settle(&self.bounds, &s.master.shown, s.now, volume, version, commit_by);
        let named = s.master.shown.record.is_some_and(|r| r.version == version);
        if outcome == Outcome::Drop && !named {
            s.told_drop |= 1 << version;
        }
        s.network.insert(Message::SettleAnswer { volume, version, outcome, asked });
    }

    /// `commit::apply`.
    fn settled(&self, s: &mut State, volume: Volume, version: Version, outcome: Outcome, asked: u8) {
        let (v, i) = (usize::from(volume), usize::from(version));
        s.volumes[v].settling = false;
        let by_clock = self.bounds.has(Flaw::LateSettleByClock);
        let in_time = s.volumes[v].last_fetch(i) == asked;
        match outcome {
            Outcome::Keep(seq) if in_time || by_clock => s.volumes[v].mark_committed(i, seq),
            Outcome::Drop if by_clock && !s.volumes[v].is_open(i, s.now) => self.remove(s, volume, version, None),
            Outcome::Drop if in_time && !by_clock => self.remove(s, volume, version, None),
            _ => {}
        }
    }

    /// `peer_calls::reclaim`.
    fn reclaim(&self, s: &mut State, volume: Volume, removals: [Removal; WRITES], sent: u8) {
        for (version, removal) in (0..).zip(removals) {
            let outdated = s.volumes[usize::from(volume)].outdates(usize::from(version), sent);
            if let Some(deleted) = removal.filter(|_| !outdated || self.bounds.has(Flaw::LateRemovalApplied)) {
                self.remove(s, volume, version, deleted);
            }
        }
        s.network.insert(Message::ReclaimDone { volume, removals, sent });
    }

    fn reclaim_done(&self, s: &mut State, volume: Volume, removals: &[Removal; WRITES], sent: u8) {
        let v = usize::from(volume);
        if s.master.reclaiming[v] != Some(sent) {
            return;
        }
        s.master.reclaiming[v] = None;
        self.batch(s, |catalog| {
            for (version, _) in removals.iter().enumerate().filter(|(_, r)| r.is_some()) {
                catalog.reclaim[v][version] = None;
            }
        });
    }

    /// `fetch::fetch`, up to the copying: the order is noted, and what is here is looked at.
    fn fetch(&self, s: &mut State, order: Order) {
        let (v, i) = (usize::from(order.target), usize::from(order.version));
        let busy = s.volumes[v].tasks[i] != Task::None;
        if s.now > order.commit_by || busy || !s.volumes[v].note(i, order.sent, order.commit_by) {
            return fail(s, &order);
        }
        match s.volumes[v].copies[i] {
            Copy::Value { seq: Some(_), .. } => s.network.insert(Message::Fetched(order)),
            Copy::Value { seq: None, .. } if order.seq.is_some() => {
                s.volumes[v].mark_committed(i, order.seq.unwrap_or_default());
                s.network.insert(Message::Fetched(order));
            }
            Copy::Value { seq: None, .. } => {
                self.remove(s, order.target, order.version, None);
                s.volumes[v].tasks[i] = Task::Fetching(order);
            }
            _ => s.volumes[v].tasks[i] = Task::Fetching(order),
        }
    }

    /// The target has it: the record is changed, if nothing else has.
    fn fetched(&self, s: &mut State, order: &Order) {
        if !s.master.orders.contains(order) {
            return;
        }
        fail(s, order);
        let now = s.now;
        let anew = |r: &Record| r.version == order.version && has(r.replicas, order.target);
        let placed = match order.seq {
            Some(_) => s.master.shown.record.filter(anew).map(|r| r.seq),
            None => self.batch(s, |catalog| master::set_replicas(&self.bounds, catalog, now, order)),
        };
        if let Some(seq) = placed {
            s.stamps += 1;
            s.network.insert(Message::Keep { volume: order.target, version: order.version, seq, sent: s.stamps });
        }
    }
}
