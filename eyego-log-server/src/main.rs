//! The binary: reads the configuration and does what it says.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use eyego_log_server::config::{Cli, Command};
use eyego_log_server::{app, operate, telemetry};

/// Of what is allocated on one thread much is freed on another here; the
/// system's allocator is slow at that. This one serves librdkafka, `SQLite` and
/// zstd too, and a thread of its own gives back what a burst took, seconds after
/// it, whether anybody allocates or not.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::print_stderr, reason = "what keeps the program from running is for its user")]
fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut cli: Cli) -> anyhow::Result<()> {
    let command = cli.command.take().unwrap_or(Command::Serve);
    let config = cli.resolve()?;
    match command {
        Command::Serve => {
            telemetry::start(&config)?;
            app::run(config)
        }
        Command::Health => operate::ready(&config.http.listen),
        Command::DeadLetters(command) => {
            let answer = operate::dead_letters(&config.http.listen, &command)?;
            Ok(writeln!(std::io::stdout(), "{answer}")?)
        }
    }
}
