//! The configuration of one broker of a test cluster.

use std::fmt::Write;
use std::path::Path;

/// Sixteen bytes in base64, as Kafka requires. All clusters can have the same id, because they never
/// communicate.
pub(super) const CLUSTER_ID: &str = "ZXllZ28tbG9nLXN0YWNrMQ";

/// The ports of one broker.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) broker: u16,
    pub(super) controller: u16,
}

/// A second listener, for clients that connect through a proxy. A broker tells a client the address
/// that it advertises for the client's listener, so no client bypasses the proxy.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) listens: u16,
    pub(super) advertised: u16,
}

/// Returns the text of `server.properties` for the broker at `index` of `ports`. `extra` comes last,
/// because Kafka uses the last value of a key.
pub(super) fn render(
    index: usize,
    ports: &[Ports],
    outside: Option<&Outside>,
    dir: &Path,
    extra: &[(String, String)],
) -> String {
    let replicas = ports.len();
    let in_sync = if replicas > 1 { 2 } else { 1 };
    let voters: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(index, ports)| format!("{}@127.0.0.1:{}", index + 1, ports.controller))
        .collect();
    let Ports { broker, controller } = &ports[index];
    let mut text = format!(
        "process.roles=broker,controller
node.id={node}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={dir}/data
auto.create.topics.enable=true
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
",
        node = index + 1,
        voters = voters.join(","),
        dir = dir.display(),
    );
    if replicas == 1 {
        // A killed broker can rejoin only after its old session has expired. With several brokers
        // the default of 9 s stays, because that is what users see when a leader dies.
        text.push_str("broker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=500\n");
    }
    if let Some(Outside { listens, advertised }) = outside {
        // These override the lines above. Brokers still connect to one another directly.
        let _ = write!(
            text,
            "listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller},\
             OUTSIDE://127.0.0.1:{listens}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},OUTSIDE://127.0.0.1:{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTSIDE:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"
        );
    }
    for (key, value) in extra {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Ports, render};

    #[test]
    fn three_brokers_replicate_and_list_one_another() {
        let ports =
            [(1, 2), (3, 4), (5, 6)].map(|(broker, controller)| Ports { broker, controller });
        let extra = [("message.max.bytes".to_owned(), "1000".to_owned())];
        let text = render(1, &ports, None, std::path::Path::new("/d"), &extra);
        for line in [
            "node.id=2",
            "listeners=PLAINTEXT://127.0.0.1:3,CONTROLLER://127.0.0.1:4",
            "controller.quorum.voters=1@127.0.0.1:2,2@127.0.0.1:4,3@127.0.0.1:6",
            "min.insync.replicas=2",
            "offsets.topic.replication.factor=3",
            "log.dirs=/d/data",
            "message.max.bytes=1000",
        ] {
            assert!(text.lines().any(|candidate| candidate == line), "missing {line} in {text}");
        }
    }
}
