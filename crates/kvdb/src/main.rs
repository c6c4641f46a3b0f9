//! `kvdb`: a whole small cluster in one process, and the client on the command line.

fn main() -> std::process::ExitCode {
    kvdb::kvdb()
}
