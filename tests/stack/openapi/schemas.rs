//! The schemas of the document, in which a field that is not listed is an error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

pub(super) struct Schemas {
    components: Value,
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Schemas {
    pub(super) fn new(document: &Value) -> Self {
        let mut components = document["components"]["schemas"].clone();
        close(&mut components);
        Self { components, compiled: Mutex::default() }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Returns an error that lists where and how the value violates the schema.
    pub(super) fn check(&self, schema: &Value, value: &Value) -> Result<()> {
        let validator = self.validator(schema)?;
        let errors: Vec<_> = validator
            .iter_errors(value)
            .take(5)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(errors.is_empty(), "{}", errors.join("; "));
        Ok(())
    }

    fn validator(&self, schema: &Value) -> Result<Arc<Validator>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let name = schema.to_string();
        if let Some(validator) = compiled.get(&name) {
            return Ok(Arc::clone(validator));
        }
        let mut root = schema.clone();
        close(&mut root);
        let root = json!({"allOf": [root], "components": {"schemas": self.components}});
        let validator = jsonschema::options().should_validate_formats(true).build(&root)?;
        let validator = Arc::new(validator);
        compiled.insert(name, Arc::clone(&validator));
        Ok(validator)
    }
}

/// Forbids fields that an object does not list.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}
