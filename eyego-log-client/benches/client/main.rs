//! The CPU cost of the client: of a call to `log`, with several threads, of
//! encoding, and of the whole way to a server that only counts events. Each is
//! compared with a baseline in the same run.
//!
//! `cargo bench -p eyego-log-client [-- enqueue|contention|flushes|encode|delivery]`.
//! Add `--features spool` to include the spool. `instructions` is for callgrind.
//!
//! All times are CPU times of the calling threads or of this process, because
//! other load on the machine affects them little. The counting server is a
//! separate process.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::exit,
    reason = "a benchmark prints its results and stops if something is wrong"
)]

mod clocks;
mod contention;
mod counting;
mod delivery;
mod encode;
mod enqueue;
mod events;
mod flushes;
mod server;

fn main() {
    if std::env::var_os(server::COUNTING_SERVER).is_some() {
        return server::count_forever();
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if is_wanted("enqueue") {
        enqueue::enqueue();
    }
    if wanted.iter().any(|wanted| wanted == "instructions") {
        enqueue::instructions();
    }
    if is_wanted("contention") {
        contention::contention();
    }
    if is_wanted("flushes") {
        flushes::flushes();
    }
    if is_wanted("encode") {
        encode::encode();
    }
    if is_wanted("delivery") {
        delivery::delivery();
    }
}
