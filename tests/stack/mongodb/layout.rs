//! Prepares a MongoDB: ports, directories and arguments.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Mongo, MongoOptions, SET_NAME};
use crate::cluster::{Cluster, Node};
use crate::process::{Daemon, Spec};
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::{Purpose, download, port};

/// Prepares a MongoDB without starting it.
pub(super) fn lay_out(options: &MongoOptions) -> Result<Mongo> {
    ensure!(
        matches!(options.members, 1 | 3),
        "MongoDB must have 1 or 3 members, not {}",
        options.members
    );
    ensure!(options.members == 1 || options.replica_set, "three members must be a replica set");
    let mongod = download::mongod()?;
    let scratch = Scratch::new("mongodb")?;
    let members = (0..options.members)
        .map(|index| {
            member(index, &mongod, &scratch.path().join(format!("member-{index}")), options)
        })
        .collect::<Result<Vec<_>>>()?;
    let hosts: Vec<String> = members.iter().map(Node::advertised).collect();
    let query = if options.replica_set { format!("?replicaSet={SET_NAME}") } else { String::new() };
    let uri = format!("mongodb://{}/{query}", hosts.join(","));
    Ok(Mongo { cluster: Cluster::new(members, scratch), uri, replica_set: options.replica_set })
}

fn member(index: usize, mongod: &Path, dir: &Path, options: &MongoOptions) -> Result<Node> {
    let data = dir.join("data");
    std::fs::create_dir_all(&data)?;
    let port = port::free()?;
    let (name, log) = (format!("mongod {index}"), dir.join("mongod.log"));
    let spec = match options.purpose {
        Purpose::Tests => Spec::new(name, mongod, log).args(["--wiredTigerCacheSizeGB", "0.5"]),
        // About a tenth of the CPU share of the others when the cores are busy. `nice` execs the
        // program, so the process id stays.
        Purpose::Benchmarks => Spec::new(name, "nice", log).args(["-n", "10"]).arg(mongod),
    };
    let mut spec = spec
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()])
        // A socket file in the shared temporary directory would outlive a SIGKILL.
        .args(["--nounixsocket", "--dbpath"])
        .arg(&data)
        .dir(dir);
    if options.replica_set {
        spec = spec.args(["--replSet", SET_NAME]);
    }
    let daemon = Daemon::new(spec.args(&options.args));
    let proxy = options.behind_proxies.then(|| Proxy::start(port)).transpose()?;
    Ok(Node { daemon, address: format!("127.0.0.1:{port}"), proxy })
}
