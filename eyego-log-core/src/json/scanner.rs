//! The slow pass: finds every error of JSON text and its path.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::{LONE_SURROGATE, Rules, unquote_text};
use crate::field::{FieldErrors, Path};

/// Appends every error in `value`, which is at `path`, to `found`. Returns `true`
/// if an object in it repeats a key.
pub(crate) fn find_errors(
    value: &RawValue,
    path: Path<'_>,
    rules: Rules,
    found: &mut FieldErrors,
) -> bool {
    let mut scanner = Scanner::new(value.get(), rules, found);
    scanner.value(path, 0);
    scanner.repeats
}

/// Walks through the text of a JSON value from its beginning to its end, once. The
/// text is valid JSON, except for lone surrogates and numbers of any size.
struct Scanner<'t, 'f> {
    text: &'t str,
    at: usize,
    rules: Rules,
    found: &'f mut FieldErrors,
    /// Whether an object repeats a key.
    repeats: bool,
    /// Number of bytes that were looked at, each time they were.
    #[cfg(test)]
    visited: usize,
}

impl<'t, 'f> Scanner<'t, 'f> {
    fn new(text: &'t str, rules: Rules, found: &'f mut FieldErrors) -> Self {
        Self {
            text,
            at: 0,
            rules,
            found,
            repeats: false,
            #[cfg(test)]
            visited: 0,
        }
    }

    /// Scans a value with `depth` enclosing levels.
    fn value(&mut self, path: Path<'_>, depth: usize) {
        match self.peek() {
            Some(b'{' | b'[') if depth >= self.rules.max_depth => {
                let max = self.rules.max_depth;
                self.found.add(path, format_args!("must not be nested deeper than {max} levels"));
                self.skip_nested();
            }
            Some(b'{') => self.object(path, depth),
            Some(b'[') => self.array(path, depth),
            Some(b'"') => {
                let text = self.string();
                if self.unquote(text).is_none() {
                    self.found.add(path, LONE_SURROGATE);
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                let text = self.word();
                if let Some(reason) = check_number(text, self.rules) {
                    self.found.add(path, reason);
                }
            }
            _ => {
                self.word();
            }
        }
    }

    fn array(&mut self, path: Path<'_>, depth: usize) {
        self.advance(1);
        let mut index = 0;
        loop {
            match self.peek() {
                Some(b']') => return self.advance(1),
                Some(b',') => self.advance(1),
                Some(_) => {
                    self.value(Path::Index(&path, index), depth + 1);
                    index += 1;
                }
                None => return,
            }
        }
    }

    fn object(&mut self, path: Path<'_>, depth: usize) {
        self.advance(1);
        let mut seen = HashSet::new();
        loop {
            match self.peek() {
                Some(b'}') => return self.advance(1),
                Some(b'"') => {
                    let raw_key = self.string();
                    let key = self.unquote(raw_key);
                    let path = Path::Key(&path, key.as_deref().unwrap_or(raw_key));
                    match &key {
                        None => {
                            let reason = format_args!("is a key that {LONE_SURROGATE}");
                            self.found.add(path, reason);
                        }
                        Some(key) if key.contains('\0') => {
                            self.found.add(path, "is a key that must not contain U+0000");
                        }
                        Some(_) => {}
                    }
                    if key.as_ref().is_some_and(|key| !seen.insert(key.clone())) {
                        self.repeats = true;
                        if self.rules.unique_keys {
                            self.found.add(path, "must not be repeated in its object");
                        }
                    }
                    if self.peek() == Some(b':') {
                        self.advance(1);
                    }
                    self.value(path, depth + 1);
                }
                Some(_) => self.advance(1),
                None => return,
            }
        }
    }

    /// Skips an object or array without recursion: it may have any depth.
    fn skip_nested(&mut self) {
        let mut open = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.saturating_sub(1),
                _ => {}
            }
            self.advance(1);
            if open == 0 {
                return;
            }
        }
    }

    /// Returns the next byte that is not whitespace.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.advance(1);
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.visit(bytes);
    }

    /// Returns the string that begins here, with its quotes.
    fn string(&mut self) -> &'t str {
        let bytes = &self.text.as_bytes()[self.at..];
        let mut end = 1;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        self.take(end + 1)
    }

    /// Returns the number or literal that begins here.
    fn word(&mut self) -> &'t str {
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        // At least one byte, so that the scan advances whatever the text is.
        self.take(length.max(1))
    }

    fn take(&mut self, length: usize) -> &'t str {
        let taken = self.text.get(self.at..self.at + length);
        let taken = taken.unwrap_or(&self.text[self.at..]);
        self.advance(taken.len());
        taken
    }

    fn unquote(&mut self, string: &'t str) -> Option<Cow<'t, str>> {
        self.visit(string.len());
        // The text is UTF-8, so only an escape can be a surrogate.
        match string.get(1..string.len() - 1) {
            Some(inner) if !inner.contains('\\') => Some(Cow::Borrowed(inner)),
            _ => unquote_text(string),
        }
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "counts only in tests"))]
    fn visit(&mut self, bytes: usize) {
        #[cfg(test)]
        {
            self.visited += bytes;
        }
        #[cfg(not(test))]
        let _ = bytes;
    }
}

fn check_number(text: &str, rules: Rules) -> Option<&'static str> {
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer && text.parse::<i64>().is_ok() {
        return None;
    }
    let as_float: f64 = text.parse().unwrap_or(f64::INFINITY);
    if !as_float.is_finite() {
        return Some("must be a number that a 64-bit float can hold; send it as a string");
    }
    if is_integer && (rules.exact_integers || format!("{as_float}") != text) {
        return Some(
            "must be an integer from -9223372036854775808 to 9223372036854775807; \
             send a larger one as a string",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{for_each_member, is_plain, unquote};
    use super::*;

    const RULES: Rules = Rules { max_depth: 32, unique_keys: true, exact_integers: true };

    /// Returns the errors and the number of visited bytes.
    fn scan(text: &str, rules: Rules) -> (FieldErrors, usize) {
        let mut found = FieldErrors::new();
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let mut scanner = Scanner::new(raw.get(), rules, &mut found);
        scanner.value(Path::Field("metadata"), 0);
        assert_eq!(scanner.at, raw.get().len(), "the scan ends at the end");
        let visited = scanner.visited;
        (found, visited)
    }

    #[test]
    fn hostile_metadata_is_visited_once() {
        let zeros = vec!["0"; 100_000].join(",");
        let deep =
            format!("{{\"n\":1e999,\"b\":{}[{zeros}]{}}}", "{\"b\":".repeat(30), "}".repeat(30));
        let same_keys = format!("{{{}}}", vec!["\"\":0"; 50_000].join(","));
        let escaped_keys = format!("{{{}}}", vec!["\"\\u0061\":0"; 20_000].join(","));
        let too_deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let long_key = format!("{{\"{}\":1e999}}", "\\u0000".repeat(30_000));
        let long_number = format!("{{\"a\":{}}}", "9".repeat(200_000));
        for text in [deep, same_keys, escaped_keys, too_deep, long_key, long_number] {
            let (errors, visited) = scan(&text, RULES);
            assert!(!errors.is_empty() && errors.len() <= 21, "{errors}");
            assert!(visited <= 2 * text.len(), "{visited} of {} bytes", text.len());
            let printed = serde_json::to_string(&errors).unwrap().len();
            assert!(printed < 8 << 10, "{printed} bytes of errors");
        }
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "null",
            "true",
            "-0.5e3",
            "1e999",
            "9223372036854775808",
            r#""x,]}\\""#,
            r#""\ud800""#,
            r#""\ud83d\ude00""#,
            r#""\"{[""#,
        ]);
        let key = prop::sample::select(vec![
            r#""a""#,
            r#""\u0061""#,
            r#""\u0000""#,
            r#""\udc00""#,
            r#""""#,
        ]);
        leaf.prop_map(str::to_owned).prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|list| format!("[ {} ]", list.join(" , "))),
                prop::collection::vec((key.clone(), inner), 0..5).prop_map(|members| {
                    let members: Vec<_> = members
                        .into_iter()
                        .map(|(key, value)| format!("{key} :\n{value}"))
                        .collect();
                    format!("{{\t{}}}", members.join(","))
                }),
            ]
        })
    }

    /// Counts the errors by parsing each level again.
    fn count_errors(raw: &RawValue, depth: usize, rules: Rules) -> usize {
        match raw.get().as_bytes()[0] {
            b'{' | b'[' if depth >= rules.max_depth => 1,
            b'{' => {
                let (mut count, mut seen) = (0, HashSet::new());
                for_each_member(raw, |name, value| {
                    let is_surrogate = name == r#""\udc00""#;
                    count += usize::from(is_surrogate || name.contains('\0'));
                    count += usize::from(!is_surrogate && !seen.insert(name.clone()));
                    count += count_errors(value, depth + 1, rules);
                });
                count
            }
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap();
                elements.into_iter().map(|element| count_errors(element, depth + 1, rules)).sum()
            }
            b'"' => usize::from(unquote(raw).is_none()),
            b'-' | b'0'..=b'9' => usize::from(check_number(raw.get(), rules).is_some()),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn every_error_is_counted(text in any_json(), max_depth in 1..6_usize) {
            let rules = Rules { max_depth, ..RULES };
            let (errors, _) = scan(&text, rules);
            let raw: &RawValue = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(errors.total(), count_errors(raw, 0, rules));
            prop_assert!(!is_plain(&text, rules) || errors.is_empty());
        }
    }
}
