//! `kvdb rm --prefix P` and `kvdb rm --all`.

use crate::args::{Common, Rm};
use crate::{bar, output};
use anyhow::Context;
use indicatif::HumanBytes;
use kvdb_client::{Client, Which};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal};
use std::os::unix::ffi::OsStrExt;

/// Asks whether it is meant, where that was not said already. To be called before signals are handled: Ctrl-C ends the question.
pub fn confirm(args: &Rm) -> anyhow::Result<()> {
    let Some(which) = which(args) else { return Ok(()) };
    if which == Which::Prefix(Vec::new()) {
        anyhow::bail!("the prefix is empty; say --all if all keys are meant");
    }
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        anyhow::bail!("this would delete {}; say --yes if it is meant", named(&which));
    }
    eprint!("Delete {}? There is no way back. Type yes: ", named(&which));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    if answer.trim() == "yes" { Ok(()) } else { anyhow::bail!("nothing was deleted") }
}

/// The keys that are meant, if they are not named one by one.
pub fn which(args: &Rm) -> Option<Which> {
    let prefix = args.prefix.as_ref().map(|p| Which::Prefix(p.as_bytes().to_vec()));
    prefix.or_else(|| args.all.then_some(Which::All))
}

fn named(which: &Which) -> String {
    match which {
        Which::Prefix(prefix) => format!("all keys that begin with {}", output::bytes(prefix)),
        Which::All => "all keys of the cluster".into(),
    }
}

pub async fn run(common: &Common, client: &Client, which: &Which) -> anyhow::Result<()> {
    let (mut deleted, mut bytes) = (0, 0);
    let bar = bar::keys(common.quiet, "deleting");
    let result = client
        .delete_all(which, |page| {
            deleted += page.deleted;
            bytes += page.bytes;
            bar.show(deleted, bytes);
        })
        .await;
    drop(bar);
    if common.json {
        output::line(&json!({"deleted": deleted, "bytes": bytes, "complete": result.is_ok()}).to_string())?;
    } else if !common.quiet {
        eprintln!("deleted {deleted} keys ({})", HumanBytes(bytes));
    }
    result.context("not all was deleted; run the same command again, and it goes on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_confirmed_is_said_in_full() {
        assert_eq!(named(&Which::Prefix(b"a/\xff".to_vec())), "all keys that begin with a/%FF");
        assert!(named(&Which::All).contains("cluster"));
    }
}
