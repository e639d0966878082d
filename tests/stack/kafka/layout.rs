//! Prepares a cluster: ports, directories, configuration and formatted storage.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, ensure};

use super::{Kafka, KafkaOptions, properties};
use crate::cluster::{Cluster, Node};
use crate::process::{Daemon, Spec};
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::{Purpose, download, port};

/// The JVM options that Kafka's own start scripts set (`kafka-server-start.sh`,
/// `kafka-run-class.sh`).
const PRODUCTION: [&str; 6] = [
    "-Xmx1g",
    "-Xms1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// Prepares a cluster without starting it.
pub(super) fn lay_out(options: &KafkaOptions) -> Result<Kafka> {
    ensure!(
        matches!(options.brokers, 1 | 3),
        "a cluster must have 1 or 3 brokers, not {}",
        options.brokers
    );
    let libs = download::kafka_libs()?;
    let class_path = format!("{}/*", libs.display());
    let scratch = Scratch::new("kafka")?;
    let ports = (0..options.brokers)
        .map(|_| Ok(properties::Ports { broker: port::free()?, controller: port::free()? }))
        .collect::<Result<Vec<_>>>()?;
    let behind = if options.behind_proxies { options.brokers } else { 0 };
    let mut outsides = (0..behind).map(|_| outside()).collect::<Result<Vec<_>>>()?.into_iter();
    let mut brokers = Vec::new();
    let mut configs = Vec::new();
    for (index, own) in ports.iter().enumerate() {
        let dir = scratch.path().join(format!("broker-{index}"));
        std::fs::create_dir(&dir)?;
        let config = dir.join("server.properties");
        let (outside, proxy) = outsides.next().unzip();
        let text = properties::render(index, &ports, outside.as_ref(), &dir, &options.properties);
        std::fs::write(&config, text)?;
        let spec = Spec::new(format!("kafka broker {index}"), "java", dir.join("kafka.log"))
            .args(match options.purpose {
                Purpose::Tests => &["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"][..],
                Purpose::Benchmarks => &PRODUCTION,
            })
            .args([
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            ])
            .args(["-cp", &class_path, "kafka.Kafka"])
            .arg(&config)
            .dir(&dir);
        brokers.push(Node {
            daemon: Daemon::new(spec),
            address: format!("127.0.0.1:{}", own.broker),
            proxy,
        });
        configs.push(config);
    }
    format_storage(&class_path, &configs)?;
    let addresses: Vec<&str> = brokers.iter().map(|broker| broker.address.as_str()).collect();
    let bootstrap = addresses.join(",");
    Ok(Kafka { cluster: Cluster::new(brokers, scratch), bootstrap })
}

/// Returns the second listener of a broker, and the proxy in front of it.
fn outside() -> Result<(properties::Outside, Proxy)> {
    let listens = port::free()?;
    let proxy = Proxy::start(listens)?;
    Ok((properties::Outside { listens, advertised: proxy.port() }, proxy))
}

/// Formats the storage of all brokers concurrently, each by its own JVM.
fn format_storage(class_path: &str, configs: &[impl AsRef<Path> + Sync]) -> Result<()> {
    std::thread::scope(|scope| {
        let formats: Vec<_> = configs
            .iter()
            .map(|config| {
                scope.spawn(move || {
                    download::run(
                        Command::new("java")
                            .args([
                                "-XX:+UseSerialGC",
                                "-XX:TieredStopAtLevel=1",
                                "-cp",
                                class_path,
                            ])
                            .args([
                                "kafka.tools.StorageTool",
                                "format",
                                "-t",
                                properties::CLUSTER_ID,
                                "-c",
                            ])
                            .arg(config.as_ref()),
                    )
                })
            })
            .collect();
        formats
            .into_iter()
            .try_for_each(|format| format.join().map_err(|_| anyhow!("formatting panicked"))?)
    })
}
