//! Runs the fuzz targets on their corpora, as a plain test, so that fixed bugs stay fixed. Also runs
//! them on damaged corpora; `PROPTEST_CASES` sets how often.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use stack::fuzz::{TARGETS, Target};

/// Bytes that a mutation inserts.
const TOKENS: [&[u8]; 14] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b",",
    b"null",
    b"1e999",
    b"\\ud800",
    b"\\u0000",
    b"\xff",
    b"\n",
    b"\0\0\0\0",
    b"-",
];

struct Input {
    target: Target,
    path: String,
    bytes: Vec<u8>,
}

static INPUTS: LazyLock<Vec<Input>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs = Vec::new();
    for (name, target) in TARGETS {
        let before = inputs.len();
        for entry in std::fs::read_dir(dir.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            inputs.push(Input { target, path: path.display().to_string(), bytes });
        }
        assert!(inputs.len() > before, "target {name} has no corpus");
    }
    inputs
});

#[test]
fn every_corpus_passes() {
    for Input { target, path, bytes } in INPUTS.iter() {
        println!("{path}");
        target(bytes);
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Cut,
    Repeat,
    Replace(&'static [u8]),
    Flip(u8),
    Truncate,
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        Just(Mutation::Cut),
        Just(Mutation::Repeat),
        select(&TOKENS[..]).prop_map(Mutation::Replace),
        (0_u8..8).prop_map(Mutation::Flip),
        Just(Mutation::Truncate),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, at: Index, length: usize) {
    let at = at.index(bytes.len() + 1);
    let end = bytes.len().min(at + length);
    match mutation {
        Mutation::Cut => drop(bytes.drain(at..end)),
        Mutation::Repeat => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        Mutation::Replace(token) => drop(bytes.splice(at..end, token.iter().copied())),
        Mutation::Flip(bit) => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Mutation::Truncate => bytes.truncate(at),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_damaged_corpus_passes(
        input: Index,
        mutations in prop::collection::vec((any_mutation(), any::<Index>(), 0..16_usize), 1..5),
    ) {
        let Input { target, bytes, .. } = input.get(&INPUTS);
        let mut damaged = bytes.clone();
        for (mutation, at, length) in &mutations {
            mutate(&mut damaged, mutation, *at, *length);
        }
        println!("{}", damaged.escape_ascii());
        target(&damaged);
    }
}
