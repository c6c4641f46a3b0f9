//! A TCP proxy that breaks connections on demand: cuts, delays, stalls, leaves half open, flips chosen bytes.
//!
//! Faults hold for all connections, present and new, until [`Proxy::heal`]; cutting happens once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that are taken from a socket at once.
const PORTION: usize = 64 << 10;
/// Longest wait for a connection to the server behind.
const CONNECT: Duration = Duration::from_secs(5);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the one that connected to the server behind.
    Forth,
    /// From the server behind to the one that connected.
    Back,
}

/// What happens to the bytes of one way.
#[derive(Debug, Default)]
struct Faults {
    stalled: bool,
    delay: Duration,
    /// A connection is cut when so many of its bytes have passed.
    cut_at: Option<u64>,
    /// Offset in the connection's stream, and the bits that change there.
    flips: Vec<(u64, u8)>,
}

#[derive(Debug)]
struct State {
    upstream: String,
    refusing: bool,
    stopping: bool,
    faults: [Faults; 2],
    connections: Vec<Arc<Pair>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    accepted: AtomicU64,
    passed: [AtomicU64; 2],
    flipped: AtomicU64,
}

/// The two ends of one connection.
#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Ways that have ended.
    ended: AtomicU64,
}

impl Pair {
    fn close(&self) {
        // An end that is closed already needs no closing.
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }
}

/// A proxy in front of one server. Dropped, it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on a free port of `ip` to `upstream` (`host:port`).
    #[track_caller]
    pub fn start(ip: &str, upstream: &str) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            State { upstream: upstream.into(), refusing: false, stopping: false, faults: Default::default(), connections: Vec::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            accepted: AtomicU64::new(0),
            passed: Default::default(),
            flipped: AtomicU64::new(0),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Where it listens: `ip:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Leads new connections to another server.
    pub fn set_upstream(&self, upstream: &str) {
        self.shared.change(|s| s.upstream = upstream.into());
    }

    /// Closes all connections, both ends; new ones are taken.
    pub fn cut(&self) {
        self.shared.lock().connections.iter().for_each(|c| c.close());
    }

    /// Closes all connections at the server's end only: whoever connected hears nothing, neither bytes nor an end.
    /// Holds until [`Proxy::heal`], then they are closed.
    pub fn leave_half_open(&self) {
        self.shared.change(|s| {
            s.faults[Way::Back as usize].stalled = true;
            s.connections.iter().for_each(|c| drop(c.server.shutdown(Shutdown::Both)));
        });
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.shared.change(|s| s.refusing = refusing);
    }

    /// Lets nothing pass that way; connections stay open.
    pub fn stall(&self, way: Way) {
        self.shared.change(|s| s.faults[way as usize].stalled = true);
    }

    /// Has each portion of up to 64 KiB wait so long before it passes.
    pub fn delay(&self, way: Way, delay: Duration) {
        self.shared.change(|s| s.faults[way as usize].delay = delay);
    }

    /// Cuts each connection after so many bytes of that way, counted from its beginning.
    pub fn cut_at(&self, way: Way, bytes: u64) {
        self.shared.change(|s| s.faults[way as usize].cut_at = Some(bytes));
    }

    /// Changes these bits of the byte at this offset of each connection's stream.
    pub fn flip(&self, way: Way, at: u64, bits: u8) {
        self.shared.change(|s| s.faults[way as usize].flips.push((at, bits)));
    }

    /// Ends all faults; what was held up passes.
    pub fn heal(&self) {
        self.shared.change(|s| (s.refusing, s.faults) = (false, Default::default()));
    }

    /// Connections taken so far, refused ones not counted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes that passed that way so far.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::SeqCst)
    }

    /// Bytes that were changed so far.
    pub fn flipped(&self) -> u64 {
        self.shared.flipped.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|s| {
            s.stopping = true;
            s.connections.iter().for_each(|c| c.close());
        });
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.accepting.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// What is to be done with a portion that begins at `from`: waits while the way is stalled, flips, and gives the number
    /// of bytes that may pass before the connection is cut, if it is.
    fn treat(&self, way: Way, from: u64, portion: &mut [u8]) -> Option<u64> {
        let delay = self.lock().faults[way as usize].delay;
        std::thread::sleep(delay);
        let held = |s: &mut State| s.faults[way as usize].stalled && !s.stopping;
        let state = self.changed.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner);
        let faults = &state.faults[way as usize];
        let end = from + portion.len() as u64;
        for (at, bits) in faults.flips.iter().filter(|(at, _)| (from..end).contains(at)) {
            if let Some(byte) = usize::try_from(at - from).ok().and_then(|i| portion.get_mut(i)) {
                *byte ^= bits;
                self.flipped.fetch_add(1, Ordering::SeqCst);
            }
        }
        faults.cut_at.filter(|at| *at <= end).map(|at| at.saturating_sub(from))
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let (upstream, refusing) = {
            let state = shared.lock();
            if state.stopping {
                return;
            }
            (state.upstream.clone(), state.refusing)
        };
        let Ok(client) = client else { continue };
        if !refusing {
            // A server that is down must not hold up other connections.
            let shared = shared.clone();
            std::thread::spawn(move || connect(client, &upstream, &shared));
        }
    }
}

/// Connects to the server and starts both ways; where it cannot be reached, the client's end is closed.
fn connect(client: TcpStream, upstream: &str, shared: &Arc<Shared>) {
    let Ok(address) = upstream.parse() else { return };
    let Ok(server) = TcpStream::connect_timeout(&address, CONNECT) else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let pair = Arc::new(Pair { client, server, ended: AtomicU64::new(0) });
    {
        let mut state = shared.lock();
        if state.stopping {
            return pair.close();
        }
        state.connections.push(pair.clone());
    }
    shared.accepted.fetch_add(1, Ordering::SeqCst);
    for way in [Way::Forth, Way::Back] {
        let (shared, pair) = (shared.clone(), pair.clone());
        std::thread::spawn(move || {
            let (from, to) = match way {
                Way::Forth => (&pair.client, &pair.server),
                Way::Back => (&pair.server, &pair.client),
            };
            if !pump(&shared, way, from, to) {
                pair.close();
            }
            if pair.ended.fetch_add(1, Ordering::SeqCst) == 1 {
                shared.lock().connections.retain(|c| !Arc::ptr_eq(c, &pair));
            }
        });
    }
}

/// Carries bytes to the end of the stream, and passes that end on. False where the connection is broken.
fn pump(shared: &Shared, way: Way, mut from: &TcpStream, mut to: &TcpStream) -> bool {
    let (mut buffer, mut passed) = (vec![0; PORTION], 0);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            // A broken end is held back like bytes are.
            Err(_) => {
                shared.treat(way, passed, &mut []);
                return false;
            }
        };
        let portion = &mut buffer[..read];
        let cut = shared.treat(way, passed, portion);
        let may_pass = cut.map_or(read, |n| usize::try_from(n).map_or(read, |n| n.min(read)));
        if to.write_all(&portion[..may_pass]).is_err() {
            return false;
        }
        passed += may_pass as u64;
        shared.passed[way as usize].fetch_add(may_pass as u64, Ordering::SeqCst);
        if cut.is_some() {
            return false;
        }
        if read == 0 {
            return to.shutdown(Shutdown::Write).is_ok();
        }
    }
}

#[cfg(test)]
mod tests;
