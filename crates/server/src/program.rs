//! How a program ends.

use std::process::ExitCode;

/// Says what went wrong in one line, causes included, and gives the exit code: 0, or 1.
pub fn finish(name: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
