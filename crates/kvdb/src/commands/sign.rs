//! `kvdb sign`.

use crate::args::{Common, Sign};
use crate::output;
use kvdb_client::SignFor;
use serde_json::json;

pub async fn run(common: &Common, args: &Sign) -> anyhow::Result<()> {
    let what = if args.put { SignFor::Writing } else { SignFor::Reading };
    let signed = common.client()?.sign(&args.key, what, args.life).await?;
    let expires = output::time(signed.expires);
    if common.json {
        return Ok(output::line(&json!({ "url": signed.url, "expires": expires }).to_string())?);
    }
    Ok(output::line(&signed.url)?)
}
