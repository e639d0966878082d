//! Queries and statistics through the port, and the driver's limits for them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use eyego_log_core::{LogQuery, Timestamp};
use eyego_log_server::application::read_budget::ReadBudget;
use eyego_log_server::domain::read::ReadError;
use eyego_log_server::domain::repository::LogRepository;
use eyego_log_server::domain::stats::{GroupBy, StatsQuery};

use crate::data::{BUSY_USER, DAYS, HOUR, NEVER_DONE, RARE, START};
use crate::{Times, row};

/// A page that the benches ask for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Find {
    LatestOfUser,
    RareAction,
    NeverDone,
}

pub(crate) const FINDS: [Find; 3] = [Find::LatestOfUser, Find::RareAction, Find::NeverDone];

impl Find {
    fn query(self) -> LogQuery {
        let user = |user: &str| Some(user.to_owned());
        let (user_id, action) = match self {
            Self::LatestOfUser => (user("user-77"), None),
            Self::RareAction => (None, Some(RARE.to_owned())),
            Self::NeverDone => (user(BUSY_USER), Some(NEVER_DONE.to_owned())),
        };
        LogQuery { user_id, action, limit: 50, ..LogQuery::default() }
    }

    fn name(self) -> &'static str {
        match self {
            Self::LatestOfUser => "a user's latest 50",
            Self::RareAction => "latest 50 of an action of 1 in 100,000",
            Self::NeverDone => "an action that a user with 2,000 events never did",
        }
    }

    fn goal(self) -> &'static str {
        match self {
            Self::LatestOfUser => "1.3 ×",
            Self::RareAction | Self::NeverDone => "1.5 ×",
        }
    }
}

/// What the port needed.
pub(crate) struct Measured {
    finds: Vec<(Find, usize, Times)>,
    stats: Times,
    /// The time limit of a read stopped the statistics.
    is_stopped: bool,
}

/// The driver's own queries. Each returns the number of rows.
pub(crate) trait Driver {
    async fn find(&mut self, find: Find) -> Result<usize>;
    /// Counts events by hour and action.
    async fn counts(&mut self) -> Result<()>;
    /// Finds the number of users of each action, and of all.
    async fn users(&mut self) -> Result<()>;
}

/// Runs all queries through the port.
pub(crate) async fn measure(repository: &dyn LogRepository) -> Result<Measured> {
    let budget = ReadBudget::new(1 << 30);
    let mut finds = Vec::new();
    for find in FINDS {
        let (query, mut rows) = (find.query(), 0);
        let times = Times::measure(async || {
            let memory = budget.start()?;
            rows = repository.find(&query, memory as Arc<_>).await?.entries.len();
            Ok(())
        });
        let times = times.await?;
        finds.push((find, rows, times));
    }
    let at = |hours| Timestamp::from_millis_clamped(START + hours * HOUR);
    let hours = DAYS * 24;
    let query = StatsQuery {
        filter: LogQuery { from: Some(at(0)), to: Some(at(hours)), ..LogQuery::default() },
        starts: (0..hours).map(at).collect(),
        by: Some(GroupBy::Action),
        top: 10,
    };
    let mut is_stopped = false;
    let stats = Times::measure(async || {
        match repository.stats(&query, budget.start()? as Arc<_>).await {
            Ok(stats) => ensure!(stats.total > 0 && stats.top.len() == 10, "{stats:?}"),
            Err(ReadError::TimedOut(_)) => is_stopped = true,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    });
    Ok(Measured { finds, stats: stats.await?, is_stopped })
}

/// Measures the limits and prints the table.
pub(crate) async fn compare(measured: Measured, driver: &mut impl Driver) -> Result<()> {
    for (find, rows, times) in measured.finds {
        let mut found = 0;
        let limit = Times::measure(async || {
            found = driver.find(find).await?;
            Ok(())
        });
        let limit = limit.await?;
        ensure!(found == rows, "{}: {rows} rows, and {found} by the driver", find.name());
        row(find.name(), &times, &limit, find.goal());
    }
    let counts = Times::measure(async || driver.counts().await).await?;
    row("statistics by hour and action, against the counts alone", &measured.stats, &counts, "");
    let both = Times::measure(async || {
        driver.counts().await?;
        driver.users().await
    });
    let (name, goal) = ("statistics by hour and action, against counts and users", "1.2 ×");
    row(name, &measured.stats, &both.await?, goal);
    if measured.is_stopped {
        println!("\nStatistics were stopped by the time limit of a read.");
    }
    Ok(())
}
