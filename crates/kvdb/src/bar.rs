//! A progress bar on standard error, only on a terminal.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvdb_client::Progress;
use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

const REFRESH: Duration = Duration::from_millis(100);
const KNOWN: &str = "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
const KEYS: &str = "{prefix} {spinner} {human_pos} keys, {msg}, {per_sec}";
const UNKNOWN: &str = "{msg} {spinner} {bytes} {binary_bytes_per_sec}";

/// A count of keys and bytes, on a terminal only; it vanishes when dropped.
pub struct Keys(Option<ProgressBar>);

/// Begins to count, at 0.
pub fn keys(quiet: bool, name: &'static str) -> Keys {
    let bar = is_shown(quiet).then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(KEYS) {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        bar.enable_steady_tick(REFRESH);
        bar
    });
    Keys(bar)
}

impl Keys {
    /// Shows how far it is.
    pub fn show(&self, keys: u64, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(keys);
            bar.set_message(HumanBytes(bytes).to_string());
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Whether a bar is shown: somebody sees it, and wants to.
pub fn is_shown(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
}

/// Does `work` while showing how far it is; `len` is the number of bytes, when it is known.
pub async fn while_showing<T>(quiet: bool, name: String, len: Option<u64>, progress: &Progress, work: impl Future<Output = T>) -> T {
    if !is_shown(quiet) {
        return work.await;
    }
    let bar = ProgressBar::with_draw_target(len, ProgressDrawTarget::stderr());
    // The templates are constants; if one were wrong the default style would be shown.
    if let Ok(style) = ProgressStyle::with_template(if len.is_some() { KNOWN } else { UNKNOWN }) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(name);
    let mut tick = tokio::time::interval(REFRESH);
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = tick.tick() => bar.set_position(progress.bytes()),
        }
    };
    bar.finish_and_clear();
    result
}
