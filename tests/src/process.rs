//! One server process: started, asked for its address, stopped, killed, started again on the same port.

use crate::eventually;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Lines of a log that are shown when a test fails.
const TAIL_LINES: usize = 40;

/// The path of one of the workspace's programs, built beside the running test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.parent().and_then(Path::parent).expect("tests are in target/<profile>/deps");
    let path = profile.join(name);
    assert!(path.is_file(), "{} is missing: run scripts/test or `cargo build --workspace --bins` first", path.display());
    path
}

/// A server that can be started and ended again and again.
#[derive(Debug)]
pub struct Server {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    ip: String,
    port: u16,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// A server that is not started yet. `args` do without `--bind` and `--port`; the log is a file in `log_dir`.
    pub fn new(name: &str, program: PathBuf, ip: &str, args: Vec<String>, env: Vec<(String, String)>, log_dir: &Path) -> Self {
        let log = log_dir.join(format!("{name}.log"));
        Self { name: name.into(), program, args, env, ip: ip.into(), port: 0, log, child: None }
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars().filter(|(n, _)| (n.starts_with("KVDB_") && n != "KVDB_BUG") || n == "PORT" || n == "RUST_LOG") {
            command.env_remove(name);
        }
        command.args(&self.args).args(["--bind", &self.ip, "--port", &self.port.to_string()]);
        command.envs(self.env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it, the first time on any free port, later on the same, and waits until it listens.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let before = self.log_text().len();
        let child = self.command().stderr(log).spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", self.program.display()));
        self.child = Some(child);
        let address = eventually(&format!("{} has started", self.name), || {
            if let Some(status) = self.exit_status() {
                panic!("{} ended with {status} instead of starting:\n{}", self.name, self.log_tail());
            }
            started_at(self.log_text().get(before..)?)
        });
        let (ip, port) = address.rsplit_once(':').expect("an address has a port");
        assert_eq!(ip, self.ip, "it listens where it was told to");
        self.port = port.parse().unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let status = eventually(&format!("{} has stopped", self.name), || self.exit_status());
        self.child = None;
        status
    }

    /// Sends a signal, as to halt it (`STOP`) and let it go on (`CONT`).
    #[track_caller]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// How it ended, if it did by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Its process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()
    }

    /// Whether it was started and not ended by us.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Where it listens: `ip:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Takes another port at the next start.
    pub fn forget_port(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        self.port = 0;
    }

    /// Replaces the arguments for the next start.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.args = args;
    }

    /// Replaces the environment variables of its own for the next start.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.env = env;
    }

    /// The log of all its lives.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- {} ---\n{}", self.name, lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not `kill`: a panic here while a test fails would abort the others.
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The address in the line that a server logs when it has started.
fn started_at(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let mut started = lines.filter(|l| matches!(l["message"].as_str(), Some("master started" | "volume started")));
    started.next()?["address"].as_str().map(str::to_string)
}

/// Resident memory of a process now, in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most resident memory that a process has had, in KiB.
pub fn peak_kib(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(field)).expect("a process has a size");
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Runs a command to its end, for at most [`crate::PATIENCE`], and gives its status and what it wrote to standard error.
#[track_caller]
pub fn run_to_end(mut command: Command, scratch: &Path) -> (ExitStatus, String) {
    let path = scratch.join("stderr.txt");
    let mut child = command.stderr(File::create(&path).unwrap()).spawn().unwrap();
    let mut ended = None;
    let deadline = std::time::Instant::now() + crate::PATIENCE;
    while ended.is_none() && std::time::Instant::now() < deadline {
        ended = child.try_wait().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    let Some(status) = ended else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("it goes on instead of ending:\n{text}");
    };
    (status, text)
}
