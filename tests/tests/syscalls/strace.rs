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

/// An attached strace; dropped, it lets go.
pub struct Strace {
    child: Child,
    out: PathBuf,
    pid: u32,
}

impl Strace {
    /// Notes all calls.
    pub fn counting(pid: u32, scratch: &Path) -> Self {
        Self::attach(pid, &Threads::All, &["-e", &traced()], scratch)
    }

    /// Kills the process when one of these threads is about to make its `n`th call of this kind.
    pub fn killing(pid: u32, threads: &Threads, call: &str, n: u64, scratch: &Path) -> Self {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={n}"));
        Self::attach(pid, threads, &["-e", &trace, "-e", &inject], scratch)
    }

    fn attach(pid: u32, threads: &Threads, args: &[&str], scratch: &Path) -> Self {
        let (out, words) = (scratch.join("strace.out"), scratch.join("strace.err"));
        let mut command = Command::new("strace");
        command.args(args).arg("-o").arg(&out);
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
        let attached = Self { child, out, pid };
        eventually("strace is attached", || {
            let text = std::fs::read_to_string(&words).unwrap();
            assert!(!text.contains("denied") && !text.contains("not permitted"), "{text}");
            text.contains("attached").then_some(())
        });
        attached
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

/// The threads of a process by id, with their names.
fn names(pid: u32) -> BTreeMap<u32, String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let ids = tasks.filter_map(|t| t.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = |tid: u32| Some((tid, std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok()?.trim().to_string()));
    ids.filter_map(name).collect()
}
