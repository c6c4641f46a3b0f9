//! strace, attached to a running process.

use crate::case::Threads;
use kvdb_tests::eventually;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Calls that leave something behind, or tell somebody something.
const CALLS: [&str; 24] = [
    "openat",
    "mkdir",
    "mkdirat",
    "pwrite64",
    "pwritev2",
    "write",
    "writev",
    "fallocate",
    "ftruncate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "sendto",
    "sendmsg",
    "recvfrom",
    "accept4",
    "connect",
    "pread64",
];
/// Threads that have a name of ours: they do what others wait for, so that their first call of a kind is not the process's.
const NAMED: [&str; 2] = ["kvdb-index", "catalog"];

/// Whether it is there and may trace.
pub fn usable() -> Result<(), String> {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).output().map_err(|e| e.to_string())?;
    if tried.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tried.stderr).into_owned()) }
}

fn traced() -> String {
    // A question mark: not every machine has every call.
    format!("trace={}", CALLS.map(|c| format!("?{c}")).join(","))
}

/// What is noted, and what is done.
pub enum Tracing<'a> {
    /// Every call's kind.
    Count,
    /// Every call with its paths and most of its bytes.
    Order,
    /// Nothing but one kind of call: the process dies when one of these threads is about to make its `n`th.
    Kill { threads: &'a Threads, call: &'a str, n: u64 },
}

/// An attached strace; dropped, it lets go.
pub struct Strace {
    child: Child,
    out: PathBuf,
    pid: u32,
    ended_by_us: bool,
}

impl Strace {
    /// Attaches to a process; `scratch` is a directory for its files.
    pub fn attach_with(pid: u32, tracing: Tracing<'_>, scratch: &Path) -> Self {
        let mut threads = &Threads::All;
        if let Tracing::Kill { threads: of, .. } = &tracing {
            threads = of;
        }
        let (mut command, out) = strace(&tracing, &pid.to_string(), scratch);
        let words = scratch.join(format!("{pid}.err"));
        match threads {
            Threads::All => {
                command.args(["-f", "-p", &pid.to_string()]);
            }
            Threads::Named(name) => {
                for (tid, _) in names(pid).into_iter().filter(|(_, n)| n == name) {
                    command.args(["-p", &tid.to_string()]);
                }
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&words).unwrap());
        let child = command.spawn().unwrap();
        let attached = Self { child, out, pid, ended_by_us: false };
        eventually("strace is attached", || {
            let text = std::fs::read_to_string(&words).unwrap();
            assert!(!text.contains("denied") && !text.contains("not permitted"), "{text}");
            text.contains("attached").then_some(())
        });
        attached
    }

    /// Runs a server's command from its beginning, until it dies or has started; then it is killed.
    pub fn run_until_started(server: &Command, tracing: Tracing<'_>, scratch: &Path) -> Self {
        let (mut command, out) = strace(&tracing, "start", scratch);
        let words = scratch.join("start.err");
        command.arg("-f").arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&words).unwrap());
        let mut child = command.spawn().unwrap();
        let started = eventually("the traced server has started or ended", || {
            let ended = child.try_wait().unwrap().is_some();
            let text = String::from_utf8_lossy(&std::fs::read(&words).unwrap()).into_owned();
            // The line comes before the first request, and after all that a start makes good.
            if text.contains("volume started") || text.contains("master started") { Some(true) } else { ended.then_some(false) }
        });
        let pid = child.id();
        if started {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let server = children.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
            // It may have died in this moment.
            server.map(|s| rustix::process::kill_process(s, rustix::process::Signal::KILL).ok());
        }
        child.wait().unwrap();
        Self { child, out, pid, ended_by_us: started }
    }

    /// Whether a server that was run started.
    pub fn reached_its_end(&self) -> bool {
        self.ended_by_us
    }

    /// Lets go, and gives the calls in order: whole ones when they ended, words to others when they began.
    pub fn events(self) -> Vec<String> {
        let out = self.out.clone();
        drop(self);
        let (mut events, mut begun) = (Vec::new(), BTreeMap::<String, String>::new());
        for line in String::from_utf8_lossy(&std::fs::read(out).unwrap()).lines() {
            let Some((tid, call)) = line.split_once(char::is_whitespace) else { continue };
            let call = call.trim_start();
            let is_said = ["writev(", "sendto(", "sendmsg("].iter().any(|c| call.starts_with(c));
            match (call.strip_suffix("<unfinished ...>"), call.split_once(" resumed>")) {
                (Some(start), _) if is_said => events.push(start.to_string()),
                (Some(start), _) => drop(begun.insert(tid.to_string(), start.to_string())),
                (None, Some((_, end))) => events.extend(begun.remove(tid).map(|start| start + end)),
                (None, None) => events.push(call.to_string()),
            }
        }
        events
    }

    /// Lets go, and says how often each kind of call was made by the busiest thread, for all and for the named threads.
    pub fn counts(self) -> BTreeMap<(Threads, String), u64> {
        let (out, names) = (self.out.clone(), names(self.pid));
        drop(self);
        let mut of_thread = BTreeMap::<(u32, String), u64>::new();
        for line in String::from_utf8_lossy(&std::fs::read(out).unwrap()).lines() {
            // "123   fsync(5) = 0", but also "123   <... fsync resumed>) = 0".
            let Some((tid, rest)) = line.split_once(char::is_whitespace) else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            let Ok(tid) = tid.parse() else { continue };
            if CALLS.contains(&call) {
                *of_thread.entry((tid, call.into())).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((tid, call), n) in of_thread {
            let name = names.get(&tid).filter(|n| NAMED.contains(&n.as_str()));
            let threads = name.map_or(Threads::All, |n| Threads::Named(n.clone()));
            let slot: &mut u64 = most.entry((threads, call)).or_default();
            *slot = n.max(*slot);
        }
        most
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGTERM: it detaches and ends. It may have ended already, with its process.
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        self.child.wait().ok();
    }
}

/// A strace with its output in a file.
fn strace(tracing: &Tracing<'_>, name: &str, scratch: &Path) -> (Command, PathBuf) {
    let out = scratch.join(format!("{name}.out"));
    let mut command = Command::new("strace");
    command.arg("-o").arg(&out);
    match tracing {
        Tracing::Count => command.args(["-e", &traced()]),
        Tracing::Order => command.args(["-y", "-s", "4096", "-e", &traced()]),
        Tracing::Kill { call, n, .. } => {
            command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:signal=KILL:when={n}")])
        }
    };
    (command, out)
}

/// The threads of a process by id, with their names.
fn names(pid: u32) -> BTreeMap<u32, String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let ids = tasks.filter_map(|t| t.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = |tid: u32| Some((tid, std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok()?.trim().to_string()));
    ids.filter_map(name).collect()
}
