//! `kvdb rm`.

mod all;

pub use all::confirm;

use crate::args::{Common, Rm};
use crate::exit::{self, Told};
use crate::output;
use serde_json::json;

/// Deletes all keys that it can; the exit code is that of the first failure.
pub async fn run(common: &Common, args: Rm) -> anyhow::Result<()> {
    let client = common.client()?;
    if let Some(which) = all::which(&args) {
        return all::run(common, &client, &which).await;
    }
    let mut first_failure = None;
    for key in &args.keys {
        match client.delete(key).await {
            Ok(outcome) if common.json => {
                output::line(&json!({"key": key.display(), "removed": outcome.removed.map(|v| v.to_string())}).to_string())?;
            }
            Ok(_) => {}
            Err(e) => {
                let e = anyhow::Error::from(e);
                eprintln!("kvdb: {e:#}");
                first_failure.get_or_insert(exit::code(&e));
            }
        }
    }
    first_failure.map_or(Ok(()), |code| Err(Told(code).into()))
}
