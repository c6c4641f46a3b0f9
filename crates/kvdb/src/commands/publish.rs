//! `kvdb publish`.

use super::batch;
use crate::args::{Common, Publish};
use crate::bar;
use anyhow::Context;
use kvdb_client::{Condition, PutOptions, Transaction};

pub async fn run(common: &Common, args: Publish) -> anyhow::Result<()> {
    let (txn, _) = common.client()?.begin(Some(args.open_for)).await?;
    let published = match fill(common, &txn, &args).await {
        Ok(()) => batch::named(txn.commit().await).map_err(anyhow::Error::from),
        Err(e) => Err(e),
    };
    match published {
        Ok(applied) => batch::show(common, &applied),
        Err(error) => {
            // It would vanish by itself, only later; one whose commit is not known to have failed is refused or not there.
            if let Err(e) = txn.abort().await {
                tracing::debug!(error = %e, "what was uploaded is removed later");
            }
            Err(error)
        }
    }
}

async fn fill(common: &Common, txn: &Transaction, args: &Publish) -> anyhow::Result<()> {
    for key in &args.delete {
        txn.delete(key, &Condition::default()).await?;
    }
    for (key, file) in &args.values {
        let meta = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        let options =
            PutOptions { create_only: args.create, content_type: args.content_type.clone(), ttl: args.ttl, ..PutOptions::default() };
        let (progress, len) = (options.progress.clone(), meta.is_file().then_some(meta.len()));
        let put = txn.put(key, file.as_path(), options);
        bar::while_showing(common.quiet, key.display(), len, &progress, put).await?;
    }
    Ok(())
}
