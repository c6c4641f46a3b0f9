//! `kvdb fsck`: the catalog against what the volumes hold, both ways.

mod judge;
mod mend;
mod report;
mod sides;

use crate::args::{Common, Fsck};
use crate::exit::Told;
use crate::operator::Operator;
use crate::output;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use judge::{Expected, Judged, Sides, judge};
use kvdb_protocol::operator::{Order, path};
use kvdb_protocol::{Key, VolumeId};
use mend::Mender;
use report::Report;
use serde::Deserialize;
use serde_json::Value;
use sides::{Index, Records, Volume, look};

const DIFFERENCES: u8 = 1;
const INCOMPLETE: u8 = 3;
/// Keys that are looked at again together.
const AGAIN: usize = 64;
/// Of these at a time.
const AT_A_TIME: usize = 8;

/// What is needed of `/-/status`.
#[derive(Deserialize)]
struct Status {
    replicas: usize,
    volumes: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: Option<VolumeId>,
    address: String,
    up: bool,
}

pub async fn run(common: &Common, args: Fsck) -> anyhow::Result<()> {
    let code = match check(common, &args).await {
        Ok(code) => code,
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => return Err(e),
        Err(e) => {
            eprintln!("kvdb: the check could not be completed: {e:#}");
            INCOMPLETE
        }
    };
    if code == 0 { Ok(()) } else { Err(Told(code).into()) }
}

async fn check(common: &Common, args: &Fsck) -> anyhow::Result<u8> {
    let operator = Operator::connect(common, &args.secret).await?;
    let status: Status = operator.status().await?;
    let (up, down): (Vec<Listed>, Vec<Listed>) = status.volumes.into_iter().partition(|l| l.up && l.id.is_some());
    let volumes: Vec<Volume> = up.into_iter().filter_map(|l| Some(Volume { id: l.id?, address: l.address })).collect();
    let expected = Expected { replicas: status.replicas, asked: volumes.iter().map(|v| v.id).collect(), all: down.is_empty() };
    let unreachable = down.into_iter().map(|l| l.address).collect();
    let mut fsck = Run {
        operator: &operator,
        volumes: &volumes,
        expected,
        report: Report::new(common, unreachable),
        mender: args.repair.then(|| Mender::new(args.remove_unknown)),
    };
    fsck.merge().await?;
    if args.verify {
        operator.ask::<Value>(path::ORDER, &Order::Scrub { volume: None }).await?;
        fsck.report.verify = true;
    }
    let summary = fsck.report;
    summary.end()?;
    output::flush()?;
    Ok(match (summary.is_complete(), summary.is_clean()) {
        (false, _) => INCOMPLETE,
        (true, false) => DIFFERENCES,
        (true, true) => 0,
    })
}

struct Run<'a> {
    operator: &'a Operator,
    volumes: &'a [Volume],
    expected: Expected,
    report: Report,
    mender: Option<Mender>,
}

impl Run<'_> {
    /// Goes over the catalog and all indexes side by side. What seems wrong is looked at again.
    async fn merge(&mut self) -> anyhow::Result<()> {
        let mut records = Records::default();
        let mut indexes: Vec<Index<'_>> = self.volumes.iter().map(Index::new).collect();
        let mut suspect = Vec::new();
        while let Some(key) = next_key(self.operator, &mut records, &mut indexes).await? {
            let sides = gather(self.operator, &key, &mut records, &mut indexes).await?;
            self.report.count(&sides);
            // What is on a reclaim list is only known to the second look.
            let judged = judge(&key, &sides, &self.expected, &|_, _| false);
            if judged.findings.is_empty() {
                self.report.take(&judged, &[])?;
            } else {
                suspect.push(key);
            }
            if suspect.len() >= AGAIN {
                self.again(std::mem::take(&mut suspect)).await?;
            }
        }
        self.again(suspect).await?;
        let mended = match &mut self.mender {
            Some(mender) => mender.flush(self.operator).await?,
            None => 0,
        };
        self.report.mended += mended;
        Ok(())
    }

    async fn again(&mut self, keys: Vec<Key>) -> anyhow::Result<()> {
        let (operator, volumes, expected) = (self.operator, self.volumes, &self.expected);
        let looks = stream::iter(keys).map(|key| async move {
            let Some((sides, reclaimed)) = look(operator, volumes, &key).await? else { return anyhow::Ok(None) };
            Ok(Some(judge_again(&key, &sides, expected, &reclaimed)))
        });
        let all: Vec<Option<Judged>> = looks.buffered(AT_A_TIME).try_collect().await?;
        for judged in all {
            let Some(judged) = judged else {
                self.report.changing += 1;
                continue;
            };
            let mut asked = Vec::new();
            if let Some(mender) = &mut self.mender {
                asked.extend(judged.findings.iter().map(|f| mender.take(f)));
                self.report.mended += mender.flush_full(self.operator).await?;
            }
            self.report.take(&judged, &asked)?;
        }
        Ok(())
    }
}

fn judge_again(key: &Key, sides: &Sides, expected: &Expected, reclaimed: &[(VolumeId, kvdb_protocol::VersionId)]) -> Judged {
    judge(key, sides, expected, &|volume, version| reclaimed.contains(&(volume, version)))
}

/// The least key that is next on any side.
async fn next_key(operator: &Operator, records: &mut Records, indexes: &mut [Index<'_>]) -> anyhow::Result<Option<Key>> {
    let mut least: Option<Key> = records.key(operator).await?.cloned();
    for index in indexes {
        if let Some(key) = index.key(operator).await?
            && least.as_ref().is_none_or(|l| key < l)
        {
            least = Some(key.clone());
        }
    }
    Ok(least)
}

/// Takes all that there is of a key.
async fn gather(operator: &Operator, key: &Key, records: &mut Records, indexes: &mut [Index<'_>]) -> anyhow::Result<Sides> {
    let mut sides = Sides { record: records.take(key).map(|r| r.record), ..Sides::default() };
    for index in indexes {
        while let Some(entry) = index.take(key) {
            sides.add(index.volume.id, entry);
            // A key's entries may go on on the next page.
            index.key(operator).await?;
        }
    }
    Ok(sides)
}
