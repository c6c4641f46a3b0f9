//! `flatdb`: a whole store in one process and on one directory, for FlatDB's clients.

fn main() -> std::process::ExitCode {
    kvdb::flatdb()
}
