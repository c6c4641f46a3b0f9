//! Logs go to standard error: text on a terminal, else one JSON object a line.

use crate::context;
use std::fmt;
use std::io::IsTerminal;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Overrides the form: `text` or `json`.
pub const FORMAT_VARIABLE: &str = "KVDB_LOG_FORMAT";
/// The storage engines tell of their housekeeping at `info`.
const DEFAULT_LEVEL: &str = "info,fjall=warn,lsm_tree=warn,sled=warn";
const DEBUG_LEVEL: &str = "debug,fjall=warn,lsm_tree=warn,sled=warn,hyper=info,reqwest=info";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// [`init`] with more lines than usual, unless `RUST_LOG` says otherwise.
pub fn init_debug() {
    init_at(DEBUG_LEVEL);
}

/// Starts logging for the process; a later call does nothing.
///
/// `RUST_LOG` chooses levels (default `info`, `warn` for the storage engines), `KVDB_LOG_FORMAT` the form, `NO_COLOR` takes the colours away. A panic is one line
/// of the log, with the id of the request it happened in.
pub fn init() {
    init_at(DEFAULT_LEVEL);
}

fn init_at(default_level: &str) {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let terminal = std::io::stderr().is_terminal();
    let chosen = variable(FORMAT_VARIABLE);
    let format = format(chosen.as_deref(), terminal);
    let level = variable("RUST_LOG").unwrap_or_else(|| default_level.into());
    let parsed = EnvFilter::try_new(&level);
    let bad_level = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new(default_level));

    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = tracing_subscriber::fmt::format().with_timer(SystemTime);
    let started = match format.unwrap_or(Format::Text) {
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            builder.fmt_fields(JsonFields::new()).event_format(Named { lines, form: Format::Json }).try_init()
        }
        Format::Text => {
            let colours = terminal && variable("NO_COLOR").is_none();
            builder.with_ansi(colours).event_format(Named { lines: lines.with_ansi(colours), form: Format::Text }).try_init()
        }
    };
    if started.is_err() {
        return;
    }
    log_panics();
    if let Err(given) = format {
        tracing::warn!(given, "{FORMAT_VARIABLE} is neither text nor json; text it is");
    }
    if let Some(error) = bad_level {
        tracing::warn!(error, "RUST_LOG is not understood; the level is {default_level}");
    }
}

/// Lines that end in the id of the request they are about.
struct Named<F> {
    lines: F,
    form: Format,
}

impl<S, N, F> FormatEvent<S, N> for Named<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(id) = context::current() else { return self.lines.format_event(cx, writer, event) };
        let mut line = String::new();
        self.lines.format_event(cx, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        // An id is made of characters that neither form has to escape.
        match (self.form, line.strip_suffix('}')) {
            (Format::Json, Some(open)) => writeln!(writer, r#"{open},"request_id":"{id}"}}"#),
            _ => writeln!(writer, "{line} request_id={id}"),
        }
    }
}

/// The form, or what was given if that is none.
fn format(chosen: Option<&str>, terminal: bool) -> Result<Format, &str> {
    match chosen {
        Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(other),
        None if terminal => Ok(Format::Text),
        None => Ok(Format::Json),
    }
}

fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("no message");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: "kvdb::panic", location, "panic: {message}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_terminal_unless_it_is_chosen() {
        assert_eq!(format(None, true), Ok(Format::Text));
        assert_eq!(format(None, false), Ok(Format::Json));
        assert_eq!(format(Some("json"), true), Ok(Format::Json));
        assert_eq!(format(Some("text"), false), Ok(Format::Text));
        assert_eq!(format(Some("xml"), false), Err("xml"));
    }
}
