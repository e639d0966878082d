//! The corpora of the fuzz targets, as a plain test: what was found once stays mended. They are
//! also damaged at random; `PROPTEST_CASES` says how often.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};

#[path = "../fuzz/targets.rs"]
mod targets;

/// What a mutation likes to put in.
const MORSELS: [&[u8]; 14] = [
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

struct Seed {
    target: targets::Target,
    path: String,
    bytes: Vec<u8>,
}

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut seeds = Vec::new();
    for (name, target) in targets::TARGETS {
        let before = seeds.len();
        for entry in std::fs::read_dir(dir.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            seeds.push(Seed { target, path: path.display().to_string(), bytes });
        }
        assert!(seeds.len() > before, "{name} has no corpus");
    }
    seeds
});

#[test]
fn every_corpus_passes() {
    for Seed { target, path, bytes } in SEEDS.iter() {
        println!("{path}");
        target(bytes);
    }
}

#[derive(Debug, Clone)]
enum Mutation {
    Cut,
    Double,
    Replace(&'static [u8]),
    Flip(u8),
    Truncate,
}

fn some_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        Just(Mutation::Cut),
        Just(Mutation::Double),
        select(&MORSELS[..]).prop_map(Mutation::Replace),
        (0_u8..8).prop_map(Mutation::Flip),
        Just(Mutation::Truncate),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, at: Index, length: usize) {
    let at = at.index(bytes.len() + 1);
    let end = bytes.len().min(at + length);
    match mutation {
        Mutation::Cut => drop(bytes.drain(at..end)),
        Mutation::Double => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        Mutation::Replace(morsel) => drop(bytes.splice(at..end, morsel.iter().copied())),
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
    fn every_corpus_passes_damaged(
        seed: Index,
        mutations in prop::collection::vec((some_mutation(), any::<Index>(), 0..16_usize), 1..5),
    ) {
        let Seed { target, bytes, .. } = seed.get(&SEEDS);
        let mut damaged = bytes.clone();
        for (mutation, at, length) in &mutations {
            mutate(&mut damaged, mutation, *at, *length);
        }
        println!("{}", damaged.escape_ascii());
        target(&damaged);
    }
}
