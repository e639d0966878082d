//! The SDKs. Each has its default settings, except that its queue has room for all events, so that none
//! are dropped. Where there is a choice, the cheapest documented call is used.

use std::sync::LazyLock;
use std::time::Duration;

use eyego_log_client::{Client, Event};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry_otlp::{LogExporter, WithExportConfig as _};
use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider};
use serde::Serialize;

use crate::EVENTS;
use crate::server::ACTION;

pub(crate) struct Sdk {
    /// Logs the event with this number.
    pub(crate) log: Box<dyn Fn(u32)>,
    pub(crate) flush: Box<dyn Fn()>,
}

type Start = fn(&str) -> Sdk;

pub(crate) const SDKS: &[(&str, Start)] = &[
    ("eyego-log-client", |url| eyego(url, true)),
    // The others do not compress by default.
    ("eyego-log-client, uncompressed", |url| eyego(url, false)),
    ("opentelemetry-otlp", opentelemetry),
    ("posthog-rs", posthog),
    ("sentry", sentry),
];

static USERS: LazyLock<Vec<String>> =
    LazyLock::new(|| (1000..2000).map(|n| format!("user-{n}")).collect());

/// Returns the user of the event with this number.
fn user(n: u32) -> &'static str {
    &USERS[n as usize % USERS.len()]
}

// The other fields of each event. Its width is its number.
const PAGE: &str = "home";
const BROWSER: &str = "chrome";
const RATIO: f64 = 0.75;
const REFERRER: &str = "https://example.com/a/b";

const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Metadata {
    page: &'static str,
    browser: &'static str,
    width: u32,
    ratio: f64,
    referrer: &'static str,
}

fn eyego(url: &str, compression: bool) -> Sdk {
    let builder = Client::builder(url).max_buffer_bytes(EVENTS as usize * 400);
    let client = builder.compression(compression).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let flushed = client.clone();
    let log = move |n| {
        let metadata =
            Metadata { page: PAGE, browser: BROWSER, width: n, ratio: RATIO, referrer: REFERRER };
        client.log(Event::new(user(n), ACTION).metadata(metadata)).unwrap();
    };
    let flush = move || assert!(runtime.block_on(flushed.flush_within(TIMEOUT)).all_delivered());
    Sdk { log: Box::new(log), flush: Box::new(flush) }
}

fn opentelemetry(url: &str) -> Sdk {
    let exporter = LogExporter::builder().with_http().with_endpoint(format!("{url}/v1/logs"));
    let config = BatchConfigBuilder::default().with_max_queue_size(EVENTS as usize).build();
    let processor = BatchLogProcessor::builder(exporter.build().unwrap()).with_batch_config(config);
    let provider = SdkLoggerProvider::builder().with_log_processor(processor.build()).build();
    let logger = provider.logger("peers");
    let log = move |n| {
        let mut record = logger.create_log_record();
        record.set_severity_number(Severity::Info);
        record.set_body(AnyValue::from(ACTION));
        record.add_attribute("user", user(n));
        record.add_attribute("page", PAGE);
        record.add_attribute("browser", BROWSER);
        record.add_attribute("width", n);
        record.add_attribute("ratio", RATIO);
        record.add_attribute("referrer", REFERRER);
        logger.emit(record);
    };
    let flush = move || provider.force_flush().unwrap();
    Sdk { log: Box::new(log), flush: Box::new(flush) }
}

fn posthog(url: &str) -> Sdk {
    let options = posthog_rs::ClientOptionsBuilder::default()
        .api_key("key".to_owned())
        .host(url)
        .max_queue_size(EVENTS as usize)
        .build()
        .unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = std::sync::Arc::new(runtime.block_on(posthog_rs::client(options)));
    let flushed = client.clone();
    let log = move |n| {
        let mut event = posthog_rs::Event::new(ACTION, user(n));
        event.insert_prop("page", PAGE).unwrap();
        event.insert_prop("browser", BROWSER).unwrap();
        event.insert_prop("width", n).unwrap();
        event.insert_prop("ratio", RATIO).unwrap();
        event.insert_prop("referrer", REFERRER).unwrap();
        client.capture(event);
    };
    let flush = move || runtime.block_on(flushed.flush());
    Sdk { log: Box::new(log), flush: Box::new(flush) }
}

/// As structured logs, which cost much less than Sentry's events, and without the integrations that add
/// attributes to each of them.
fn sentry(url: &str) -> Sdk {
    let dsn = url.replace("http://", "http://key@") + "/1";
    let options = sentry::ClientOptions::new()
        .dsn(dsn.as_str())
        // Each envelope contains 100 logs.
        .transport_channel_capacity(EVENTS as usize / 100);
    let guard = sentry::init(options);
    let client = sentry::Hub::current().client().unwrap();
    let log = move |n| {
        // The client lives as long as its guard.
        let _ = &guard;
        sentry::logger_info!(
            user = user(n),
            page = PAGE,
            browser = BROWSER,
            width = n,
            ratio = RATIO,
            referrer = REFERRER,
            "CLICK_BUTTON"
        );
    };
    let flush = move || assert!(client.flush(Some(TIMEOUT)));
    Sdk { log: Box::new(log), flush: Box::new(flush) }
}
