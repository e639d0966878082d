//! The vocabulary of the project: no source file and no document uses a retired word.
//!
//! One thing has one name everywhere, and the name is the term of the field.

use std::fmt::Write as _;

use crate::sources::{Source, read_below};

/// Retired words and phrases, and what to write instead. They match in prose and in identifiers:
/// `set aside` also finds `set_aside` and `SetAside`.
const RETIRED: &[(&str, &str)] = &[
    ("lane", "per-core runtime"),
    ("lanes", "per-core runtimes, `RuntimePool`"),
    ("desk", "pending table"),
    ("watchman", "`ConnectionReaper`"),
    ("gives way", "(removed: storing no longer yields to requests)"),
    ("give way", "(removed: storing no longer yields to requests)"),
    ("gave way", "(removed: storing no longer yields to requests)"),
    ("deferral", "(removed: storing no longer yields to requests)"),
    ("dead letter office", "`DeadLetterService`"),
    ("fate", "outcome"),
    ("fates", "outcomes"),
    ("ledger", "accounting (client), ack log (chaos)"),
    ("unload", "spill"),
    ("calm", "recovery checks, pause"),
    ("judge", "oracle (chaos); otherwise check, validate, classify"),
    ("judges", "checks, validates, classifies"),
    ("judged", "checked, validated, classified"),
    ("complaint", "violation"),
    ("complaints", "violations"),
    ("complain", "report a violation"),
    ("drill", "scenario"),
    ("drills", "scenarios"),
    ("laws", "invariants"),
    ("nonsense", "`UnexpectedResponse`; otherwise invalid"),
    ("merger", "checkpointer"),
    ("inbox", "submissions"),
    ("outbox", "sender half"),
    ("set aside", "quarantine"),
    ("sets aside", "quarantines"),
    ("salvage", "recover"),
    ("salvaged", "recovered"),
    ("taken over", "imported"),
    ("given back", "released"),
    ("give back", "release"),
    ("gives back", "releases"),
    ("patience", "timeout"),
    ("bell", "notify"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed, repaired"),
    ("mending", "fixing"),
    ("minted", "generated"),
    ("under way", "in flight"),
    ("the seed", "the legacy service; or: the random seed"),
    ("so many", "up to N, this many"),
];

/// Retired identifiers, which are ordinary words otherwise.
const RETIRED_IDENTIFIERS: &[(&str, &str)] = &[
    ("Answers", "`CompletionRouter`"),
    ("Halve", "`SplitBatch`"),
    ("Unencoded", "`DisableCompression`"),
    ("OURS", "`RESERVED_PROPERTIES`"),
    ("EYEGO_WORKER_MAX_DELAY", "(removed)"),
];

/// Where a retired word is allowed: the end of a path (a file) or a part of it (a directory), the
/// word, and the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("tests/cases/language.rs", "", "this list"),
    ("docs/adr/", "", "decision records name what was removed"),
    ("CHANGELOG.md", "", "it names what was renamed and removed"),
];

/// Splits identifiers into words and lowers the case: `set_aside` and `SetAside` become `set aside`.
fn words(line: &str) -> String {
    let mut words = String::with_capacity(line.len() + 8);
    let mut previous = ' ';
    for c in line.chars() {
        if c.is_uppercase() && (previous.is_lowercase() || previous.is_ascii_digit()) {
            words.push(' ');
        }
        let is_separator = c == '_' || c == '-' || c.is_whitespace();
        words.extend(if is_separator { ' ' } else { c }.to_lowercase());
        previous = c;
    }
    words
}

/// Returns whether the text contains the phrase, not as a part of a longer word.
fn contains(text: &str, phrase: &str, is_part_of_word: fn(char) -> bool) -> bool {
    text.match_indices(phrase).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + phrase.len()..].chars().next();
        !before.is_some_and(is_part_of_word) && !after.is_some_and(is_part_of_word)
    })
}

/// Returns whether the text has a `letter` that is not a dead letter. Alphabets (`letters and digits`)
/// are exempt.
fn has_bare_letter(text: &str) -> bool {
    let bare = |(start, _): (usize, &str)| {
        let is_word = !text[..start].ends_with(char::is_alphanumeric);
        is_word && !text[..start].trim_end().ends_with("dead")
    };
    let ends = |word: &str| contains(text, word, char::is_alphanumeric);
    (ends("letter") || ends("letters"))
        && text.match_indices("letter").any(bare)
        && !text.contains("digit")
        && !text.contains("case letter")
}

/// Returns a line as words, without the marks of a comment or a list.
fn stripped_words(line: &str) -> String {
    words(line.trim_start().trim_start_matches(['/', '!', '*', '#', '-', ' ']))
}

fn retired_words(source: &Source) -> Vec<(usize, &'static str, &'static str)> {
    let path = source.path.to_string_lossy();
    let is_allowed = |word: &str| {
        ALLOWED.iter().any(|(of, allowed, _)| {
            (path.ends_with(of) || (of.ends_with('/') && path.contains(of)))
                && (allowed.is_empty() || *allowed == word)
        })
    };
    let mut found = Vec::new();
    // The end of the line before, because a phrase may be wrapped.
    let mut tail = String::new();
    for (number, line) in source.lines() {
        let words = stripped_words(line);
        let text = format!("{tail} {words}");
        let is_part_of_word = char::is_alphanumeric;
        for (phrase, instead) in RETIRED {
            if contains(&text, phrase, is_part_of_word) && !contains(&tail, phrase, is_part_of_word)
            {
                found.push((number, *phrase, *instead));
            }
        }
        let is_identifier = |c: char| c.is_alphanumeric() || c == '_';
        for (identifier, instead) in RETIRED_IDENTIFIERS {
            if contains(line, identifier, is_identifier) {
                found.push((number, *identifier, *instead));
            }
        }
        if has_bare_letter(&text) && !has_bare_letter(&tail) {
            found.push((number, "letter", "dead letter"));
        }
        let last: Vec<_> = words.split_whitespace().rev().take(2).collect();
        tail = last.into_iter().rev().collect::<Vec<_>>().join(" ");
    }
    found.retain(|(_, word, _)| !is_allowed(word));
    found
}

#[test]
fn no_file_uses_a_retired_word() {
    let mut report = String::new();
    let mut count = 0;
    for source in read_below("", &["rs", "md", "toml", "yml", "yaml"]) {
        for (number, word, instead) in retired_words(&source) {
            count += 1;
            let path = source.path.display();
            writeln!(report, "{path}:{number}: \"{word}\": write {instead}").unwrap();
        }
    }
    assert!(count == 0, "{count} retired words:\n{report}");
}

#[test]
fn retired_words_are_found_in_prose_and_identifiers() {
    let found = |text: &str| {
        let source = Source { path: "a.rs".into(), text: text.to_owned() };
        retired_words(&source).into_iter().map(|(_, word, _)| word).collect::<Vec<_>>()
    };
    assert_eq!(found("the record is set aside"), ["set aside"]);
    assert_eq!(found("counts.set_aside += 1"), ["set aside"]);
    assert_eq!(found("struct SetAside;"), ["set aside"]);
    assert_eq!(found("/// the record is set\n/// aside, as\n/// planned"), ["set aside"]);
    assert_eq!(found("the letter's reason"), ["letter"]);
    assert_eq!(found("a dead\n/// letter; a letter"), ["letter"]);
    assert_eq!(found("DeadLetterOffice::new()"), ["dead letter office"]);
    assert_eq!(found("use Answers;"), ["Answers"]);
    assert_eq!(found("a dead letter; letters and digits; recommend; planes; answers"), [""; 0]);
    assert_eq!(found("the random seed; AnswersOf"), [""; 0]);
}
