//! The fold, told as tables: a line is one event with its expected outcome and, after `|`, what readers see.
//!
//! ```text
//! label: @time req=name verb arguments = outcome | check, check
//! ```
//!
//! The label, the time and the request may be left out. `tables/` holds the tables; `interpreter.rs` says
//! what each verb, outcome and check means.

mod interpreter;
mod names;

use std::collections::BTreeSet;

const TABLES: &[(&str, &str)] = &[
    ("contests", include_str!("tables/contests.txt")),
    ("calls", include_str!("tables/calls.txt")),
    ("votes", include_str!("tables/votes.txt")),
    ("returns", include_str!("tables/returns.txt")),
    ("corrections", include_str!("tables/corrections.txt")),
    ("holds", include_str!("tables/holds.txt")),
    ("recounts", include_str!("tables/recounts.txt")),
];

/// A blank line followed by `# ` starts the next table of a file: each begins with an empty tally.
fn tables(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n# ")
}

#[test]
fn every_row_has_its_outcome() {
    for (file, text) in TABLES {
        for table in tables(text) {
            let title = table.lines().next().unwrap_or_default();
            interpreter::run(&format!("{file}: {title}"), table, &mut BTreeSet::new());
        }
    }
}

#[test]
fn every_variant_has_a_row() {
    let mut seen = BTreeSet::new();
    for (file, text) in TABLES {
        tables(text).for_each(|table| interpreter::run(file, table, &mut seen));
    }
    let missing: Vec<_> = names::all().filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no row shows {missing:?}");
}
