//! `GET /metrics`: the counters of this process in Prometheus' text format,
//! version 0.0.4.
//!
//! The counters live in the application layer. Each scrape takes a snapshot of
//! them, so that the invariants documented there hold in every response.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelValue, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::access::Access;
use super::connections::Connections;
use super::error::ApiError;
use super::parameters;
use super::tls::Tls;
use crate::application::access::KeyCounts;
use crate::application::metrics::{
    BOUNDS_MICROS, ByRefusal, HistogramCounts, IngestCounters, IngestCounts, Refusal,
};
use crate::application::persist::{Skipped, WorkerCounts, WorkerStatus};
use crate::application::removal::{RemovalCounts, RemovalStatus};
use crate::application::tail::{TailCounters, TailCounts};
use crate::domain::queue::{LogQueue, SpoolCounts};

/// The metrics of this process.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Creates the metrics of these parts.
    #[must_use]
    pub fn new(parts: MeasuredParts) -> Self {
        let mut registry = Registry::with_prefix("eyego");
        registry.register_collector(Box::new(parts));
        Self(registry)
    }

    fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// `GET /metrics`
pub(super) async fn show(
    State(metrics): State<Arc<Metrics>>,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(errors) = parameters::expect_none(query.as_deref()) {
        return ApiError::from(errors).into_response();
    }
    match metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response(),
        Err(error) => ApiError::internal(format!("cannot encode metrics: {error}")).into_response(),
    }
}

/// The parts that have metrics. `None` stands for a part that this process does
/// not run.
pub struct MeasuredParts {
    /// Counters of the events that the API receives.
    pub ingest: Option<Arc<IngestCounters>>,
    /// Counters of the tails.
    pub tails: Option<Arc<TailCounters>>,
    /// Status of the worker.
    pub worker: Option<Arc<WorkerStatus>>,
    /// Status of retention and erasure.
    pub removal: Option<Arc<RemovalStatus>>,
    /// The queue.
    pub queue: Arc<dyn LogQueue>,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// Number of log lines that were dropped.
    pub dropped_log_lines: Arc<AtomicU64>,
    /// Keys, limits and refused requests.
    pub access: Arc<Access>,
    /// The certificate, if the server uses TLS.
    pub tls: Option<Tls>,
}

impl fmt::Debug for MeasuredParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasuredParts").finish_non_exhaustive()
    }
}

impl Collector for MeasuredParts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut encoder = Encoder(encoder);
        if let Some(ingest) = &self.ingest {
            encode_ingest(&mut encoder, &ingest.counts())?;
        }
        if let Some(tails) = &self.tails {
            encode_tails(&mut encoder, tails.counts())?;
        }
        let help = "1 for each setting of the queue that endangers acknowledged events.";
        let problems = self.queue.setting_problems().into_iter();
        let mut settings: Vec<_> = problems.map(|problem| (problem.setting, 1)).collect();
        settings.dedup();
        encoder.gauges("queue_setting_problem", help, "setting", settings.into_iter())?;
        if let Some(spool) = self.queue.spool() {
            encode_spool(&mut encoder, &spool)?;
        }
        if let Some(worker) = &self.worker {
            encode_worker(&mut encoder, &worker.counts())?;
        }
        if let Some(removal) = &self.removal {
            encode_removal(&mut encoder, &removal.counts())?;
        }
        encode_access(&mut encoder, &self.access)?;
        if let Some(tls) = &self.tls {
            let help = "TLS handshakes that failed or took too long.";
            encoder.counter("tls_handshakes_failed", help, tls.failed_handshakes())?;
        }
        let connections = self.connections.counts();
        let help = "Open HTTP connections.";
        encoder.gauge("http_connections", help, connections.open)?;
        let help = "Idle HTTP connections closed to make room for new ones.";
        encoder.counter("http_connections_evicted", help, connections.evicted)?;
        let help = "HTTP connections refused because the limit was reached.";
        encoder.counter("http_connections_refused", help, connections.refused)?;
        let help = "Log lines dropped because standard error was not read fast enough.";
        let dropped = self.dropped_log_lines.load(Ordering::Relaxed);
        encoder.counter("log_lines_dropped", help, dropped)
    }
}

fn encode_tails(encoder: &mut Encoder<'_>, counts: TailCounts) -> fmt::Result {
    encoder.gauge("tails", "Open tails.", counts.open)?;
    encoder.counter("tail_events_sent", "Events sent on tails.", counts.sent)?;
    let help = "Events that tails missed because their readers were too slow.";
    encoder.counter("tail_events_skipped", help, counts.skipped)
}

fn encode_ingest(encoder: &mut Encoder<'_>, counts: &IngestCounts) -> fmt::Result {
    encoder.counter("ingest_received", "Events received over HTTP.", counts.received)?;
    encoder.counter("ingest_queued", "Events acknowledged by the queue.", counts.queued)?;
    let help = "Events written to the spool while the queue was unavailable.";
    encoder.counter("ingest_spooled", help, counts.spooled)?;
    encoder.refusals("ingest_refused", "Events refused, by reason.", &counts.refused)?;
    let help = "Events received but not yet acknowledged or refused.";
    encoder.gauge("ingest_in_flight", help, counts.in_flight)?;
    let help = "Request bodies refused as a whole, by reason. Their events are not counted.";
    encoder.refusals("ingest_bodies_refused", help, &counts.bodies_refused)?;
    let help = "Time from receiving an event until the queue acknowledged it.";
    encoder.histogram("ingest_received_to_queued_seconds", help, &counts.queued_after)
}

fn encode_spool(encoder: &mut Encoder<'_>, counts: &SpoolCounts) -> fmt::Result {
    let help = "1 while new events are written to the spool, otherwise 0.";
    encoder.gauge("spool_in_use", help, counts.is_in_use.into())?;
    let help = "Records in the spool that wait to be moved into the queue.";
    encoder.gauge("spool_records", help, counts.records)?;
    encoder.counter("spool_moved", "Records moved from the spool into the queue.", counts.moved)?;
    let help = "Records that cannot be moved into the queue. The spool's file keeps a copy.";
    encoder.counter("spool_quarantined", help, counts.quarantined)
}

fn encode_worker(encoder: &mut Encoder<'_>, counts: &WorkerCounts) -> fmt::Result {
    encoder.counter("worker_consumed", "Records delivered by the queue.", counts.consumed)?;
    encoder.counter("worker_stored", "Records stored by this process.", counts.stored)?;
    let help = "Records of events that were already stored.";
    encoder.counter("worker_duplicates", help, counts.duplicates)?;
    let help = "Records that are not stored although they could be, by reason.";
    let Skipped { no_value, expired, erased } = counts.skipped;
    let by_reason = [("no_value", no_value), ("expired", expired), ("erased", erased)];
    encoder.counters("worker_skipped", help, "reason", by_reason.into_iter())?;
    let help = "Records dropped unsettled because their partition moved to another consumer.";
    encoder.counter("worker_released", help, counts.released)?;
    let help = "Records that the queue deleted before they were consumed.";
    encoder.counter("worker_expired", help, counts.expired)?;
    let help = "Records that became dead letters, by code.";
    let by_code = counts.dead_letters.iter().map(|(code, count)| (code.as_str(), *count));
    encoder.counters("worker_dead_letters", help, "code", by_code)?;
    let help = "Records consumed but not yet settled.";
    encoder.gauge("worker_in_flight", help, counts.in_flight)?;
    let help = "Records past the committed offset, by partition.";
    let lag = counts.lag.iter().copied();
    encoder.gauges("worker_lag", help, "partition", lag)?;
    let help = "Minimum time until the queue deletes unconsumed records, by partition.";
    let left = counts.retention_left.iter().map(|(partition, left)| (*partition, left.as_secs()));
    encoder.gauges("worker_retention_left_seconds", help, "partition", left)?;
    let help = "Time from receiving an event until it was stored.";
    encoder.histogram("worker_received_to_stored_seconds", help, &counts.stored_after)
}

fn encode_access(encoder: &mut Encoder<'_>, access: &Access) -> fmt::Result {
    let help = "Requests refused before their body was read, by reason.";
    encoder.counters("access_refused", help, "reason", access.denials().by_reason())?;
    let keys = access.keys();
    if keys.is_empty() {
        return Ok(());
    }
    let by_key =
        |count: fn(&KeyCounts) -> u64| keys.iter().map(move |key| (key.id.as_str(), count(key)));
    let help = "Requests with a valid token, by key.";
    encoder.counters("key_requests", help, "key", by_key(|key| key.requests))?;
    let help = "Requests refused because of a limit of the key.";
    encoder.counters("key_limited", help, "key", by_key(|key| key.limited))?;
    let help = "Unix time at which the key expires, for keys that do.";
    let expiries = keys.iter().filter_map(|key| Some((key.id.as_str(), key.expires?)));
    let expiries =
        expiries.map(|(id, time)| (id, u64::try_from(time.as_millis() / 1000).unwrap_or_default()));
    encoder.gauges("key_expiry_timestamp_seconds", help, "key", expiries)
}

fn encode_removal(encoder: &mut Encoder<'_>, counts: &RemovalCounts) -> fmt::Result {
    let help = "Stored events deleted by this process, by reason.";
    let by_reason = [("expired", counts.expired), ("erased", counts.erased)];
    encoder.counters("removal_deleted", help, "reason", by_reason.into_iter())?;
    let help = "Dead letters of erased users deleted by this process.";
    encoder.counter("removal_dead_letters_deleted", help, counts.erased_dead_letters)?;
    let help = "Attempts to delete that failed. Each is repeated.";
    encoder.counter("removal_errors", help, counts.errors)?;
    let help = "1 in the process that deletes, otherwise 0.";
    encoder.gauge("removal_lease", help, counts.has_lease.into())?;
    if !counts.has_lease {
        return Ok(());
    }
    encoder.gauge("erasures_running", "Erasures that are not completed.", counts.running)?;
    if let Some(took) = counts.last_pass {
        let help = "Duration of the last deletion of expired events.";
        encoder.seconds("retention_pass_seconds", help, took.as_secs_f64())?;
    }
    if let Some(oldest) = counts.oldest {
        let help = "Timestamp of the oldest stored event at the end of that deletion, in seconds \
                    since 1970.";
        #[expect(clippy::cast_precision_loss, reason = "53 bits of milliseconds are exact")]
        let seconds = oldest.as_millis() as f64 / 1000.0;
        encoder.seconds("store_oldest_event_timestamp_seconds", help, seconds)?;
    }
    Ok(())
}

/// Encodes metric families from plain numbers. The library appends `_total` to
/// the names of counters.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<L: EncodeLabelValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (label_value, value) in values {
            family
                .encode_family(&[(label, label_value)])?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn refusals(&mut self, name: &str, help: &str, counts: &ByRefusal<u64>) -> fmt::Result {
        let values = Refusal::ALL.iter().zip(counts);
        let values = values.map(|(refusal, count)| (refusal.label(), *count));
        self.counters(name, help, "reason", values)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (label_value, value) in values {
            family.encode_family(&[(label, label_value)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits of microseconds are 285 years")]
    fn histogram(&mut self, name: &str, help: &str, counts: &HistogramCounts) -> fmt::Result {
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts.buckets).collect();
        let sum = counts.sum_micros as f64 / 1e6;
        let count = counts.buckets.iter().sum();
        self.0
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct EncodeWith<F>(F);

    impl<F> fmt::Debug for EncodeWith<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("EncodeWith")
        }
    }

    impl<F> Collector for EncodeWith<F>
    where
        F: Fn(&mut Encoder<'_>) -> fmt::Result + Send + Sync + 'static,
    {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0(&mut Encoder(encoder))
        }
    }

    fn text(encode: impl Fn(&mut Encoder<'_>) -> fmt::Result + Send + Sync + 'static) -> String {
        let mut registry = Registry::with_prefix("eyego");
        registry.register_collector(Box::new(EncodeWith(encode)));
        Metrics(registry).encode().unwrap()
    }

    #[test]
    fn label_values_are_escaped() {
        let text =
            text(|encoder| encoder.counters("x", "X.", "code", [("a\"b\\c\nd", 7)].into_iter()));
        assert_eq!(
            text,
            "# HELP eyego_x_total X.\n# TYPE eyego_x_total counter\n\
             eyego_x_total{code=\"a\\\"b\\\\c\\nd\"} 7\n"
        );
    }

    #[test]
    fn each_family_has_its_type_labels_and_unit() {
        let counters = Arc::new(IngestCounters::default());
        let ingest = text(move |encoder| encode_ingest(encoder, &counters.counts()));
        for line in [
            "# TYPE eyego_ingest_received_total counter",
            "eyego_ingest_received_total 0",
            "eyego_ingest_refused_total{reason=\"invalid\"} 0",
            "# TYPE eyego_ingest_in_flight gauge",
            "# TYPE eyego_ingest_received_to_queued_seconds histogram",
            "eyego_ingest_received_to_queued_seconds_bucket{le=\"0.0005\"} 0",
            "eyego_ingest_received_to_queued_seconds_bucket{le=\"+Inf\"} 0",
            "eyego_ingest_received_to_queued_seconds_count 0",
        ] {
            assert!(ingest.lines().any(|found| found == line), "no {line} in\n{ingest}");
        }
        let worker = WorkerStatus::default();
        let mut counts = worker.counts();
        counts.lag = vec![(3, 5)];
        let worker = text(move |encoder| encode_worker(encoder, &counts));
        assert!(worker.contains("\neyego_worker_lag{partition=\"3\"} 5\n"), "{worker}");
        assert!(worker.contains("\neyego_worker_consumed_total 0\n"), "{worker}");
    }

    #[test]
    fn histogram_buckets_are_cumulative() {
        let counts = HistogramCounts {
            buckets: [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            sum_micros: 61_000_000,
        };
        let text = text(move |encoder| encoder.histogram("h", "H.", &counts));
        for line in
            ["bucket{le=\"0.001\"} 2", "bucket{le=\"60\"} 2", "bucket{le=\"+Inf\"} 3", "count 3"]
        {
            assert!(text.contains(&format!("\neyego_h_{line}\n")), "no {line} in\n{text}");
        }
        assert!(text.contains("\neyego_h_sum 61"), "{text}");
    }
}
