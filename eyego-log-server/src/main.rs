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
    eprintln!("error: {}", describe(error));
    ExitCode::FAILURE
}

/// Joins an error and its causes. A cause that a message already contains is not
/// repeated.
fn describe(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        text if text.contains(&cause) => text.to_owned(),
        text => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_not_printed_twice() {
        let error = Err::<(), _>(std::io::Error::other("disk"));
        let error = error.map_err(|e| anyhow::anyhow!(e).context("cannot open x: disk"));
        let error = error.context("EYEGO_DATA_DIR").unwrap_err();
        assert_eq!(describe(&error), "EYEGO_DATA_DIR: cannot open x: disk");
    }
}
