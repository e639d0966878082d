//! The commands that make members a replica set and ask how they are, through the driver.
//!
//! Each call has a client of its own: a client lives on the runtime that made it, and each test
//! has a runtime of its own.

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

/// Asks one member, whatever its state.
async fn ask(address: &str, command: Document) -> ::mongodb::error::Result<Document> {
    let uri = format!("mongodb://{address}/?directConnection=true");
    client(&uri).await?.database("admin").run_command(command).await
}

async fn hello(address: &str, field: &str) -> Result<bool> {
    let answer = ask(address, doc! { "hello": 1 }).await?;
    Ok(answer.get_bool(field).unwrap_or(false))
}

pub(super) async fn ping(address: &str) -> Result<()> {
    ask(address, doc! { "ping": 1 }).await?;
    Ok(())
}

pub(super) async fn is_primary(address: &str) -> Result<bool> {
    hello(address, "isWritablePrimary").await
}

/// Succeeds when the member is primary or secondary.
pub(super) async fn serving(address: &str) -> Result<()> {
    ensure!(
        is_primary(address).await? || hello(address, "secondary").await?,
        "neither primary nor secondary"
    );
    Ok(())
}

/// Makes the members, known to one another as `hosts`, a replica set; one that exists stays as it
/// is. The command goes to one of them at its own address.
pub(super) async fn initiate(address: &str, name: &str, hosts: &[String]) -> Result<()> {
    let members: Vec<Document> =
        (0..).zip(hosts).map(|(id, host): (i32, _)| doc! { "_id": id, "host": host }).collect();
    // A dead primary is replaced within seconds, not after the default of 10 s.
    let settings = doc! { "electionTimeoutMillis": 3_000, "heartbeatIntervalMillis": 500 };
    let config = doc! { "_id": name, "members": members, "settings": settings };
    match ask(address, doc! { "replSetInitiate": config }).await {
        Err(error) if code(&error) == Some(ALREADY_INITIALIZED) => Ok(()),
        answer => answer.map(drop).context("replSetInitiate failed"),
    }
}

/// Writes into a database of our own with `w: majority`.
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
    // Without `force` a set of one, which has nobody to follow, would refuse.
    ask(
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
