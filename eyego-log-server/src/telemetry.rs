//! Log lines, to standard error. No personal data is logged: ids, counts and
//! reasons only.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Logs from here on.
///
/// # Errors
/// The filter makes no sense, or logging was set up before.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| anyhow::anyhow!("EYEGO_LOG is no filter: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot log: {error}"))
}
