//! The embedded store, and SQLite itself.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use eyego_log_server::domain::repository::LogRepository as _;
use eyego_log_server::infrastructure::embedded::DataDir;
use eyego_log_server::infrastructure::repository::sqlite::{SqliteRepository, SqliteStore};
use rusqlite::Connection;
use stack::server::Server;

use crate::data::{self, BUSY_USER, HOUR, NEVER_DONE, RARE};
use crate::queries::{self, Driver, Find, Measured};
use crate::{Selection, head, server, tails};

const IDEAL: [(&str, &str); 3] = [
    ("ideal_user", "user_id, timestamp, id"),
    ("ideal_action", "action, timestamp, id"),
    ("ideal_user_action", "user_id, action, timestamp, id"),
];

pub(crate) async fn run(selected: &Selection, events: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("store.db");
    let measured = {
        let data_dir = DataDir::open(dir.path())?;
        let store = SqliteStore::open(&data_dir)?;
        let repository = SqliteRepository::new(store.clone());
        let began = Instant::now();
        for bulk in data::bulks(events, 5_000) {
            repository.store(&bulk?).await?;
        }
        println!("stored {:.0}/s", events as f64 / began.elapsed().as_secs_f64());
        let measured = match selected.contains("queries") {
            true => Some(queries::measure(&repository).await?),
            false => None,
        };
        store.close(Instant::now() + Duration::from_secs(60)).await;
        measured
    };
    if let Some(measured) = measured {
        compare(measured, &file, events).await?;
    }
    let running = Server::builder().data_dir(dir.path()).start().await?;
    if selected.contains("export") {
        server::export(&running, events, |socket| raw_export(&file, socket)).await?;
    }
    if selected.contains("delay") {
        tails::delay(&running).await?;
    }
    server::ingest_beside_readers(selected, &running).await?;
    drop(running);
    if selected.contains("memory") {
        tails::memory(Server::builder().data_dir(dir.path())).await?;
    }
    Ok(())
}

/// Compares queries with the same ones in SQL, with the ideal indexes.
async fn compare(measured: Measured, file: &Path, events: u64) -> Result<()> {
    head("embedded", events);
    let mut driver = Sqlite(Connection::open(file)?);
    for (name, columns) in IDEAL {
        driver.0.execute_batch(&format!("CREATE INDEX {name} ON logs ({columns})"))?;
    }
    queries::compare(measured, &mut driver).await?;
    for (name, _) in IDEAL {
        driver.0.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    Ok(())
}

struct Sqlite(Connection);

impl Sqlite {
    fn rows(&self, sql: &str) -> Result<usize> {
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                let _: rusqlite::types::Value = row.get(column)?;
            }
            count += 1;
        }
        Ok(count)
    }
}

impl Driver for Sqlite {
    async fn find(&mut self, find: Find) -> Result<usize> {
        let (index, condition) = match find {
            Find::LatestOfUser => ("ideal_user", "user_id = 'user-77'".to_owned()),
            Find::RareAction => ("ideal_action", format!("action = '{RARE}'")),
            Find::NeverDone => (
                "ideal_user_action",
                format!("user_id = '{BUSY_USER}' AND action = '{NEVER_DONE}'"),
            ),
        };
        self.rows(&format!(
            "SELECT id, user_id, action, timestamp, received_at, metadata FROM logs \
             INDEXED BY {index} WHERE {condition} ORDER BY timestamp DESC, id DESC LIMIT 50"
        ))
    }

    async fn counts(&mut self) -> Result<()> {
        let sql = format!(
            "SELECT timestamp / {HOUR}, action, count(*) FROM logs \
             WHERE timestamp >= 0 GROUP BY 1, 2"
        );
        self.rows(&sql).map(drop)
    }

    async fn users(&mut self) -> Result<()> {
        let sql = "SELECT action, count(DISTINCT user_id) FROM logs GROUP BY action";
        self.rows(sql)?;
        self.rows("SELECT count(DISTINCT user_id) FROM logs").map(drop)
    }
}

/// Writes all rows as JSON in the order of an export, without any escaping.
fn raw_export(file: &Path, socket: TcpStream) -> Result<()> {
    let connection = Connection::open(file)?;
    let mut output = std::io::BufWriter::with_capacity(64 << 10, socket);
    let mut statement = connection.prepare(
        "SELECT hex(id), user_id, action, timestamp, metadata FROM logs INDEXED BY logs_by_time \
         ORDER BY timestamp DESC, id DESC",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?));
        writeln!(
            output,
            r#"{{"id":"{}","userId":"{}","action":"{}","timestamp":{},"metadata":{}}}"#,
            text(0)?,
            text(1)?,
            text(2)?,
            row.get::<_, i64>(3)?,
            text(4)?
        )?;
    }
    output.flush().context("the reader hung up")
}
