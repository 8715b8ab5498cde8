//! The OpenAPI document says what the server does: its routes, its codes, and the form of every answer.

#![allow(clippy::unwrap_used, reason = "these are tests, in helpers as well")]

mod answers;
mod document;
#[path = "../../../anchor/src/tests/node.rs"]
#[allow(dead_code, reason = "each test uses its own part")]
mod node;
mod probe;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use canvass_protocol::problem::Code;
use document::{Document, matches, read};
use serde_json::Value;

/// The public routes of the server with their methods, as its source gives them.
fn routes() -> BTreeMap<String, BTreeSet<String>> {
    let source = read("crates/http/src/server.rs");
    let mut routes = BTreeMap::new();
    for line in source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
        let (path, handlers) = line.split_once('"').unwrap();
        let public = path.starts_with("/api/") || ["/livez", "/readyz", "/metrics"].contains(&path);
        assert!(public, "{path} is a public route of another kind; say here what describes it");
        let called = |method: &&&str| {
            [format!(" {method}("), format!(".{method}(")].iter().any(|call| handlers.contains(call))
        };
        let methods = ["get", "post", "put", "delete", "patch"];
        let methods: BTreeSet<_> = methods.iter().filter(called).map(|m| (*m).to_owned()).collect();
        assert!(!methods.is_empty(), "{line}");
        routes.insert(path.to_owned(), methods);
    }
    assert!(routes.len() > 20, "the routes are not where they were; read them from their new place");
    routes
}

#[test]
fn every_route_is_described_and_every_description_has_a_route() {
    let document = Document::checked_in();
    let routes = routes();
    let mut described: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for operation in document.operations() {
        // A literal segment, as `release`, may stand where the route has `{act}`.
        let same = |route: &&String| {
            let names = |path: &str| -> Vec<String> {
                path.split('/').filter(|s| s.starts_with('{') && *s != "{act}").map(str::to_owned).collect()
            };
            matches(route, operation.path) && names(route) == names(operation.path)
        };
        let route = routes.keys().find(same);
        let route = route.unwrap_or_else(|| panic!("{} is described and has no route", operation.path));
        described.entry(route).or_default().insert(operation.method.to_owned());
    }
    for (route, methods) in &routes {
        assert_eq!(described.get(route.as_str()), Some(methods), "{route}");
    }
}

#[test]
fn the_codes_are_those_of_the_server() {
    let document = Document::checked_in();
    let words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let described = &document.0["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
    assert_eq!(*described, serde_json::json!(words));
    let mut named: BTreeSet<String> =
        document.operations().iter().flat_map(|op| document.codes_of(op)).collect();
    named.extend(
        ["not-found", "method-not-allowed", "not-here", "too-many-connections", "internal"]
            .map(str::to_owned),
    );
    assert_eq!(named, words.iter().map(|w| (*w).to_owned()).collect(), "each code belongs to an operation");
}

#[test]
fn the_guide_says_what_to_do_about_every_code() {
    let guide = read("docs/integrate.md");
    let rows: Vec<Vec<&str>> = guide
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for code in Code::ALL {
        let word = format!("`{}`", code.as_str());
        let row = rows.iter().find(|row| row[0] == word);
        let row = row.unwrap_or_else(|| panic!("docs/integrate.md has no row for {word}"));
        assert_eq!(row[1], code.status().to_string(), "{word}");
        assert!(row.len() == 3 && row[2].len() > 10, "{word}: say what the client should do");
    }
}

/// Every object in the document, with the path that leads to it.
fn walk<'a>(at: String, value: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(&at, value);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    entries.into_iter().for_each(|(key, value)| walk(format!("{at}/{key}"), value, visit));
}

#[test]
fn the_document_has_the_shape_of_openapi() {
    let document = Document::checked_in();
    let root = document.0.as_object().unwrap();
    assert!(root["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(root["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(root["servers"], serde_json::json!([{ "url": "/" }]), "the document names no host");
    let mut used = BTreeSet::new();
    walk(String::new(), &document.0, &mut |at, value| {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            assert!(target.starts_with("#/components/"), "{at}: {target}");
            document.resolve(value);
            used.insert(target.to_owned());
        }
        let text = value.as_str().unwrap_or_default();
        assert!(!text.contains("://"), "{at} names a host: {text}");
    });
    for kind in ["parameters", "headers", "responses", "schemas"] {
        for name in root["components"][kind].as_object().unwrap().keys() {
            let target = format!("#/components/{kind}/{name}");
            assert!(used.contains(&target), "{target} is not used");
        }
    }
    for schema in root["components"]["schemas"].as_object().unwrap().values() {
        jsonschema::draft202012::meta::validate(schema).unwrap();
    }
}

#[test]
fn operations_are_whole() {
    let document = Document::checked_in();
    let mut ids = BTreeSet::new();
    let tags: Vec<&Value> = document.0["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for operation in document.operations() {
        let (id, value) = (operation.id(), operation.value);
        assert!(ids.insert(id), "{id} is used twice");
        assert!(value["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag)), "{id}");
        for text in ["summary", "description"] {
            assert!(value[text].as_str().is_some_and(|t| !t.is_empty()), "{id} has no {text}");
        }
        let parameters = value["parameters"].as_array().cloned().unwrap_or_default();
        let mut in_path = BTreeSet::new();
        for parameter in &parameters {
            let parameter = document.resolve(parameter);
            let name = parameter["name"].as_str().unwrap();
            assert!(parameter["description"].is_string() && parameter["schema"].is_object(), "{id} {name}");
            if parameter["in"] == "path" {
                assert_eq!(parameter["required"], true);
                in_path.insert(format!("{{{name}}}"));
            }
        }
        let named = operation.path.split('/').filter(|s| s.starts_with('{')).map(str::to_owned).collect();
        assert_eq!(in_path, named, "{id}");
        for (status, response) in value["responses"].as_object().unwrap() {
            assert!(document.resolve(response)["description"].is_string(), "{id} {status}");
        }
        let schemes = &document.0["components"]["securitySchemes"];
        for way in value["security"].as_array().unwrap() {
            assert!(way.as_object().unwrap().keys().all(|scheme| schemes.get(scheme).is_some()), "{id}");
        }
    }
}
