//! Signals that end a program.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit codes after a second signal, as shells count them: 128 and the signal.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once, with code 143 or 130.
///
/// To be called inside a runtime, before the servers start. If handlers cannot be installed, which is logged, the signals
/// keep their default: they end the process, which is safe, only not graceful.
pub fn on_terminate() -> CancellationToken {
    let token = CancellationToken::new();
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => {
            tokio::spawn(watch(terminate, interrupt, token.clone()));
        }
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "cannot handle signals; they will end the process at once"),
    }
    token
}

async fn watch(mut terminate: Signal, mut interrupt: Signal, token: CancellationToken) {
    let first = either(&mut terminate, &mut interrupt).await;
    tracing::info!(signal = if first == TERMINATED { "SIGTERM" } else { "SIGINT" }, "stopping; a second signal stops at once");
    crate::notify::stopping();
    token.cancel();
    let second = either(&mut terminate, &mut interrupt).await;
    std::process::exit(second);
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => TERMINATED,
        _ = interrupt.recv() => INTERRUPTED,
    }
}
