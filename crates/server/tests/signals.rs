//! Signals, on processes of their own: this binary runs itself.

use kvdb_server::signals;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// Names what the child is to do; without it the child does nothing.
const ROLE: &str = "KVDB_TEST_ROLE";

/// Not a test: what the tests start. It says when it listens for signals, and when the first has come.
#[test]
#[ignore = "started by the other tests"]
#[allow(clippy::print_stdout)]
fn child() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let token = signals::on_terminate();
        println!("\nlistening");
        token.cancelled().await;
        println!("\ncancelled");
        // Ends by itself should the parent fail.
        let wait = if role == "linger" { 60 } else { 0 };
        tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    });
}

struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(role: &str) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "child", "--ignored", "--nocapture"]).env(ROLE, role).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let mut running = Self { child, output: BufReader::new(output) };
        running.wait_for("listening")?;
        Ok(running)
    }

    fn wait_for(&mut self, word: &str) -> std::io::Result<()> {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        assert!(rustix::process::kill_process(pid, signal).is_ok());
    }

    fn code(mut self) -> std::io::Result<Option<i32>> {
        self.output.read_to_end(&mut Vec::new())?;
        Ok(self.child.wait()?.code())
    }
}

#[test]
fn the_first_signal_cancels_the_token_and_the_program_ends_as_it_likes() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut running = Running::start("end").unwrap();
        running.signal(signal);
        running.wait_for("cancelled").unwrap();
        assert_eq!(running.code().unwrap(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_the_program_at_once_with_the_code_of_the_signal() {
    for (signal, code) in [(rustix::process::Signal::TERM, 143), (rustix::process::Signal::INT, 130)] {
        let mut running = Running::start("linger").unwrap();
        running.signal(rustix::process::Signal::TERM);
        running.wait_for("cancelled").unwrap();
        running.signal(signal);
        assert_eq!(running.code().unwrap(), Some(code));
    }
}
