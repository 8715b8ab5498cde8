//! A log of 100,000 records, read by Go's checksum database code.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use canvass_tlog::{SecretKey, SignedCheckpoint, TilePath, Tiles, Tree, push_entry, record_hash};

const OLD: u32 = 70_000;
const NEW: u32 = 100_000;

fn record(n: u32) -> Vec<u8> {
    // One that is too long for an entry bundle, too.
    let length = if n == 255 { 100_000 } else { 46 };
    let mut record = vec![1; length];
    record[20..24].copy_from_slice(&n.to_le_bytes());
    record
}

fn append(tree: &mut Tree, records: std::ops::Range<u32>) -> SignedCheckpoint {
    let hashes: Vec<_> = records.map(|n| record_hash(&record(n))).collect();
    hashes.chunks(317).for_each(|batch| tree.append(batch).unwrap());
    tree.publish().unwrap()
}

fn write(file: &Path, bytes: &[u8]) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Writes what a server would serve of a log of that size.
fn serve(folder: &Path, tiles: &Tiles, size: u32) {
    for path in TilePath::all(size.into()) {
        let bytes = if path.level.is_some() {
            tiles.tile(path).unwrap().unwrap()
        } else {
            let first = u32::try_from(path.index).unwrap() * 256;
            let mut bundle = Vec::new();
            for n in first..first + u32::from(path.width) {
                push_entry(&mut bundle, &canvass_tlog::entry(&record(n)));
            }
            bundle
        };
        write(&folder.join("tile").join(path.to_string()), &bytes);
    }
}

fn go(program: &Path, folder: &Path, key: &SecretKey) -> Output {
    let arguments = [key.public().to_string(), key.name().to_owned()];
    Command::new(program).arg(folder).args(arguments).output().unwrap()
}

#[test]
fn go_reads_the_log_and_finds_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("reader");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tlog/go");
    let built = Command::new("go").args(["build", "-o"]).arg(&program).current_dir(source).output();
    let built = built.expect("this test needs Go");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let key = SecretKey::generate("count.example/votes/0").unwrap();
    let mut tree = Tree::open(&folder.path().join("tree"), key.clone()).unwrap();
    let served = folder.path().join("served");
    let old = append(&mut tree, 0..OLD);
    serve(&served, &tree.tiles(), OLD);
    let new = append(&mut tree, OLD..NEW);
    serve(&served, &tree.tiles(), NEW);
    write(&served.join("old"), old.note().as_bytes());
    write(&served.join("checkpoint"), new.note().as_bytes());

    let output = go(&program, &served, &key);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "count.example/votes/0: 100000 leaves, grown from 70000\n");

    // Record 50,000 is the 81st of its bundle, of 48 bytes each.
    let entry = 80 * 48 + 30;
    for (file, at) in [
        ("tile/0/000", 20),
        ("tile/0/273.p/112", 20),
        ("tile/1/000", 20),
        ("tile/1/001.p/134", 20),
        ("tile/entries/195", entry),
        ("old", 30),
        ("checkpoint", 30),
    ] {
        let path = served.join(file);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(!go(&program, &served, &key).status.success(), "{file}");
        fs::write(&path, whole).unwrap();
    }
    let other = SecretKey::generate(key.name()).unwrap();
    assert!(!go(&program, &served, &other).status.success());
    assert!(go(&program, &served, &key).status.success());
}
