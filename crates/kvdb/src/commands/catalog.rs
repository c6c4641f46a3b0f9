//! `kvdb catalog`: the catalog to a file, and from one.

use crate::args::{Catalog, CatalogOrder, Common, Export, Import};
use crate::operator::{self, Operator};
use crate::output;
use anyhow::Context as _;
use futures_util::StreamExt as _;
use kvdb_master::catalog::exported::{Checker, Line, MAX_LINE_BYTES};
use kvdb_master::catalog::{Catalog as MasterCatalog, CatalogOptions, Imported};
use kvdb_protocol::operator::path;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

pub async fn run(common: &Common, args: Catalog) -> anyhow::Result<()> {
    match args.order {
        CatalogOrder::Export(a) => export(common, a).await,
        CatalogOrder::Import(a) => import(common, a).await,
    }
}

async fn export(common: &Common, args: Export) -> anyhow::Result<()> {
    let operator = Operator::connect(common, &args.secret).await?;
    let mut parts = Box::pin(operator.stream(path::EXPORT, &()).await?);
    let to_stdout = args.file.as_os_str() == "-";
    let mut target = if to_stdout { Target::stdout() } else { Target::file(&args.file)? };
    let mut lines = Lines::default();
    while let Some(part) = parts.next().await {
        let part = part?;
        lines.check(&part)?;
        target.out.write_all(&part).context("the export cannot be written")?;
    }
    lines.checker.finish()?;
    target.finish()?;
    if to_stdout || common.quiet {
        return Ok(());
    }
    let text = match common.json {
        true => json!({ "file": args.file.display().to_string(), "records": lines.records }).to_string(),
        false => format!("{} records are in {}", lines.records, args.file.display()),
    };
    Ok(output::line(&text)?)
}

/// Checks lines that come in portions.
#[derive(Default)]
struct Lines {
    checker: Checker,
    begun: Vec<u8>,
    records: u64,
}

impl Lines {
    fn check(&mut self, part: &[u8]) -> anyhow::Result<()> {
        for piece in part.split_inclusive(|b| *b == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun.len() > MAX_LINE_BYTES {
                self.records += u64::from(matches!(self.checker.line(&self.begun)?, Line::Record(_)));
                self.begun.clear();
            }
        }
        Ok(())
    }
}

/// Where an export goes. A file takes its name when it is whole and durable; one that was given up is removed.
struct Target {
    out: Box<dyn Write + Send>,
    file: Option<(File, PathBuf, PathBuf)>,
}

impl Target {
    fn stdout() -> Self {
        Self { out: Box::new(io::stdout()), file: None }
    }

    fn file(path: &Path) -> anyhow::Result<Self> {
        let mut name = path.file_name().with_context(|| format!("{} does not name a file", path.display()))?.to_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::options().create_new(true).write(true).open(&temporary);
        let file = file.with_context(|| format!("cannot make {}", temporary.display()))?;
        Ok(Self { out: Box::new(BufWriter::new(file.try_clone()?)), file: Some((file, temporary, path.into())) })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush().context("the export cannot be written")?;
        let Some((file, temporary, path)) = &self.file else { return Ok(()) };
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = file.sync_all().and_then(|()| std::fs::rename(temporary, path)).and_then(|()| File::open(parent)?.sync_all());
        named.with_context(|| format!("cannot write {}", path.display()))?;
        self.file = None;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((_, temporary, _)) = &self.file {
            // It is told elsewhere why it was given up; what is left is plainly temporary.
            let _left_over = std::fs::remove_file(temporary);
        }
    }
}

async fn import(common: &Common, args: Import) -> anyhow::Result<()> {
    let secret = operator::secret(&args.secret)?;
    let options = CatalogOptions::new(&args.db);
    let file = args.file.clone();
    let imported = tokio::task::spawn_blocking(move || -> anyhow::Result<Imported> {
        let from: Box<dyn BufRead> = if file.as_os_str() == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::new(File::open(&file).with_context(|| format!("cannot open {}", file.display()))?))
        };
        Ok(MasterCatalog::import(&options, &secret, from)?)
    });
    report(common, &args, &imported.await.context("the import failed")??)
}

fn report(common: &Common, args: &Import, i: &Imported) -> anyhow::Result<()> {
    if common.json {
        let o = json!({
            "cluster": i.header.cluster, "time": i.header.time, "keys": i.keys, "bytes": i.bytes, "reclaim": i.reclaim,
        });
        return Ok(output::line(&o.to_string())?);
    }
    if common.quiet {
        return Ok(());
    }
    let (cluster, time) = (i.header.cluster, output::time(i.header.time));
    output::line(&format!("{} keys, as of {time}, of cluster {cluster}", i.keys))?;
    Ok(output::line(&format!("the catalog is in {}; start the master with it, then run `kvdb fsck`", args.db.display()))?)
}
