//! Metrics of the whole process, in Prometheus' text format.
//!
//! Several servers may run in one process, as under `kvdb up`: they share one recorder and differ by the label `server`.
//! A key is never a label.

mod durations;

use durations::Durations;
use http::StatusCode;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once for the process; later calls do nothing. What is counted before is lost.
pub fn install() {
    handle();
}

/// All metrics as text, for `/-/metrics`. Empty, with a line in the log, if another recorder was there first.
pub fn render() -> String {
    let mut text = handle().map(PrometheusHandle::render).unwrap_or_default();
    durations::render(&mut text);
    text
}

/// Folds what histograms have collected; the accept loop calls it now and then, so that memory stays bounded.
pub(crate) fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn handle() -> Option<&'static PrometheusHandle> {
    let installed = HANDLE.get_or_init(|| match try_install() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::error!(%error, "there will be no metrics");
            None
        }
    });
    installed.as_ref()
}

fn try_install() -> Result<PrometheusHandle, Box<dyn std::error::Error>> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), durations::BOUNDS)?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(handle)
}

pub(crate) fn describe() {
    install();
    metrics::describe_counter!(
        "kvdb_http_requests_total",
        "Requests, by method and status; code 0: the client was gone before the answer."
    );
    metrics::describe_gauge!("kvdb_http_connections", "Open connections.");
}

/// Counts a request. Finding a metric by its labels takes longer than all else here, so each thread remembers those it found.
pub(crate) fn count_request(server: &'static str, method: &'static str, status: Option<StatusCode>, elapsed: Duration) {
    thread_local! {
        static FOUND: RefCell<Vec<Requests>> = const { RefCell::new(Vec::new()) };
    }
    // Nothing is counted while a thread ends.
    let _ended = FOUND.try_with(|found| {
        let mut found = found.borrow_mut();
        let at = found.iter().position(|r| r.server == server && r.method == method && r.status == status).unwrap_or_else(|| {
            found.push(Requests::find(server, method, status));
            found.len() - 1
        });
        if let Some(requests) = found.get(at) {
            requests.total.increment(1);
            requests.durations.record(elapsed);
        }
        // The ones that come often move to the front.
        found.swap(at, at / 2);
    });
}

/// The metrics of requests with the same labels. There are few: methods are a closed set, and statuses are ours.
struct Requests {
    server: &'static str,
    method: &'static str,
    status: Option<StatusCode>,
    total: metrics::Counter,
    durations: &'static Durations,
}

impl Requests {
    fn find(server: &'static str, method: &'static str, status: Option<StatusCode>) -> Self {
        let code = status.map_or_else(|| "0".to_string(), |s| s.as_str().to_string());
        let total = metrics::counter!("kvdb_http_requests_total", "server" => server, "method" => method, "code" => code);
        Self { server, method, status, total, durations: durations::of(server, method) }
    }
}

/// One more of something, until it is dropped.
pub struct Gauge(metrics::Gauge);

impl Gauge {
    /// Raises the gauge `name` of `server` by one.
    pub fn rise(name: &'static str, server: &'static str) -> Self {
        let gauge = metrics::gauge!(name, "server" => server);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_with_its_labels() {
        install();
        install();
        count_request("unit", "PUT", Some(StatusCode::CREATED), Duration::from_millis(3));
        let risen = Gauge::rise("kvdb_unit_gauge", "unit");
        let text = render();
        assert!(text.contains(r#"kvdb_http_requests_total{server="unit",method="PUT",code="201"} 1"#), "{text}");
        assert!(text.contains(r#"kvdb_http_request_duration_seconds_bucket{server="unit",method="PUT",le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"kvdb_unit_gauge{server="unit"} 1"#), "{text}");
        drop(risen);
        assert!(render().contains(r#"kvdb_unit_gauge{server="unit"} 0"#));
    }
}
