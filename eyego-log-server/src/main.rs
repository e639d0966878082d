//! The `eyego-log-server` binary.

use std::process::ExitCode;

use clap::Parser;
use eyego_log_server::cli::Cli;

/// Also serves librdkafka, `SQLite` and zstd. ADR 0006 explains the choice.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::print_stderr, reason = "errors at startup are for the user of the terminal")]
fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
