//! Queues.

mod answers;
pub mod kafka;
pub mod spool;
pub mod sqlite;

/// Bytes that nothing makes fewer: what repeats itself is packed to nothing.
#[cfg(test)]
fn noise(length: u32) -> Vec<u8> {
    let sqlite = rusqlite::Connection::open_in_memory().unwrap();
    sqlite.query_row("SELECT randomblob(?1)", [length], |row| row.get(0)).unwrap()
}
