//! Serializing and compressing without a client.

use crate::clocks::thread_cpu;
use crate::delivery::USERS;
use crate::events::{PLAIN, Plain};

/// Measures serializing and compressing batches of 500 events, without a client.
pub(crate) fn encode() {
    const BATCHES: u32 = 2000;

    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    let (mut batch, mut compressed) = (Vec::new(), Vec::with_capacity(1 << 20));
    let begin = thread_cpu();
    for _ in 0..BATCHES {
        batch.clear();
        for n in 0..500 {
            line(n, &mut batch);
        }
    }
    let written = thread_cpu();
    for _ in 0..BATCHES {
        compressed.clear();
        compressor.compress_to_buffer(&batch, &mut compressed).unwrap();
    }
    let done = thread_cpu();
    println!(
        "encode: serde_json {:.2} CPU-s/M, zstd-1 {:.2} CPU-s/M (a batch of {} bytes is compressed to {})",
        (written - begin).as_secs_f64(),
        (done - written).as_secs_f64(),
        batch.len(),
        compressed.len(),
    );
}

pub(crate) fn line(n: u32, out: &mut Vec<u8>) {
    let timestamp = format!("2026-01-14T23:58:05.{:03}Z", n % 1000);
    let id = format!("69682d8d81847b87ab{n:06x}");
    let user = USERS[n as usize % USERS.len()];
    let event = Plain { id: &id, timestamp: &timestamp, user_id: user, ..PLAIN };
    serde_json::to_writer(&mut *out, &event).unwrap();
    out.push(b'\n');
}
