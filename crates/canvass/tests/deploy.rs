//! What `deploy/` says is what the binary understands, and what docs/operate.md tells.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The words of a text that begin like this.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with(start) && word.len() > start.len()).collect()
}

#[test]
fn the_cluster_is_started_with_options_that_there_are() {
    let help = Command::new(env!("CARGO_BIN_EXE_canvass")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known = words(&help, "CANVASS_");
    for file in ["deploy/cluster/compose.yaml", "deploy/Dockerfile"] {
        let text = read(file);
        let used = words(&text, "CANVASS_");
        assert!(!used.is_empty() && used.is_subset(&known), "{file}: {:?}", used.difference(&known));
    }
    let checked = Command::new(env!("CARGO_BIN_EXE_canvass"))
        .arg("check")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/cluster/election.toml"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn alerts_and_dashboards_are_of_metrics_that_are_told_of() {
    let documented = read("docs/operate.md");
    // Samples of counters and histograms have more behind the name of their family.
    let family = |name: &str| {
        let name = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        documented.contains(&format!("`{name}`")) || documented.contains(&format!("`{name}_total`"))
    };
    for file in ["deploy/cluster/alerts.yml", "deploy/cluster/grafana/dashboards/canvass.json"] {
        let text = read(file);
        let used = words(&text, "canvass_");
        let unknown: Vec<_> = used.iter().filter(|name| !family(name)).collect();
        assert!(!used.is_empty() && unknown.is_empty(), "{file}: {unknown:?}");
    }
}
