//! Reads JSON objects field by field and notes every fault with its pointer, instead of stopping at the first.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use canvass_election::ids::Timestamp;
use serde_json::{Map, Value};

use super::Fault;
use crate::time;

/// Where readers note what is wrong.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    fn add(&self, place: String, message: impl Into<String>) {
        self.0.borrow_mut().push(Fault { place, message: message.into() });
    }

    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// An object whose fields are being read. Keys nobody asked for are faults when it is finished.
pub(super) struct Object<'a> {
    place: String,
    map: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
    faults: &'a Faults,
}

/// `; did you mean …?` for the nearest of `known`, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let scored = known.map(|k| (strsim::jaro_winkler(word, k), k));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, nearest)) if score > 0.8 => format!("; did you mean `{nearest}`?"),
        _ => String::new(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl<'a> Object<'a> {
    pub(super) fn top(value: &'a Value, faults: &'a Faults) -> Option<Self> {
        Self::at(String::new(), value, faults)
    }

    fn at(place: String, value: &'a Value, faults: &'a Faults) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Object { place, map, asked: RefCell::default(), faults }),
            other => {
                faults.add(place, format!("expected an object, found {}", kind_of(other)));
                None
            }
        }
    }

    pub(super) fn fault(&self, key: impl AsRef<str>, message: impl Into<String>) {
        self.faults.add(format!("{}/{}", self.place, key.as_ref()), message);
    }

    /// Whether no fault has been found anywhere yet.
    pub(super) fn is_clean(&self) -> bool {
        self.faults.0.borrow().is_empty()
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.map.get(key)
    }

    fn read<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let found = read(value);
        if found.is_none() {
            self.fault(key, format!("expected {expected}, found {}", kind_of(value)));
        }
        found
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        if self.get(key).is_none() {
            self.fault(key, "is missing");
        }
        self.optional_text(key)
    }

    pub(super) fn optional_text(&self, key: &'static str) -> Option<String> {
        let text = self.read(key, "a text", Value::as_str)?;
        if text.trim().is_empty() {
            self.fault(key, "must not be empty");
        }
        Some(text.to_owned())
    }

    /// A text id: it appears in addresses, so it is short and plain.
    pub(super) fn id(&self, key: &'static str) -> Option<String> {
        let id = self.text(key)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || id.len() > 64 || !id.bytes().all(plain) {
            self.fault(
                key,
                format!(
                    "`{id}` is no id: up to 64 letters, digits, `-`, `_` and `.`, a letter or digit first"
                ),
            );
        }
        Some(id)
    }

    pub(super) fn optional_bool(&self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn optional_number(&self, key: &'static str) -> Option<u64> {
        self.read(key, "a whole number, 0 or more", Value::as_u64)
    }

    pub(super) fn optional_time(&self, key: &'static str) -> Option<Timestamp> {
        let text = self.optional_text(key)?;
        let time = time::parse(&text);
        if time.is_none() {
            self.fault(
                key,
                format!("`{text}` is no moment such as 2026-11-03T20:15:00Z (as a text, in quotes)"),
            );
        }
        time
    }

    pub(super) fn optional_texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.read(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
        })
    }

    pub(super) fn optional_object(&self, key: &'static str) -> Option<Object<'a>> {
        Self::at(format!("{}/{key}", self.place), self.get(key)?, self.faults)
    }

    pub(super) fn list(&self, key: &'static str) -> Vec<Object<'a>> {
        let items = self.read(key, "a list", Value::as_array).into_iter().flatten().enumerate();
        items.filter_map(|(i, v)| Self::at(format!("{}/{key}/{i}", self.place), v, self.faults)).collect()
    }

    /// The thing that `id` names.
    pub(super) fn known<T: Copy>(
        &self,
        key: &str,
        what: &str,
        id: &str,
        known: &BTreeMap<&str, T>,
    ) -> Option<T> {
        let found = known.get(id).copied();
        if found.is_none() {
            let hint = did_you_mean(id, known.keys().copied());
            self.fault(key, format!("there is no {what} `{id}`{hint}"));
        }
        found
    }

    pub(super) fn unknown_word(&self, key: &str, word: &str, known: &[&str]) {
        let hint = did_you_mean(word, known.iter().copied());
        self.fault(key, format!("`{word}` is none of {}{hint}", known.join(", ")));
    }

    /// Notes a fault for each id of the list that was there before.
    pub(super) fn distinct<'i>(&self, key: &str, ids: impl Iterator<Item = &'i str>) {
        let mut seen = BTreeSet::new();
        for (i, id) in ids.enumerate() {
            if !seen.insert(id) {
                self.fault(format!("{key}/{i}/id"), format!("`{id}` is used twice"));
            }
        }
    }

    /// Notes a fault for each key that was not asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.map.keys().filter(|key| !asked.contains(key.as_str())) {
            let hint = did_you_mean(key, asked.iter().copied());
            self.fault(key, format!("is not a key that is known here{hint}"));
        }
    }
}
