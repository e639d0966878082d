//! `GET /metrics`: what is counted, in Prometheus' text format.

use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use crate::application::metrics::{
    BOUNDS_MICROS, ByRefusal, HistogramCounts, IngestCounters, IngestCounts, Refusal,
};
use crate::application::persist::{WorkerCounts, WorkerStatus};
use crate::domain::queue::{LogQueue, SpoolCounts};

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What this process counts.
pub struct Metrics {
    ingest: Option<Arc<IngestCounters>>,
    worker: Option<Arc<WorkerStatus>>,
    queue: Arc<dyn LogQueue>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Shows these; `None` for what this process does not do.
    #[must_use]
    pub fn new(
        ingest: Option<Arc<IngestCounters>>,
        worker: Option<Arc<WorkerStatus>>,
        queue: Arc<dyn LogQueue>,
    ) -> Self {
        Self { ingest, worker, queue }
    }

    fn text(&self) -> String {
        let mut text = Exposition::default();
        if let Some(ingest) = &self.ingest {
            show_ingest(&mut text, &ingest.counts());
        }
        if let Some(spool) = self.queue.spool() {
            show_spool(&mut text, &spool);
        }
        if let Some(worker) = &self.worker {
            show_worker(&mut text, &worker.counts());
        }
        text.0
    }
}

/// `GET /metrics`
pub(super) async fn show(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(CONTENT_TYPE, TEXT_FORMAT)], metrics.text()).into_response()
}

fn show_ingest(text: &mut Exposition, counts: &IngestCounts) {
    text.counter("eyego_ingest_received_total", "Events that came.", counts.received);
    text.counter("eyego_ingest_queued_total", "Events that the queue holds.", counts.queued);
    text.counter("eyego_ingest_spooled_total", "Events that the spool took.", counts.spooled);
    text.by_refusal(
        "eyego_ingest_refused_total",
        "Events that were refused, by reason.",
        &counts.refused,
    );
    text.gauge("eyego_ingest_in_flight", "Events whose fate is open.", counts.in_flight);
    text.by_refusal(
        "eyego_ingest_bodies_refused_total",
        "Bodies that were refused as a whole, by reason; the events in them are not counted.",
        &counts.bodies_refused,
    );
    text.histogram(
        "eyego_ingest_received_to_queued_seconds",
        "From the receipt of an event until the queue held it.",
        &counts.queued_after,
    );
}

fn show_spool(text: &mut Exposition, counts: &SpoolCounts) {
    let help = "Whether events go to the spool now: 1 or 0.";
    text.gauge("eyego_spool_in_use", help, counts.is_in_use.into());
    let help = "Records that wait in the spool for the queue.";
    text.gauge("eyego_spool_records", help, counts.records);
    let help = "Records that this process moved from the spool into the queue.";
    text.counter("eyego_spool_moved_total", help, counts.moved);
    let help = "Records that cannot be moved; a copy is kept in the spool's file.";
    text.counter("eyego_spool_quarantined_total", help, counts.quarantined);
}

fn show_worker(text: &mut Exposition, counts: &WorkerCounts) {
    let mut counter = |name: &str, help: &str, value: u64| {
        text.counter(&format!("eyego_worker_{name}_total"), help, value);
    };
    counter("consumed", "Records that the queue delivered.", counts.consumed);
    counter("stored", "Records that this process stored.", counts.stored);
    counter("duplicates", "Records whose id was stored before.", counts.duplicates);
    counter("conflicts", "Duplicates that say something else.", counts.conflicts);
    counter("skipped", "Records without a value.", counts.skipped);
    counter("released", "Records left to the next owner of their partition.", counts.released);
    counter("expired", "Records that the queue deleted before they came.", counts.expired);
    let name = "eyego_worker_dead_letters_total";
    text.family(name, "counter", "Records that became dead letters, by code.");
    for (code, count) in &counts.dead_letters {
        text.sample(name, &[("code", code)], count);
    }
    text.gauge("eyego_worker_in_flight", "Records whose fate is open.", counts.in_flight);
    let name = "eyego_worker_lag";
    text.family(name, "gauge", "Records past the committed offset, by partition.");
    for (partition, lag) in &counts.lag {
        text.sample(name, &[("partition", &partition.to_string())], lag);
    }
    let name = "eyego_worker_retention_left_seconds";
    let help = "Until the queue deletes records that were not consumed, at least, by partition.";
    text.family(name, "gauge", help);
    for (partition, left) in &counts.retention_left {
        text.sample(name, &[("partition", &partition.to_string())], left.as_secs());
    }
    text.histogram(
        "eyego_worker_received_to_stored_seconds",
        "From the receipt of an event until it was stored.",
        &counts.stored_after,
    );
}

/// The text as it grows.
#[derive(Debug, Default)]
struct Exposition(String);

impl Exposition {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn by_refusal(&mut self, name: &str, help: &str, counts: &ByRefusal<u64>) {
        self.family(name, "counter", help);
        for (refusal, count) in Refusal::ALL.iter().zip(counts) {
            self.sample(name, &[("reason", refusal.label())], count);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits of microseconds are 285 years")]
    fn histogram(&mut self, name: &str, help: &str, counts: &HistogramCounts) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let bounds = BOUNDS_MICROS.iter().map(|bound| (*bound as f64 / 1e6).to_string());
        let mut up_to = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counts.buckets) {
            up_to += count;
            self.sample(&bucket, &[("le", &bound)], up_to);
        }
        self.sample(&format!("{name}_sum"), &[], counts.sum_micros as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[], up_to);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if n == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_well_formed() {
        let mut text = Exposition::default();
        text.sample("eyego_x", &[("code", "a\"b\\c\nd"), ("n", "1")], 7);
        assert_eq!(text.0, "eyego_x{code=\"a\\\"b\\\\c\\nd\",n=\"1\"} 7\n");

        let mut text = Exposition::default();
        let counters = Arc::new(IngestCounters::default());
        show_ingest(&mut text, &counters.counts());
        assert!(text.0.contains("# TYPE eyego_ingest_received_total counter\n"));
        assert!(text.0.contains("eyego_ingest_refused_total{reason=\"invalid\"} 0\n"));
        assert!(text.0.contains("_seconds_bucket{le=\"0.0005\"} 0\n"), "{}", text.0);
        assert!(text.0.contains("_seconds_bucket{le=\"+Inf\"} 0\n"));
    }
}
