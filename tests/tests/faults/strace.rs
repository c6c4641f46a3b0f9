//! Faults of system calls, injected into a running server by strace.

use kvdb_tests::eventually;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What became of a fault.
#[derive(Debug)]
pub struct Failed {
    /// Calls that failed.
    pub count: usize,
    /// The file of each of them that was made on an open one.
    pub files: Vec<String>,
}

/// As long as it lives, chosen calls of a server fail. Needs the right to trace.
#[derive(Debug)]
pub struct Fault {
    strace: Child,
    log: PathBuf,
}

impl Fault {
    /// Has all `calls` (comma-separated) of process `pid` fail with `error`; only those on one of `paths`, where there are any.
    #[track_caller]
    pub fn inject(pid: u32, calls: &str, error: &str, paths: &[PathBuf], scratch: &Path) -> Self {
        let log = scratch.join("strace.txt");
        fs::remove_file(&log).ok();
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-y",
            "-e",
            "signal=none",
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={calls}:error={error}"),
        ]);
        command.args(paths.iter().flat_map(|p| [OsStr::new("-P"), p.as_os_str()]));
        command.arg("-o").arg(&log).args(["-p", &pid.to_string()]);
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let fault = Self { strace, log };
        eventually("strace holds every thread", || tracers(pid).iter().all(|t| *t == fault.strace.id()).then_some(()));
        fault
    }

    /// Calls that failed so far.
    pub fn count(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches("(INJECTED)").count()
    }

    /// Ends it; the server goes on.
    pub fn end(mut self) -> Failed {
        self.detach();
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        // As in `1234 fdatasync(7</dir/file>) = -1 EIO`.
        let file = |line: &str| Some(line.split_once('(')?.1.split_once('<')?.1.split_once('>')?.0.to_string());
        Failed { count: self.count(), files: log.lines().filter_map(file).collect() }
    }

    /// Never by SIGKILL: threads could be left stopped.
    fn detach(&mut self) {
        if let Some(pid) = i32::try_from(self.strace.id()).ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        self.strace.wait().ok();
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Who traces each thread; 0: nobody.
fn tracers(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
    let status = tasks.filter_map(|t| fs::read_to_string(t.path().join("status")).ok());
    status.filter_map(|s| s.lines().find_map(|l| l.strip_prefix("TracerPid:")?.trim().parse().ok())).collect()
}
