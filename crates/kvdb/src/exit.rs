//! From errors to words and exit codes.

use kvdb_client::Error;
use kvdb_master::catalog::CatalogError;
use kvdb_volume::store::OpenError;
use std::io;
use std::process::ExitCode;

const ERROR: u8 = 1;
const NOT_FOUND: u8 = 4;
const TRY_AGAIN: u8 = 5;
const IN_USE: u8 = 6;
const INTERRUPTED: u8 = 130;

/// The user's Ctrl-C.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// A failure that was told already; only its exit code is left.
#[derive(Debug)]
pub struct Told(pub u8);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Told {}

/// Tells of a failure and gives the exit code.
pub fn report(program: &str, result: anyhow::Result<()>, quiet: bool) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if is_broken_pipe(&error) {
        // Whoever read our output has had enough: that is no error, and nobody is left to hear of it.
        return ExitCode::SUCCESS;
    }
    if error.downcast_ref::<Told>().is_none() {
        eprintln!("{program}: {error:#}");
    }
    let code = code(&error);
    if code == TRY_AGAIN && !quiet {
        eprintln!("{program}: this can pass by itself; try again");
    }
    ExitCode::from(code)
}

/// The exit code of a failure.
pub fn code(error: &anyhow::Error) -> u8 {
    if let Some(told) = error.downcast_ref::<Told>() {
        return told.0;
    }
    if error.downcast_ref::<Interrupted>().is_some() {
        return INTERRUPTED;
    }
    if error.chain().any(is_in_use) {
        return IN_USE;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::NotFound(_)) => NOT_FOUND,
        Some(e) if e.is_retryable() => TRY_AGAIN,
        _ => ERROR,
    }
}

/// Whether another process has the directory.
fn is_in_use(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(CatalogError::Locked(_))) || matches!(error.downcast_ref(), Some(OpenError::Locked(_)))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvdb_client::{ErrorCode, Key, Problem};

    #[test]
    fn exit_codes_tell_absent_from_worth_a_retry() {
        let problem = |c| Error::Problem { problem: Box::new(Problem::new(c, "")), retry_after: None };
        let key = || Key::new("k").unwrap();
        assert_eq!(code(&Error::NotFound(key()).into()), 4);
        assert_eq!(code(&problem(ErrorCode::Unavailable).into()), 5);
        assert_eq!(code(&problem(ErrorCode::NoSpace).into()), 5);
        assert_eq!(code(&problem(ErrorCode::BadKey).into()), 1);
        assert_eq!(code(&Error::Exists(key()).into()), 1);
        assert_eq!(code(&Interrupted.into()), 130);
        assert_eq!(code(&Told(4).into()), 4);
        assert_eq!(code(&anyhow::Error::from(CatalogError::Locked("d".into())).context("the master failed")), 6);
        assert_eq!(code(&anyhow::Error::from(OpenError::Locked("d".into())).context("volume 1 failed")), 6);
        assert_eq!(code(&anyhow::anyhow!("x")), 1);
    }
}
