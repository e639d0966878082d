//! The addresses that the process listens on, and what it serves on each.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::access::{check_exposure, is_loopback};
use crate::config::Config;
use crate::interface::http::{
    Access, Api, Bound, Connections, Guard, Operations, Tls, bind, routes,
};

/// Variables that contain an address.
const LISTEN: &str = "EYEGO_LISTEN";
const OPERATIONS: &str = "EYEGO_OPERATIONS_LISTEN";

/// Bound addresses that do not accept connections yet.
pub(super) struct Listeners {
    main: Bound,
    /// The address for health and metrics, if it is not `main`.
    operations: Option<Bound>,
}

impl Listeners {
    /// Binds the configured addresses.
    ///
    /// # Errors
    /// Returns an error if an address is in use, or if other hosts can reach it and
    /// nothing says who may use it.
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let listen = &config.http.listen;
        match &config.access.operations_listen {
            // A worker serves nothing else.
            Some(operations) if !config.role.has_api() => Ok(Self {
                main: bind_checked(OPERATIONS, operations, config).await?,
                operations: None,
            }),
            Some(operations) => Ok(Self {
                main: bind_checked(LISTEN, listen, config).await?,
                operations: Some(bind_checked(OPERATIONS, operations, config).await?),
            }),
            None => {
                Ok(Self { main: bind_checked(LISTEN, listen, config).await?, operations: None })
            }
        }
    }

    /// Returns the address that callers use.
    pub(super) fn address(&self) -> SocketAddr {
        self.main.address()
    }

    /// Limits the connections of the address that callers use. Health and metrics on
    /// an address of their own have a limit of their own.
    pub(super) fn with_limit(self, connections: Arc<Connections>) -> Self {
        Self { main: self.main.with_limit(connections), ..self }
    }

    /// Serves until `stop` becomes true. The tasks end once all requests in flight
    /// have ended.
    pub(super) fn serve(
        self,
        api: Option<Arc<Api>>,
        operations: Operations,
        access: &Arc<Access>,
        tls: Option<&Tls>,
        runtimes: &[Handle],
        stop: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let guard = |bound: &Bound, api: Option<&Arc<Api>>| {
            let ingest = api.map(|api| Arc::clone(api.ingest.counters()));
            Guard::new(Arc::clone(access), is_loopback(bound.address()), ingest)
        };
        let guard_of_main = guard(&self.main, api.as_ref());
        let mut listening = Vec::new();
        let of_main = match self.operations {
            Some(bound) => {
                tracing::info!(address = %bound.address(), "listening for operations");
                let guard = guard(&bound, None);
                listening.push((bound, routes(None, Some(operations), guard)));
                None
            }
            None => Some(operations),
        };
        listening.push((self.main, routes(api, of_main, guard_of_main)));
        let runtimes: Arc<[Handle]> = runtimes.into();
        let mut serving = JoinSet::new();
        for (bound, routes) in listening {
            let bound = bound.with_tls(tls.cloned());
            let (runtimes, stop) = (Arc::clone(&runtimes), stop.clone());
            serving.spawn(async move { bound.serve(routes, &runtimes, stop).await });
        }
        serving
    }
}

/// Binds the address that a variable contains.
async fn bind_checked(variable: &str, address: &str, config: &Config) -> anyhow::Result<Bound> {
    let bound =
        bind(address).await.with_context(|| format!("{variable}: cannot listen on {address}"))?;
    check_exposure(&config.access, bound.address())?;
    Ok(bound)
}
