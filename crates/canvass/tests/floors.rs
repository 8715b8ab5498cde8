//! Imports between the crates go strictly downward, and crates on one floor do not import each other.

use std::process::Command;

/// Each crate with the floor it stands on. The crates set aside stand above what they use, and only the binary
/// may use them.
const FLOORS: &[(&str, u32)] = &[
    ("canvass-election", 0),
    ("canvass-tlog", 0),
    ("canvass-forecast", 0),
    ("canvass-outward", 0),
    ("canvass-protocol", 1),
    ("canvass-log", 2),
    ("canvass-engine", 3),
    ("canvass-anchor", 3),
    ("canvass-http", 4),
    ("canvass-loadgen", 4),
    ("canvass", 5),
];

#[test]
fn imports_go_strictly_downward() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output =
        Command::new(cargo).args(["metadata", "--format-version", "1", "--no-deps"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let floor = |name: &str| FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let own = floor(name).unwrap_or_else(|| panic!("{name} has no floor; give it one in this test"));
        seen += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let only_tests = dependency["kind"] == "dev";
            let Some(other_floor) = floor(other) else {
                assert!(!other.starts_with("canvass"), "{other} has no floor; give it one in this test");
                continue;
            };
            assert!(other_floor < own || only_tests && other == name, "{name} must not import {other}");
        }
    }
    assert_eq!(seen, FLOORS.len(), "a crate is gone; take it out of this test");
}
