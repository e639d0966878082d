//! The binary: reads the configuration and does what it says.

use clap::Parser;
use eyego_log_server::config::{Cli, Command};
use eyego_log_server::{app, probe, telemetry};

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve);
    let config = cli.resolve()?;
    match command {
        Command::Serve => {
            telemetry::start(&config)?;
            app::run(config)
        }
        Command::Health => probe::ready(&config.http.listen),
    }
}
