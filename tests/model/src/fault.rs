//! Processes die: their memory and connections go.

use crate::Cluster;
use crate::bounds::Op;
use crate::network::Message;
use crate::state::{Client, State, Task, VOLUMES, Volume};
use crate::step::fail;

impl Cluster {
    pub(crate) fn kill_master(&self, s: &mut State) {
        s.left.master_crashes -= 1;
        s.master.shown = s.master.disk.clone();
        s.master.orders.clear();
        s.master.reclaiming = [None; VOLUMES];
        let mut network = std::mem::take(&mut s.network);
        let lost = network.take(|m| self.addressee(s, m).is_none());
        s.network = network;
        for message in lost {
            if let Message::Settle { volume, .. } = message {
                s.volumes[usize::from(volume)].settling = false;
            }
        }
    }

    /// What the process was doing ends, and what was sent to it is lost; what it has sent may still arrive.
    pub(crate) fn lose_connections(&self, s: &mut State, volume: Volume) {
        let v = usize::from(volume);
        let mut network = std::mem::take(&mut s.network);
        let lost = network.take(|m| {
            let asks = matches!(m, Message::Settle { volume: from, .. } if *from == volume);
            asks || self.addressee(s, m) == Some(volume)
        });
        s.network = network;
        for message in &lost {
            match message {
                Message::Reclaim { sent, .. } if s.master.reclaiming[v] == Some(*sent) => s.master.reclaiming[v] = None,
                Message::Fetch(order) => fail(s, order),
                _ => {}
            }
        }
        for i in 0..s.volumes[v].tasks.len() {
            if let Task::Fetching(order) = s.volumes[v].tasks[i] {
                fail(s, &order);
            }
        }
        for write in self.numbers() {
            let w = usize::from(write);
            let task = std::mem::replace(&mut s.volumes[v].tasks[w], Task::None);
            if self.first(s, write) == volume && task != Task::None && !matches!(task, Task::Fetching(_)) {
                if s.writes[w].client == Client::Waiting {
                    s.writes[w].client = Client::Unknown;
                }
                self.stop_waiting(s, write);
                if self.op(write) != Op::Delete {
                    self.end_chain(s, write, None);
                }
            }
        }
    }
}
