//! `kvdb health`: for a container's health check, where there is no curl.

use crate::args::{Common, Health};
use crate::exit::Told;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

pub async fn run(common: &Common, args: Health) -> anyhow::Result<()> {
    let url = match (args.url, args.port) {
        (Some(url), _) => url,
        (None, Some(port)) => format!("http://localhost:{port}"),
        (None, None) => common.master.clone(),
    };
    match common.client_at(&url, PATIENCE)?.health().await {
        Ok(()) => Ok(()),
        Err(e) => {
            // Docker knows healthy (0) and unhealthy (1), and reserves other codes.
            eprintln!("kvdb: {e:#}");
            Err(Told(1).into())
        }
    }
}
