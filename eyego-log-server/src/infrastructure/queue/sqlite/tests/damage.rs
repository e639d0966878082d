//! Records that the disk altered or lost.

use super::*;

/// Counts the records of quarantined chunks.
fn quarantined(connection: &Connection) -> i64 {
    let sql = "SELECT coalesce(sum(records), 0) FROM quarantined";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn altered_record_is_lost_alone_and_its_chunk_quarantined() {
    let (dir, queue) = fresh();
    for result in queue.append(batch(&[b"first", b"second", b"third"])).await {
        result.unwrap();
    }
    append(&queue, b"fourth").await.unwrap();
    let connection = file(dir.path());
    let alter = "UPDATE chunks SET bytes = CAST(replace(bytes, 'second', 'secund') AS BLOB)
        WHERE first_offset = 1";
    assert_eq!(connection.execute(alter, []).unwrap(), 1);

    let (records, lost) = read_with_losses(&mut *queue.subscribe().unwrap());
    assert_eq!(records, [(1, b"first".to_vec()), (3, b"third".to_vec()), (4, b"fourth".to_vec())]);
    assert_eq!(lost, 1);
    wait_until("the chunk is quarantined", || quarantined(&connection) == 3).await;
}

#[tokio::test]
async fn damaged_compressed_chunk_is_lost_and_quarantined() {
    let (dir, queue) = fresh();
    let values: Vec<_> = (0..100).map(|n| format!("{n}: {}", "activity ".repeat(10))).collect();
    let values: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
    for values in [&values[..], &[b"after"]] {
        for result in queue.append(batch(values)).await {
            result.unwrap();
        }
    }
    let connection = file(dir.path());
    let sql = "SELECT length(bytes) FROM chunks WHERE first_offset = 1";
    let bytes: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(bytes < 2_000, "{bytes} bytes for 9 kB of repetitive records");
    let cut = "UPDATE chunks SET bytes = substr(bytes, 1, 200) WHERE first_offset = 1";
    assert_eq!(connection.execute(cut, []).unwrap(), 1);

    let (records, lost) = read_with_losses(&mut *queue.subscribe().unwrap());
    assert_eq!(records, [(101, b"after".to_vec())]);
    assert_eq!(lost, 100);
    wait_until("the chunk is quarantined", || quarantined(&connection) == 100).await;
}

#[tokio::test]
async fn missing_records_are_counted_as_lost() {
    let (dir, queue) = fresh();
    for value in [b"first", b"other", b"third"] {
        append(&queue, value).await.unwrap();
    }
    let connection = file(dir.path());
    let deleted = connection.execute("DELETE FROM chunks WHERE first_offset = 2", []).unwrap();
    assert_eq!(deleted, 1);

    let (records, lost) = read_with_losses(&mut *queue.subscribe().unwrap());
    assert_eq!(records, [(1, b"first".to_vec()), (3, b"third".to_vec())]);
    assert_eq!(lost, 1);
}

#[tokio::test]
async fn damaged_fallback_is_quarantined_and_its_readable_records_imported() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        SqliteQueueOptions { name: "spool", is_fallback: true, ..SqliteQueueOptions::default() };
    let open = || SqliteQueue::open(&DataDir::open(dir.path()).unwrap(), options).unwrap();
    let queue = open();
    for n in 0..200_u32 {
        append(&queue, &[format!("{n}:").as_bytes(), &random_bytes(3_000)].concat()).await.unwrap();
    }
    let mut subscription = queue.subscribe().unwrap();
    subscription.commit(&[(0, 11)]).unwrap();
    drop(subscription);
    close(queue).await;
    let path = dir.path().join("spool.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // Damages pages of the B-tree; the values are in overflow pages.
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 64 * 1024].fill(0xAA);
    std::fs::write(&path, &bytes).unwrap();

    let queue = open();
    append(&queue, b"new").await.unwrap();
    let (records, lost) = read_with_losses(&mut *queue.subscribe().unwrap());
    assert_eq!(records.last().unwrap().1, b"new");
    let numbers: Vec<u32> = records
        .iter()
        .filter_map(|(_, value)| {
            let number = value.split(|byte| *byte == b':').next()?;
            std::str::from_utf8(number).ok()?.parse().ok()
        })
        .collect();
    assert!(numbers.len() > 50, "{numbers:?}");
    assert!(numbers.len() < 190, "{numbers:?}");
    assert!(numbers.is_sorted());
    let end = numbers.last().unwrap() + 1;
    assert_eq!(lost, u64::from(end - 10) - numbers.len() as u64, "{numbers:?}");
    assert!(numbers[0] >= 10, "committed records are not delivered again: {numbers:?}");
    let files = std::fs::read_dir(dir.path()).unwrap();
    let names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("spool.db.damaged-")), "{names:?}");
}
