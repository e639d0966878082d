//! Denies rights to all clients, and grants them again. librdkafka's binding has no requests for that, so they are
//! encoded here.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Result, ensure};
use stack::kafka::KafkaOptions;

/// What a right applies to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
}

/// Numbers of Kafka's protocol.
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const LITERAL: u8 = 3;
const ANY: u8 = 1;
const DENY: u8 = 2;
const ALLOW: u8 = 3;
const ALL: u8 = 2;

/// An operation that can be denied.
#[derive(Debug, Clone, Copy)]
pub(super) enum Right {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
}

/// Returns the options of a Kafka whose clients have every right that is not denied.
pub(super) fn with_authorizer() -> KafkaOptions {
    KafkaOptions::default()
        .property(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        .property("allow.everyone.if.no.acl.found", "true")
}

/// Denies a right to everybody. All others are granted.
pub(super) fn deny(broker: &str, resource: Resource<'_>, right: Right) {
    let mut body = 2_i32.to_be_bytes().to_vec();
    for (operation, permission) in [(ALL, ALLOW), (right as u8, DENY)] {
        put_resource(&mut body, resource);
        put_text(&mut body, "User:ANONYMOUS");
        put_text(&mut body, "*");
        body.extend([operation, permission]);
    }
    request(broker, CREATE_ACLS, &body).unwrap();
}

/// Grants everything again.
pub(super) fn grant_all(broker: &str, resource: Resource<'_>) {
    let mut body = 1_i32.to_be_bytes().to_vec();
    put_resource(&mut body, resource);
    // Any principal and any host.
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend([ANY, ANY]);
    request(broker, DELETE_ACLS, &body).unwrap();
}

fn put_resource(body: &mut Vec<u8>, resource: Resource<'_>) {
    let (kind, name) = match resource {
        Resource::Topic(name) => (2, name),
        Resource::Group(name) => (3, name),
        Resource::Cluster => (4, "kafka-cluster"),
    };
    body.push(kind);
    put_text(body, name);
    body.push(LITERAL);
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
}

/// Sends a request of version 1 and checks the code of each result that creates or deletes.
fn request(broker: &str, key: i16, body: &[u8]) -> Result<()> {
    let mut message = key.to_be_bytes().to_vec();
    message.extend(1_i16.to_be_bytes());
    message.extend(7_i32.to_be_bytes());
    put_text(&mut message, "operator");
    message.extend(body);
    let mut stream = TcpStream::connect(broker)?;
    stream.write_all(&i32::try_from(message.len())?.to_be_bytes())?;
    stream.write_all(&message)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut response = vec![0; usize::try_from(i32::from_be_bytes(size))?];
    stream.read_exact(&mut response)?;
    // After the correlation id, the throttle time and the number of results.
    ensure!(response.get(12..14) == Some(&[0, 0]), "request {key}: {response:?}");
    Ok(())
}
