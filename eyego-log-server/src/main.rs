//! The `eyego-log-server` binary.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use eyego_log_server::cli::Cli;
use eyego_log_server::config::ConfigError;

/// Also serves librdkafka, `SQLite` and zstd. ADR 0006 explains the choice.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Time to print the error that ends the process.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match Cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(ConfigError::CommandLine(error)) => error.exit(),
        Err(error) => return fail(&error.into()),
    };
    cli.run().map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// Prints the error, unless standard error is not read.
fn fail(error: &anyhow::Error) -> ExitCode {
    let line = format!("error: {}\n", describe(error));
    let (done, printed) = mpsc::channel();
    std::thread::spawn(move || done.send(std::io::stderr().write_all(line.as_bytes())));
    // Exits all the same if printing fails or takes too long.
    let _ = printed.recv_timeout(PRINT_TIMEOUT);
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
