//! A MongoDB that does not run yet: everything but the start.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Member, Mongo, MongoOptions, SET_NAME};
use crate::process::{Daemon, Spec};
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::{Purpose, download, port};

/// Ports, directories, arguments.
pub(super) fn lay_out(options: &MongoOptions) -> Result<Mongo> {
    ensure!(
        matches!(options.members, 1 | 3),
        "MongoDB has 1 or 3 members here, not {}",
        options.members
    );
    ensure!(options.members == 1 || options.replica_set, "three members are a replica set");
    let mongod = download::mongod()?;
    let scratch = Scratch::new("mongodb")?;
    let members = (0..options.members)
        .map(|index| {
            member(index, &mongod, &scratch.path().join(format!("member-{index}")), options)
        })
        .collect::<Result<Vec<_>>>()?;
    let hosts: Vec<String> = members.iter().map(Member::host).collect();
    let query = if options.replica_set { format!("?replicaSet={SET_NAME}") } else { String::new() };
    let uri = format!("mongodb://{}/{query}", hosts.join(","));
    Ok(Mongo { members, uri, replica_set: options.replica_set, _scratch: scratch })
}

fn member(index: usize, mongod: &Path, dir: &Path, options: &MongoOptions) -> Result<Member> {
    let data = dir.join("data");
    std::fs::create_dir_all(&data)?;
    let port = port::free()?;
    let (name, log) = (format!("mongod {index}"), dir.join("mongod.log"));
    let spec = match options.purpose {
        Purpose::Tests => Spec::new(name, mongod, log).args(["--wiredTigerCacheSizeGB", "0.5"]),
        // A tenth of what others get, where cores are short. `nice` becomes the program, under the
        // same process id.
        Purpose::Figures => Spec::new(name, "nice", log).args(["-n", "10"]).arg(mongod),
    };
    let mut spec = spec
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()])
        // Its socket file in the shared temporary directory would outlive a SIGKILL.
        .args(["--nounixsocket", "--dbpath"])
        .arg(&data)
        .dir(dir);
    if options.replica_set {
        spec = spec.args(["--replSet", SET_NAME]);
    }
    let daemon = Daemon::new(spec.args(&options.args));
    let proxy = options.behind_proxies.then(|| Proxy::start(port)).transpose()?;
    Ok(Member { daemon, address: format!("127.0.0.1:{port}"), proxy })
}
