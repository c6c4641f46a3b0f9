//! `kvdb cluster`: what the cluster is like, and orders that change it.

use crate::args::{Cluster, ClusterOrder, Common, SecretArgs};
use crate::operator::{self, Operator};
use crate::output;
use anyhow::{Context as _, bail};
use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use kvdb_protocol::VolumeId;
use kvdb_protocol::operator::{Order, path};
use serde_json::Value;

pub async fn run(common: &Common, args: Cluster) -> anyhow::Result<()> {
    let Some(order) = args.order else { return show(common, &operator::status_page(common).await?) };
    let secret = match &order {
        ClusterOrder::Status { secret: SecretArgs { secret: None, secret_file: None } } => {
            return show(common, &operator::status_page(common).await?);
        }
        ClusterOrder::Status { secret }
        | ClusterOrder::Add { secret, .. }
        | ClusterOrder::Drain { secret, .. }
        | ClusterOrder::Resume { secret, .. }
        | ClusterOrder::Remove { secret, .. }
        | ClusterOrder::Scrub { secret, .. } => secret,
    };
    let operator = Operator::connect(common, secret).await?;
    let order = match order {
        ClusterOrder::Status { .. } => return show(common, &operator.status().await?),
        ClusterOrder::Add { address, .. } => Order::Add { address },
        ClusterOrder::Drain { volume, .. } => Order::Drain { volume: find(&operator, &volume).await? },
        ClusterOrder::Resume { volume, .. } => Order::Resume { volume: find(&operator, &volume).await? },
        ClusterOrder::Remove { volume, lost, .. } => Order::Remove { volume: find(&operator, &volume).await?, lost },
        ClusterOrder::Scrub { volume: None, .. } => Order::Scrub { volume: None },
        ClusterOrder::Scrub { volume: Some(v), .. } => Order::Scrub { volume: Some(find(&operator, &v).await?) },
    };
    give(common, &operator, &order).await
}

async fn give(common: &Common, operator: &Operator, order: &Order) -> anyhow::Result<()> {
    let done: Value = operator.ask(path::ORDER, order).await?;
    if common.json {
        return Ok(output::line(&done.to_string())?);
    }
    if let (Order::Add { address }, Some(error)) = (order, done["listed"]["error"].as_str()) {
        bail!("{address} is on the list now, but there is no contact yet: {error}");
    }
    if common.quiet {
        return Ok(());
    }
    let text = match order {
        Order::Add { address } => format!("{address} is volume {}", done["listed"]["id"].as_str().unwrap_or("?")),
        Order::Drain { volume } => format!("volume {volume} is being emptied; `kvdb cluster` shows how far it is"),
        Order::Resume { volume } => format!("volume {volume} is used again"),
        Order::Remove { volume, .. } => format!("volume {volume} is no longer of the cluster; stop its process"),
        Order::Scrub { .. } => "the check has begun; `kvdb cluster` shows how far it is".into(),
    };
    Ok(output::line(&text)?)
}

/// A volume by its id or its address.
async fn find(operator: &Operator, text: &str) -> anyhow::Result<VolumeId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let status: Value = operator.status().await?;
    let of = |v: &&Value| v["address"] == text || v["public_url"] == text;
    let found = status["volumes"].as_array().and_then(|all| all.iter().find(of));
    let id = found.with_context(|| format!("no volume has the id or the address {text}; see `kvdb cluster`"))?["id"].as_str();
    id.and_then(|id| id.parse().ok()).with_context(|| format!("the volume at {text} was not reached since the master began; give its id"))
}

fn show(common: &Common, status: &Value) -> anyhow::Result<()> {
    if common.json {
        return Ok(output::line(&status.to_string())?);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["VOLUME", "ADDRESS", "STATE", "VALUES", "USED", "FREE", "BAD", "CHECKED"]);
    for v in status["volumes"].as_array().into_iter().flatten() {
        let s = &v["status"];
        table.add_row([
            text(&v["id"]),
            text(&v["address"]),
            state(v),
            number(&s["values"]),
            bytes(&s["used_bytes"]),
            bytes(&s["free_bytes"]),
            number(&s["quarantined"]),
            checked(&s["scrub"]),
        ]);
    }
    output::line(&table.to_string())?;
    let ready = if status["ready"] == true { "ready" } else { "NOT ready" };
    output::line(&format!("{ready}; {} replicas of each value", number(&status["replicas"])))?;
    let repair = &status["repair"];
    let remaining = &repair["remaining"];
    let left = if remaining["values"] == 0 && remaining["bytes"] == 0 {
        "nothing to copy".to_string()
    } else {
        let time = repair["seconds_left"].as_f64().map_or("time left not known yet".into(), |s| format!("about {s} s left"));
        format!("{} values, {} to copy, {time}", number(&remaining["values"]), bytes(&remaining["bytes"]))
    };
    output::line(&format!("repair: {}; {left}; {} copied", text(&repair["phase"]), bytes(&repair["copied"]["bytes"])))?;
    for (name, what) in
        [("unreachable", "values have no good copy that can be read now"), ("no_place", "values have no place for another copy")]
    {
        if repair[name]["values"].as_u64().is_some_and(|n| n > 0) {
            output::line(&format!("WARNING: {} {what}", number(&repair[name]["values"])))?;
        }
    }
    if repair["bad_copies"].as_u64().is_some_and(|n| n > 0) {
        output::line(&format!("WARNING: {} copies are bad or missing and not yet mended", number(&repair["bad_copies"])))?;
    }
    show_quotas(&status["quotas"])
}

/// What is used of each quota; nothing where there are none.
fn show_quotas(quotas: &Value) -> anyhow::Result<()> {
    let Some(quotas) = quotas.as_array().filter(|all| !all.is_empty()) else { return Ok(()) };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["QUOTA", "KEYS", "BYTES"]);
    for quota in quotas {
        let of = |used: String, most: String| if most == "-" { used } else { format!("{used} of {most}") };
        let [keys, used] = match quota["counted"] == true {
            true => [of(number(&quota["keys"]), number(&quota["max_keys"])), of(bytes(&quota["bytes"]), bytes(&quota["max_bytes"]))],
            false => ["being counted: nothing is stored", "-"].map(String::from),
        };
        let prefix = quota["prefix"].as_str().filter(|p| !p.is_empty()).unwrap_or("(all keys)");
        table.add_row([prefix.to_string(), keys, used]);
    }
    Ok(output::line(&table.to_string())?)
}

fn state(v: &Value) -> String {
    let up = match (&v["up"], &v["status"]["writable"]) {
        (Value::Bool(true), Value::Bool(true)) => "up".to_string(),
        (Value::Bool(true), _) => format!("up, takes no writes: {}", text(&v["status"]["reason"])),
        _ => format!("down: {}", text(&v["error"])),
    };
    if v["draining"] == true { format!("{up}, draining") } else { up }
}

/// How far the check of what is at rest is.
fn checked(scrub: &Value) -> String {
    let (done, of) = (scrub["bytes"].as_u64().unwrap_or(0), scrub["of_bytes"].as_u64().unwrap_or(0));
    match (scrub["began"].as_u64(), scrub["ended"].as_u64()) {
        (Some(_), _) => format!("{} of {}", HumanBytes(done), HumanBytes(of)),
        (None, Some(at)) => output::time(kvdb_client::UnixMillis(at)),
        (None, None) => "-".into(),
    }
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or("-").to_string()
}

fn number(v: &Value) -> String {
    v.as_u64().map_or_else(|| "-".into(), |n| n.to_string())
}

fn bytes(v: &Value) -> String {
    v.as_u64().map_or_else(|| "-".into(), |n| HumanBytes(n).to_string())
}
