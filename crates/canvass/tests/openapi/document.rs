//! The OpenAPI document, and what a run of the server has shown of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A file of the repository, by its path from the root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(crate) fn read(path: &str) -> String {
    let path = repository(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) struct Document(pub(crate) Value);

/// A method on a path.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub(crate) path: &'a str,
    pub(crate) method: &'a str,
    pub(crate) value: &'a Value,
}

impl<'a> Operation<'a> {
    pub(crate) fn id(&self) -> &'a str {
        self.value["operationId"].as_str().unwrap()
    }

    /// Whether it needs an API key, and nothing else will do.
    pub(crate) fn needs_key(&self) -> bool {
        let ways = self.value["security"].as_array().unwrap();
        ways.iter().all(|way| way.get("apiKey").is_some())
    }
}

impl Document {
    pub(crate) fn checked_in() -> Self {
        Document(serde_json::from_str(&read("crates/http/openapi.json")).unwrap())
    }

    /// The value itself, or what its `$ref` names.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(target) => self.0.pointer(&target[1..]).unwrap_or_else(|| panic!("{target} names nothing")),
            None => value,
        }
    }

    pub(crate) fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().iter();
                methods.map(move |(method, value)| Operation { path, method, value })
            })
            .collect()
    }

    /// The operation that a request is for.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Operation<'_> {
        let path = path.split('?').next().unwrap();
        let fits = |op: &Operation<'_>| op.method == method.to_lowercase() && matches(op.path, path);
        self.operations().into_iter().find(fits).unwrap_or_else(|| panic!("{method} {path} is not described"))
    }

    /// Every problem code that an operation names.
    pub(crate) fn codes_of(&self, operation: &Operation<'_>) -> Vec<String> {
        let responses = operation.value["responses"].as_object().unwrap();
        let named = responses.iter().filter(|(status, _)| *status != "default");
        let schemas =
            named.map(|(_, r)| &self.resolve(r)["content"]["application/problem+json"]["schema"]["allOf"][1]);
        let codes = schemas.filter_map(|s| s["properties"]["code"]["enum"].as_array()).flatten();
        codes.map(|code| code.as_str().unwrap().to_owned()).collect()
    }

    /// What is wrong with an instance of a schema.
    pub(crate) fn faults(&self, schema: &Value, instance: &Value) -> Vec<String> {
        let whole = json!({ "allOf": [schema], "components": self.0["components"] });
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        let validator = options.build(&whole).unwrap_or_else(|e| panic!("{schema}: {e}"));
        validator.iter_errors(instance).map(|e| format!("{}: {e}", e.instance_path())).collect()
    }
}

/// Whether a path is one of a template's.
pub(crate) fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(path).all(|(t, p)| t.starts_with('{') || *t == p)
}

/// The parts of the component schemas that answers have shown, or could show.
#[derive(Default)]
pub(crate) struct Shown(pub(crate) BTreeSet<String>);

impl Shown {
    /// Notes what an instance shows of its schema, which stands at the pointer `at`.
    pub(crate) fn note(&mut self, document: &Document, at: &str, schema: &Value, instance: &Value) {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            self.note(document, target, document.resolve(schema), instance);
        }
        for choice in choices(schema) {
            if document.faults(choice, instance).is_empty() {
                self.note(document, at, choice, instance);
            }
        }
        if let (Some(_), Some(word)) = (schema.get("enum"), instance.as_str()) {
            self.0.insert(format!("{at}={word}"));
        }
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        for (key, value) in instance.as_object().into_iter().flatten() {
            if let Some(property) = properties.get(key) {
                self.0.insert(format!("{at}/{key}"));
                self.note(document, &format!("{at}/{key}"), property, value);
            } else if let Some(other) = schema.get("additionalProperties").filter(|s| s.is_object()) {
                self.note(document, &format!("{at}/*"), other, value);
                if let Some(keys) = schema.get("propertyNames") {
                    self.note(document, &format!("{at}/*"), keys, &json!(key));
                }
            }
        }
        for item in instance.as_array().into_iter().flatten() {
            self.note(document, &format!("{at}/-"), &schema["items"], item);
        }
    }

    /// Notes everything that an instance of the schema could show.
    pub(crate) fn note_all(&mut self, document: &Document, at: &str, schema: &Value) {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            if self.0.insert(target.to_owned()) {
                self.note_all(document, target, document.resolve(schema));
            }
            return;
        }
        choices(schema).for_each(|choice| self.note_all(document, at, choice));
        for word in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
            self.0.extend(word.as_str().map(|word| format!("{at}={word}")));
        }
        for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.0.insert(format!("{at}/{key}"));
            self.note_all(document, &format!("{at}/{key}"), property);
        }
        for (step, key) in [("*", "additionalProperties"), ("*", "propertyNames"), ("-", "items")] {
            if let Some(below) = schema.get(key) {
                self.note_all(document, &format!("{at}/{step}"), below);
            }
        }
    }

    /// Those in component schemas, without the schemas themselves.
    pub(crate) fn in_components(&self) -> BTreeSet<&str> {
        let inside = |place: &&str| {
            place.strip_prefix("#/components/schemas/").is_some_and(|rest| rest.contains(['/', '=']))
        };
        self.0.iter().map(String::as_str).filter(inside).collect()
    }
}

fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
    lists.flatten()
}
