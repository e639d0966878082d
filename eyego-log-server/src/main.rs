//! The `eyego-log-server` binary.

use std::process::ExitCode;

use eyego_log_server::cli::Cli;
use eyego_log_server::config::ConfigError;

/// Also serves librdkafka, `SQLite` and zstd. ADR 0006 explains the choice.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(ConfigError::CommandLine(error)) => error.exit(),
        Err(error) => return fail(&error.into()),
    };
    cli.run().map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "logging may not have started yet")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
