//! What `kvdb fsck` prints. The JSON form is documented in docs/operations.md.

use super::judge::{Finding, Judged, Kind, Sides};
use crate::args::Common;
use crate::output;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;

pub(super) struct Report {
    json: bool,
    quiet: bool,
    keys: u64,
    copies: u64,
    found: BTreeMap<&'static str, u64>,
    to_be_reclaimed: u64,
    in_doubt: u64,
    /// Addresses of volumes that were not asked.
    unreachable: Vec<String>,
    /// Keys that never stood still.
    pub(super) changing: u64,
    /// Copies that the master sees to.
    pub(super) mended: u64,
    /// Whether volumes were told to check what they hold.
    pub(super) verify: bool,
}

impl Report {
    pub(super) fn new(common: &Common, unreachable: Vec<String>) -> Self {
        Self {
            json: common.json,
            quiet: common.quiet,
            keys: 0,
            copies: 0,
            found: Kind::NAMES.into_iter().map(|name| (name, 0)).collect(),
            to_be_reclaimed: 0,
            in_doubt: 0,
            unreachable,
            changing: 0,
            mended: 0,
            verify: false,
        }
    }

    pub(super) fn count(&mut self, sides: &Sides) {
        self.keys += u64::from(sides.record.is_some());
        self.copies += u64::try_from(sides.held.len()).unwrap_or(u64::MAX);
    }

    /// Takes what is known of a key, with which findings the master is asked to see to.
    pub(super) fn take(&mut self, judged: &Judged, asked: &[bool]) -> io::Result<()> {
        self.to_be_reclaimed += judged.to_be_reclaimed;
        self.in_doubt += judged.in_doubt;
        for (i, finding) in judged.findings.iter().enumerate() {
            *self.found.entry(finding.kind.name()).or_default() += 1;
            let asked = asked.get(i).copied().unwrap_or(false);
            if self.json {
                output::line(&as_json(finding, asked).to_string())?;
            } else if !self.quiet {
                output::line(&as_text(finding, asked))?;
            }
        }
        Ok(())
    }

    pub(super) fn is_clean(&self) -> bool {
        self.found.values().all(|n| *n == 0)
    }

    /// All volumes were asked, and all keys stood still.
    pub(super) fn is_complete(&self) -> bool {
        self.unreachable.is_empty() && self.changing == 0
    }

    pub(super) fn end(&self) -> io::Result<()> {
        if self.json {
            let mut all: Map<String, Value> = self.found.iter().map(|(name, n)| ((*name).to_string(), json!(n))).collect();
            for (name, value) in [
                ("keys", json!(self.keys)),
                ("copies", json!(self.copies)),
                ("to_be_reclaimed", json!(self.to_be_reclaimed)),
                ("in_doubt", json!(self.in_doubt)),
                ("changing", json!(self.changing)),
                ("unreachable", json!(self.unreachable)),
                ("repair_asked", json!(self.mended)),
                ("scrub_begun", json!(self.verify)),
                ("clean", json!(self.is_clean())),
                ("complete", json!(self.is_complete())),
            ] {
                all.insert(name.into(), value);
            }
            return output::line(&json!({ "summary": all }).to_string());
        }
        if self.quiet {
            return Ok(());
        }
        output::line(&format!("{} keys, {} copies compared", self.keys, self.copies))?;
        let found: Vec<String> = self.found.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        output::line(&if found.is_empty() { "no differences".to_string() } else { found.join(", ") })?;
        for (n, what) in [
            (self.to_be_reclaimed, "copies are to be removed by their volumes"),
            (self.in_doubt, "versions are prepared; they settle by themselves"),
            (self.changing, "keys changed all the time and were not compared"),
            (self.mended, "copies: the master sees to them; check again in a while"),
        ] {
            if n > 0 {
                output::line(&format!("{n} {what}"))?;
            }
        }
        if !self.unreachable.is_empty() {
            output::line(&format!("INCOMPLETE: not asked were the volumes at {}", self.unreachable.join(", ")))?;
        }
        if self.verify {
            output::line("the volumes read and check all that they hold; `kvdb cluster` shows how far that is and what is bad")?;
        }
        Ok(())
    }
}

fn as_json(f: &Finding, asked: bool) -> Value {
    json!({
        "finding": f.kind.name(), "why": f.kind.why(), "key": f.key, "version": f.version, "volume": f.volume,
        "detail": f.detail, "repair_asked": asked,
    })
}

fn as_text(f: &Finding, asked: bool) -> String {
    let volume = f.volume.map(|v| format!(" at volume {v}")).unwrap_or_default();
    let repair = if asked { "; repair was asked for" } else { "" };
    format!("{}: {} version {}{volume}: {}{repair}", f.kind.name(), f.key.display(), f.version, f.detail)
}
