//! Everything that can be done to a published log and its results, and how the verifier names it.

mod world;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::prelude::*;
use canvass_tlog::{SecretKey, leaf_hash};
use ed25519_dalek::{Signer, SigningKey};
use tempfile::TempDir;

use super::source::{Source, file_of};
use super::trust::{PastArgs, TrustArgs};
use super::verify;
use world::World;

/// What a table's rows are tried on: an election as it was published, and what an auditor has of it.
struct Stage {
    /// What is published: changed by the row.
    world: World,
    folder: TempDir,
    kept: TempDir,
    key: SecretKey,
    trust: TrustArgs,
    past: PastArgs,
}

/// Somebody who vouches for checkpoints. The name is the key.
struct Witness {
    name: String,
    key: SigningKey,
}

impl Witness {
    fn new(name: &str) -> Self {
        Witness { name: name.to_owned(), key: SigningKey::from_bytes(&leaf_hash(name.as_bytes()).0) }
    }

    fn bytes(&self) -> Vec<u8> {
        [&[4], &self.key.verifying_key().to_bytes()[..]].concat()
    }

    fn vkey(&self) -> String {
        let id = signed_note::key_id(&self.name, &self.bytes());
        format!("{}+{id:08x}+{}", self.name, BASE64_STANDARD.encode(self.bytes()))
    }

    /// Adds a cosignature, as C2SP's tlog-cosignature has it.
    fn cosign(&self, note: &mut Vec<u8>) {
        let text = String::from_utf8(note.clone()).unwrap();
        let text = text.split_inclusive('\n').take(3).collect::<String>();
        let time = 1_700_000_000_u64;
        let signature = self.key.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes()).to_bytes();
        let id = signed_note::key_id(&self.name, &self.bytes()).to_be_bytes();
        let line = BASE64_STANDARD.encode([&id[..], &time.to_be_bytes(), &signature].concat());
        note.extend_from_slice(format!("— {} {line}\n", self.name).as_bytes());
    }
}

/// The election as it is published where nobody has done anything.
static HONEST: LazyLock<(World, TempDir)> = LazyLock::new(|| {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    world.publish_log(folder.path(), &world::key(0));
    world.publish_results(folder.path());
    (world, folder)
});

impl Stage {
    fn new() -> Self {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        copy(HONEST.1.path(), folder.path());
        let key = world::key(0);
        let trust = TrustArgs { key: Some(key.public().to_string()), ..TrustArgs::default() };
        Stage { world: HONEST.0.clone(), folder, kept, key, trust, past: PastArgs::default() }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(file_of(path).unwrap())
    }

    /// One thing that somebody does, in words.
    fn act(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // An auditor keeps the checkpoint, or anchors it, before anything is done.
            ["keep"] => {
                let file = self.kept.path().join("checkpoint");
                std::fs::copy(self.file("/checkpoint"), &file).unwrap();
                self.past.since = Some(file);
            }
            ["anchor"] => {
                let note = std::fs::read_to_string(self.file("/checkpoint")).unwrap();
                let lines: Vec<_> = note.lines().collect();
                let file = self.kept.path().join("anchors");
                std::fs::write(&file, format!("# size and root\n{} {}\n", lines[1], lines[2])).unwrap();
                self.past.anchors = Some(file);
            }
            // Witnesses that the auditor knows, and those who have signed.
            ["witnesses", ref names @ .., "quorum", quorum] => {
                self.trust.witness = names.iter().map(|name| Witness::new(name).vkey()).collect();
                self.trust.quorum = Some(quorum.parse().unwrap());
            }
            ["cosign", name] => self.edit("/checkpoint", |note| Witness::new(name).cosign(note)),
            // Files are changed in place.
            ["flip", path, byte] => self.edit(path, |bytes| bytes[byte.parse::<usize>().unwrap()] ^= 4),
            ["cut", path, bytes] => self.edit(path, |b| b.truncate(bytes.parse().unwrap())),
            ["delete", path] => std::fs::remove_file(self.file(path)).unwrap(),
            ["write", path, pointer, value] => self.edit(path, |bytes| {
                let mut document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                *document.pointer_mut(pointer).unwrap() = value.parse().unwrap();
                *bytes = document.to_string().into_bytes();
            }),
            // The log is changed; how it is published says the last word of the row.
            ["remove", record] => self.world.remove(record.parse().unwrap()),
            ["insert", record] => self.world.insert(record.parse().unwrap()),
            ["change", record, byte] => {
                self.world.record(record.parse().unwrap())[byte.parse::<usize>().unwrap()] ^= 1;
            }
            ["swap", a, b] => {
                let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
                let (first, second) = (self.world.record(a).clone(), self.world.record(b).clone());
                (*self.world.record(a), *self.world.record(b)) = (second, first);
            }
            ["rollback", partition, batches] => {
                let log = self.world.log.get_mut(&partition.parse().unwrap()).unwrap();
                log.truncate(batches.parse().unwrap());
            }
            // Whoever has no key can make tiles and bundles anew, and must leave what was signed.
            ["republish", "unsigned"] => {
                let other = tempfile::tempdir().unwrap();
                self.world.publish_log(other.path(), &self.key);
                for id in self.world.log.keys() {
                    for name in ["tile", "batches"] {
                        let path = format!("/log/{id}/{name}");
                        std::fs::remove_dir_all(self.file(&path)).unwrap();
                        copy(&other.path().join(file_of(&path).unwrap()), &self.file(&path));
                    }
                }
            }
            ["republish", "signed"] => self.republish(&self.key),
            ["republish", "as-another"] => self.republish(&world::key(1)),
            ["recount"] => {
                std::fs::remove_dir_all(self.folder.path().join("api/v1")).unwrap();
                self.world.publish_log(self.folder.path(), &self.key);
                self.world.publish_results(self.folder.path());
            }
            _ => panic!("unknown act: {line}"),
        }
    }

    fn republish(&self, key: &SecretKey) {
        for name in ["tile", "log", "checkpoint"] {
            let path = self.folder.path().join(name);
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            removed.unwrap();
        }
        self.world.publish_log(self.folder.path(), key);
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file(path);
        let mut bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
        edit(&mut bytes);
        std::fs::write(file, bytes).unwrap();
    }

    /// What the verifier finds, one difference a line.
    fn verdict(&self) -> Vec<String> {
        let source = Source::open(self.folder.path().to_str().unwrap(), None).unwrap();
        let report = verify(&source, &self.trust, &self.past).unwrap();
        report.differences.iter().map(ToString::to_string).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}

/// Plays a table: acts begin at the margin, and what the verifier must say of them is set in below. `…` stands for
/// any text.
fn play(table: &str) {
    let mut rows: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for line in table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            Some(said) => rows.last_mut().expect("an act comes first").1.push(said.trim()),
            None => rows.push((line.split(';').map(str::trim).collect(), Vec::new())),
        }
    }
    let mut failed = String::new();
    for (acts, wanted) in rows {
        let mut stage = Stage::new();
        acts.iter().for_each(|act| stage.act(act));
        let found = stage.verdict();
        let agrees = found.len() == wanted.len() && found.iter().zip(&wanted).all(|(f, w)| matches(f, w));
        if !agrees {
            failed += &format!("{}\n    {}\n\n", acts.join("; "), found.join("\n    "));
        }
    }
    assert!(failed.is_empty(), "found instead:\n\n{failed}");
}

fn matches(found: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| found.strip_prefix(first)) else { return false };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || pattern.ends_with('…')
}

#[test]
fn an_honest_log_has_no_differences() {
    play("keep; anchor");
}

#[test]
fn changed_files_are_named() {
    play(include_str!("tests/files.txt"));
}

#[test]
fn changed_logs_are_named() {
    play(include_str!("tests/logs.txt"));
}

#[test]
fn changed_results_are_named() {
    play(include_str!("tests/results.txt"));
}
