//! The tasks of retention and erasure.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Parts;
use crate::application::removal::{RemovalStatus, Remover, RemoverOptions, SETTLED_AFTER};

/// The running tasks. Dropping it stops them; the next process continues.
pub(super) struct RemovalTasks {
    _tasks: JoinSet<()>,
    /// `None` in a process that does not delete.
    pub(super) status: Option<Arc<RemovalStatus>>,
}

impl RemovalTasks {
    /// Keeps the list of erased users current, and deletes if this process has a
    /// worker.
    pub(super) fn start(parts: &Parts, has_worker: bool) -> Self {
        let mut tasks = JoinSet::new();
        let (tombstones, erasures) = (Arc::clone(&parts.tombstones), Arc::clone(&parts.erasures));
        tasks.spawn(async move { tombstones.keep_current(&*erasures).await });
        let status = has_worker.then(Arc::<RemovalStatus>::default);
        if let Some(status) = &status {
            let options = RemoverOptions {
                retention: Arc::clone(&parts.retention),
                settled_after: SETTLED_AFTER,
            };
            let remover = Remover::new(
                Arc::clone(&parts.removal),
                Arc::clone(&parts.dead_letters),
                Arc::clone(&parts.erasures),
                Arc::clone(status),
                options,
            );
            tasks.spawn(async move { remover.run().await });
        }
        Self { _tasks: tasks, status }
    }
}
