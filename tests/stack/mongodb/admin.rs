//! The commands that initiate a replica set and query the state of its members.
//!
//! Each call creates a client, because a client is bound to the runtime that created it and each
//! test has its own runtime.

use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::bson::{Document, doc};
use ::mongodb::error::ErrorKind;
use ::mongodb::options::{ClientOptions, WriteConcern};
use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(2);
const ALREADY_INITIALIZED: i32 = 23;

async fn client(uri: &str) -> ::mongodb::error::Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    options.server_selection_timeout = Some(TIMEOUT);
    options.connect_timeout = Some(TIMEOUT);
    Client::with_options(options)
}

/// Runs a command on one member, whatever its state.
async fn run(address: &str, command: Document) -> ::mongodb::error::Result<Document> {
    let uri = format!("mongodb://{address}/?directConnection=true");
    client(&uri).await?.database("admin").run_command(command).await
}

async fn hello(address: &str, field: &str) -> Result<bool> {
    let reply = run(address, doc! { "hello": 1 }).await?;
    Ok(reply.get_bool(field).unwrap_or(false))
}

pub(super) async fn ping(address: &str) -> Result<()> {
    run(address, doc! { "ping": 1 }).await?;
    Ok(())
}

pub(super) async fn is_primary(address: &str) -> Result<bool> {
    hello(address, "isWritablePrimary").await
}

/// Returns an error unless the member is primary or secondary.
pub(super) async fn serves(address: &str) -> Result<()> {
    ensure!(
        is_primary(address).await? || hello(address, "secondary").await?,
        "it is neither primary nor secondary"
    );
    Ok(())
}

/// Initiates a replica set whose members have the addresses `hosts`, unless that has been done. The
/// command goes to the member at `address`.
pub(super) async fn initiate(address: &str, name: &str, hosts: &[String]) -> Result<()> {
    let members: Vec<Document> =
        (0..).zip(hosts).map(|(id, host): (i32, _)| doc! { "_id": id, "host": host }).collect();
    // A dead primary is replaced sooner than after the default of 10 s.
    let settings = doc! { "electionTimeoutMillis": 3_000, "heartbeatIntervalMillis": 500 };
    let config = doc! { "_id": name, "members": members, "settings": settings };
    match run(address, doc! { "replSetInitiate": config }).await {
        Err(error) if code(&error) == Some(ALREADY_INITIALIZED) => Ok(()),
        reply => reply.map(drop).context("replSetInitiate failed"),
    }
}

/// Writes into the harness's own database with `w: majority`.
pub(super) async fn majority_write(uri: &str) -> Result<()> {
    let concern = WriteConcern::builder()
        .w(::mongodb::options::Acknowledgment::Majority)
        .w_timeout(TIMEOUT)
        .build();
    client(uri)
        .await?
        .database("stack")
        .collection::<Document>("ready")
        .update_one(doc! { "_id": 1 }, doc! { "$inc": { "starts": 1 } })
        .upsert(true)
        .write_concern(concern)
        .await?;
    Ok(())
}

pub(super) async fn step_down(address: &str, period: Duration) -> Result<()> {
    let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX).max(1);
    let catch_up = (seconds - 1).min(5);
    // A set of one refuses without `force`, because it has no secondary.
    run(
        address,
        doc! { "replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": catch_up, "force": true },
    )
    .await
    .context("replSetStepDown failed")?;
    Ok(())
}

fn code(error: &::mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}
