//! Statistics: what MongoDB groups, and what is counted from the events instead.

use ::mongodb::bson::DateTime;
use ::mongodb::options::Hint;
use eyego_log_core::{LogQuery, Timestamp};
use eyego_log_server::domain::repository::LogRepository as _;
use eyego_log_server::domain::stats::{GroupBy, Stats, StatsQuery};
use futures_util::TryStreamExt as _;

use super::*;

const HOUR: i64 = 3_600_000;

/// Days of which one has only 23 hours.
fn starts() -> Vec<Timestamp> {
    [0, 24, 48, 71, 95].map(|hour| Timestamp::from_millis(hour * HOUR).unwrap()).to_vec()
}

fn many_entries() -> Vec<LogEntry> {
    (0..1_200_u32)
        .map(|n| {
            let (user, action) = (format!("user-{}", n % 70), format!("A{}", n % 13));
            entry(n, &user, &action, i64::from(n) * HOUR / 10, "{}")
        })
        .collect()
}

/// Returns the statistics by nothing, action and user, of all events, of a user and of an action.
async fn all_stats(store: &Store) -> Vec<Stats> {
    let mut found = Vec::new();
    for by in [None, Some(GroupBy::Action), Some(GroupBy::UserId)] {
        for (user_id, action) in [(None, None), (Some("user-7"), None), (None, Some("A3"))] {
            let filter = LogQuery {
                from: Some(starts()[0]),
                to: Timestamp::from_millis(119 * HOUR),
                user_id: user_id.map(str::to_owned),
                action: action.map(str::to_owned),
                ..LogQuery::default()
            };
            let query = StatsQuery { filter, starts: starts(), by: by.clone(), top: 5 };
            found.push(store.repository().stats(&query, unlimited()).await.unwrap());
        }
    }
    found
}

#[tokio::test]
async fn statistics_are_the_same_whoever_groups_the_events() {
    let store = Store::shared().await;
    store.repository().store(&many_entries()).await.unwrap();
    eventually("the indexes", TIMEOUT, async || {
        let names = store.logs().await.list_index_names().await?;
        ensure!(names.len() == 4, "{names:?}");
        for name in names {
            // An index that is still being built is listed, but cannot be used.
            store.logs().await.find_one(doc! {}).hint(Hint::Name(name)).await?;
        }
        Ok(())
    })
    .await
    .unwrap();
    let database = store.raw_database().await;
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    let grouped = all_stats(&store).await;
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    assert_eq!(grouped[0].total, 1_190);
    assert!(grouped.iter().all(|stats| !stats.is_approximate && stats.total > 0));
    // MongoDB groups them by an index alone.
    let profile = database.collection::<Document>("system.profile");
    let filter = doc! { "command.aggregate": "logs" };
    let profiled: Vec<_> = profile.find(filter).await.unwrap().try_collect().await.unwrap();
    assert_eq!(profiled.len(), 15, "one for the counts, and one for the users of other groups");
    for aggregate in profiled {
        assert_eq!(aggregate.get_i32("docsExamined").unwrap(), 0, "{aggregate}");
    }

    // Without the indexes, this program counts.
    let uri = Mongo::shared().await.unwrap().uri().to_owned();
    let without_indexes = Store::with(&uri, false);
    without_indexes.repository().store(&many_entries()).await.unwrap();
    assert_eq!(all_stats(&without_indexes).await, grouped);

    // Any document that is not an event is left out, also if it is the only one.
    let at = DateTime::from_millis(5 * HOUR);
    let not_events = [
        doc! { "_id": 7, "userId": "user-7", "action": "A3", "timestamp": at },
        doc! { "_id": "~", "userId": "user-7", "action": "A3", "timestamp": at },
        doc! { "userId": "", "action": "A3", "timestamp": at },
        doc! { "userId": 7, "action": "A3", "timestamp": at },
        doc! { "action": "A3", "timestamp": at },
        doc! { "userId": "user-7", "action": "", "timestamp": at },
        doc! { "userId": "user-7", "action": {}, "timestamp": at },
        doc! { "userId": "user-7", "timestamp": at },
        doc! { "userId": "user-7", "action": "A3", "timestamp": 7 },
    ];
    for document in not_events {
        let inserted = store.logs().await.insert_one(document).await.unwrap();
        assert_eq!(all_stats(&store).await, grouped);
        let filter = doc! { "_id": inserted.inserted_id };
        store.logs().await.delete_one(filter).await.unwrap();
    }

    // Arrays match like their elements, but are not events.
    let arrays = [
        doc! { "userId": ["user-7"], "action": "A3", "timestamp": at },
        doc! { "userId": "user-7", "action": ["A3"], "timestamp": at },
        doc! { "userId": "user-7", "action": "A3", "timestamp": [at] },
    ];
    for document in arrays {
        store.logs().await.insert_one(document).await.unwrap();
        assert_eq!(all_stats(&store).await, grouped);
    }
}
