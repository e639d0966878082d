//! See `stack::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stack::fuzz::run("body", bytes));
