//! Metadata that a client adds to its events: the common metadata, and that of a
//! scope. It is encoded once and copied into each event.

use std::collections::BTreeMap;

use eyego_log_core::{FieldError, FieldErrors, Metadata};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::pipeline::check::{Findings, hash_of_key};

/// One member of the metadata.
#[derive(Debug, Clone)]
struct Member {
    key: String,
    /// The hash of the key that [`Findings`] computes, too.
    hash: u64,
    /// Key and value, such as `"page":"home"`.
    json: String,
}

/// The members that are added to an event unless the event has them itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    members: Vec<Member>,
    /// The JSON of all members, separated by commas.
    json: String,
}

impl Context {
    /// Encodes `metadata`, which replaces members of `parent` with the same name.
    ///
    /// # Errors
    /// Returns the errors if `metadata` is not valid as an event's metadata.
    pub(crate) fn new(
        parent: Option<&Self>,
        metadata: &impl Serialize,
    ) -> Result<Self, FieldErrors> {
        let invalid = |error: &serde_json::Error| {
            FieldErrors::from(FieldError::new("metadata", format!("must be JSON: {error}")))
        };
        let text = serde_json::to_string(metadata).map_err(|error| invalid(&error))?;
        // Line breaks between tokens would end the event's line.
        let text = text.replace(['\n', '\r'], " ");
        if text == "null" {
            return Ok(parent.cloned().unwrap_or_default());
        }
        Metadata::check(&text)?;
        let own: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&text).map_err(|error| invalid(&error))?;
        let inherited = parent.into_iter().flat_map(|parent| &parent.members);
        let mut members: Vec<Member> =
            inherited.filter(|member| !own.contains_key(&member.key)).cloned().collect();
        for (key, value) in own {
            let name = serde_json::to_string(&key).map_err(|error| invalid(&error))?;
            let json = format!("{name}:{}", value.get());
            members.push(Member { hash: hash_of_key(key.as_bytes()), key, json });
        }
        let json: Vec<_> = members.iter().map(|member| member.json.as_str()).collect();
        let json = json.join(",");
        Ok(Self { members, json })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the JSON of all members, such as `"a":1,"b":2`.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// Returns whether `own`, a valid JSON object in which `findings` were made,
    /// may have a member of this context.
    pub(crate) fn may_overlap(&self, findings: &Findings) -> bool {
        findings.is_suspect || self.members.iter().any(|member| findings.has_key(member.hash))
    }

    /// Returns the JSON of the members that `own`, a valid JSON object, does not
    /// have.
    pub(crate) fn missing_in(&self, own: &[u8]) -> Vec<&str> {
        let own: BTreeMap<String, IgnoredAny> = serde_json::from_slice(own).unwrap_or_default();
        let missing = self.members.iter().filter(|member| !own.contains_key(&member.key));
        missing.map(|member| member.json.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scope_replaces_members_of_its_parent() {
        let parent = Context::new(None, &json!({"a": 1, "b": {"c": 2}})).unwrap();
        assert_eq!(parent.json(), r#""a":1,"b":{"c":2}"#);
        let scope = Context::new(Some(&parent), &json!({"a": "x\n", "d": null})).unwrap();
        assert_eq!(scope.json(), r#""b":{"c":2},"a":"x\n","d":null"#);
        let unchanged = Context::new(Some(&scope), &()).unwrap();
        assert_eq!(unchanged.json(), scope.json());
    }

    #[test]
    fn invalid_metadata_is_an_error() {
        for invalid in [json!([1]), json!(7), json!({"a\0": 1}), json!({"n": u64::MAX})] {
            assert!(Context::new(None, &invalid).is_err(), "{invalid}");
        }
    }
}
