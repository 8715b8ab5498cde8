//! Measures a tree on this machine, on one core: `cargo run --release -p canvass-tlog --example rates [FOLDER]`.
//!
//! Integrates ten million votes into a new tree within the given folder (or the system's folder for temporary
//! files), publishing every half million, reads all of it again as a verifier does, and removes it.

#![allow(clippy::print_stdout, reason = "it reports to whoever runs it")]

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use canvass_tlog::receipt::BatchReceipts;
use canvass_tlog::{Hash, SecretKey, TilePath, Tree, record_hash};

const LEAVES: u32 = 10_000_000;
const BATCH: u32 = 500;
const PUBLISH: u32 = 500_000;
/// The bytes of a vote.
const VOTE: usize = 46;

fn record(n: u32) -> [u8; VOTE] {
    let mut record = [1; VOTE];
    record[30..34].copy_from_slice(&n.to_le_bytes());
    record
}

fn say(what: &str, count: u32, time: Duration) {
    let seconds = time.as_secs_f64();
    println!("{what:<34} {:>8.2} million/s", f64::from(count) / seconds / 1e6);
}

fn main() {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(parent).expect("a folder can be made");
    let key = SecretKey::generate("rates.example/votes/0").expect("a key can be made");
    let mut tree = Tree::open(folder.path(), key.clone()).expect("a new tree opens");

    let (mut hashing, mut appending, mut publishing) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut longest = Duration::ZERO;
    let mut leaves: Vec<Hash> = Vec::new();
    for n in (0..LEAVES).step_by(usize::try_from(BATCH).expect("a small number")) {
        let begin = Instant::now();
        leaves.clear();
        leaves.extend((n..n + BATCH).map(|n| record_hash(&record(n))));
        let hashed = Instant::now();
        tree.append(&leaves).expect("there is space");
        let appended = Instant::now();
        hashing += hashed - begin;
        appending += appended - hashed;
        if (n + BATCH).is_multiple_of(PUBLISH) {
            tree.publish().expect("there is space");
            publishing += appended.elapsed();
            longest = longest.max(appended.elapsed());
        }
    }
    say("leaf hashes", LEAVES, hashing);
    say("inner nodes and files", LEAVES, appending);
    say("leaves, nodes, files, checkpoints", LEAVES, hashing + appending + publishing);
    println!("a checkpoint takes {:.1} ms at most, with its syncs", longest.as_secs_f64() * 1e3);

    let begin = Instant::now();
    drop(tree);
    let tree = Tree::open(folder.path(), key.clone()).expect("it opens again");
    println!("opening again takes {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);

    let tiles = tree.tiles();
    let checkpoint = tiles.checkpoint().expect("it was published");
    let begin = Instant::now();
    for path in TilePath::all(tree.size()).filter(|path| path.level.is_some()) {
        black_box(tiles.tile(path).expect("it reads"));
    }
    say("reading tiles, in leaves", LEAVES, begin.elapsed());
    let begin = Instant::now();
    let proofs = 20_000_u32;
    for n in 0..proofs {
        let index = u64::from(n.wrapping_mul(2_654_435_761) % LEAVES);
        black_box(tiles.prove(index, &checkpoint).expect("it reads").expect("it is there"));
    }
    say("proofs of single records", proofs, begin.elapsed());

    let mut receipt = Vec::new();
    for size in [1, 16, 500, 8_000] {
        let begin = Instant::now();
        let batches = 200_000 / (size + 20);
        for batch in 0..batches {
            let leaves = (0..size).map(|n| record_hash(&record(n))).collect();
            let receipts = BatchReceipts::sign(&key, batch.into(), 1_700_000_000_000, leaves);
            for position in 0..size {
                receipt.clear();
                assert!(receipts.write_json(position, &mut receipt));
                black_box(&receipt);
            }
        }
        say(&format!("receipts in batches of {size}"), batches * size, begin.elapsed());
    }
}
