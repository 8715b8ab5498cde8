//! Differences of result documents as JSON Merge Patch (RFC 7396).
//!
//! Result documents hold no `null`, so every difference between two of them can be said as a merge patch.

use serde_json::{Map, Value};

/// The merge patch that turns `from` into `to`, or none where they are equal.
pub fn diff(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (key, after) in to {
        let change = match from.get(key) {
            Some(before) => diff(before, after),
            None => Some(after.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Applies a merge patch (RFC 7396, section 2).
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, change) in patch {
        if change.is_null() {
            target.remove(&key);
        } else {
            apply(target.entry(key).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Documents without null, as results are; objects are never patched into other kinds by accident.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<u64>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        let node = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-d]", node, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        let rows = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, result) in rows {
            apply(&mut target, patch);
            assert_eq!(target, result);
        }
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_document_to_the_other(from in document(), to in document()) {
            let mut target = from.clone();
            match diff(&from, &to) {
                Some(patch) => apply(&mut target, patch),
                None => prop_assert_eq!(&from, &to),
            }
            prop_assert_eq!(target, to);
        }
    }
}
