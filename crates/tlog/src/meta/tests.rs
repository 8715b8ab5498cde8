use super::*;
use crate::faults::{FaultyDisk, Random};
use crate::hash::record_hash;
use crate::proof::{ProofError, verify_published};
use crate::tile::Bundle;

const SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

fn key() -> SecretKey {
    SECRET.parse().unwrap()
}

fn open(disk: &FaultyDisk) -> MetaLog {
    MetaLog::open_on(Arc::new(disk.clone()), key()).unwrap()
}

/// A partition in memory.
fn partition(name: &str) -> Tree {
    let key = key().named(&format!("PeterNeumann/{name}")).unwrap();
    Tree::open_on(Arc::new(FaultyDisk::new(1)), key, None).unwrap()
}

fn record(n: u64) -> [u8; 9] {
    let mut record = [1; 9];
    record[1..].copy_from_slice(&n.to_be_bytes());
    record
}

fn grow(tree: &mut Tree, count: u64) -> SignedCheckpoint {
    let leaves: Vec<_> = (tree.size()..tree.size() + count).map(|n| record_hash(&record(n))).collect();
    tree.append(&leaves).unwrap();
    tree.publish().unwrap()
}

#[test]
fn a_record_is_proven_by_the_checkpoint_over_all() {
    let disk = FaultyDisk::new(1);
    let mut meta = open(&disk);
    let mut partitions = ["votes/0", "votes/1", "returns/0"].map(partition);
    for round in 1..40 {
        let heads = partitions.each_mut().map(|tree| grow(tree, round % 3));
        meta.publish(&heads).unwrap();
    }
    // Nothing new, nothing changed.
    let heads = partitions.each_ref().map(|tree| tree.published().unwrap().clone());
    let published = meta.publish(&heads).unwrap();
    assert_eq!(meta.publish(&heads).unwrap(), published);
    for meta in [meta, open(&disk)] {
        for (tree, head) in partitions.iter().zip(&heads) {
            let covered = meta.tiles().covered(head.origin()).unwrap();
            assert_eq!(&covered, head);
            let inner = tree.tiles().prove(7, &covered).unwrap().unwrap();
            let proof = meta.tiles().prove(&inner).unwrap().unwrap();
            let proof: Proof = proof.to_string().parse().unwrap();
            let shown = verify_published(&record(7), &proof, &key().public()).unwrap();
            assert_eq!((&shown.partition, &shown.meta, shown.index), (head, &published, 7));

            let wrong = verify_published(&record(8), &proof, &key().public());
            assert_eq!(wrong, Err(ProofError::Path(head.origin().to_owned())));
            // A checkpoint of the partition that the meta-log does not have.
            let early =
                SignedCheckpoint::sign(&key().named(head.origin()).unwrap(), head.origin(), 1, head.root());
            let other = Proof { checkpoint: early.note().to_owned(), ..inner.clone() };
            assert_eq!(meta.tiles().prove(&other).unwrap(), None);
            let swapped = Proof { extra: Some(other.to_string().into_bytes()), ..proof.clone() };
            assert!(verify_published(&record(7), &swapped, &key().public()).is_err());
            let bare = Proof { extra: None, ..proof };
            assert!(matches!(verify_published(&record(7), &bare, &key().public()), Err(ProofError::Form(_))));
        }
    }
}

#[test]
fn a_log_of_another_name_is_no_partition() {
    let mut meta = open(&FaultyDisk::new(1));
    let foreign = key().named("PeterNeumannsBrother").unwrap();
    let mut tree = Tree::open_on(Arc::new(FaultyDisk::new(1)), foreign, None).unwrap();
    let head = grow(&mut tree, 1);
    meta.publish(std::slice::from_ref(&head)).unwrap();
    let inner = tree.tiles().prove(0, &head).unwrap().unwrap();
    let proof = meta.tiles().prove(&inner).unwrap().unwrap();
    let error = verify_published(&record(0), &proof, &key().public());
    assert!(matches!(error, Err(ProofError::Foreign { .. })), "{error:?}");
}

#[test]
fn bundles_hold_the_leaves_in_order() {
    let disk = FaultyDisk::new(1);
    let mut meta = open(&disk);
    let mut partitions = ["b", "a"].map(partition);
    for _ in 0..300 {
        meta.publish(&partitions.each_mut().map(|tree| grow(tree, 1))).unwrap();
    }
    for tiles in [meta.tiles(), open(&disk).tiles()] {
        let mut origins = Vec::new();
        for path in TilePath::all(600) {
            if path.level == Some(0) {
                let hashes = tiles.tiles().tile(path).unwrap().unwrap();
                let bundle = tiles.bundle(TilePath { level: None, ..path }).unwrap().unwrap();
                let entries: Vec<_> = Bundle::new(&bundle).collect::<Result<_, _>>().unwrap();
                assert_eq!(entries.len(), usize::from(path.width));
                let leaves: Vec<u8> = entries.iter().flat_map(|entry| leaf_hash(entry).0).collect();
                assert_eq!(leaves, hashes);
                let origin = |entry: &&[u8]| entry.split(|byte| *byte == b'\n').next().unwrap().to_vec();
                origins.extend(entries.iter().map(origin));
            }
        }
        assert_eq!(origins.len(), 600);
        assert!(origins.chunks(2).all(|pair| pair == [b"PeterNeumann/a", b"PeterNeumann/b"]));
        let narrow = tiles.bundle("entries/001.p/9".parse().unwrap()).unwrap().unwrap();
        assert_eq!(Bundle::new(&narrow).count(), 9);
        for beyond in ["entries/002.p/89", "entries/002", "entries/003.p/1", "0/000"] {
            assert_eq!(tiles.bundle(beyond.parse().unwrap()).unwrap(), None, "{beyond}");
        }
    }
}

#[test]
fn no_partition_takes_back_what_it_said() {
    let mut meta = open(&FaultyDisk::new(1));
    let mut tree = partition("votes/0");
    let (old, new) = (grow(&mut tree, 3), grow(&mut tree, 3));
    meta.publish(std::slice::from_ref(&new)).unwrap();
    assert!(matches!(meta.publish(&[old]), Err(TreeError::RolledBack { published: 6, size: 3 })));
    let own = key().named(new.origin()).unwrap();
    let other = SignedCheckpoint::sign(&own, new.origin(), 6, record_hash(b"x"));
    assert!(matches!(meta.publish(&[other]), Err(TreeError::Contradiction { published: 6 })));
    // Neither has done any harm.
    assert_eq!(meta.publish(&[grow(&mut tree, 1)]).unwrap().size(), 2);
}

#[test]
fn entries_are_needed_and_tiles_are_not() {
    let disk = FaultyDisk::new(1);
    let mut tree = partition("votes/0");
    let published = open(&disk).publish(&[grow(&mut tree, 3)]).unwrap();
    disk.remove("level-0");
    let mut meta = open(&disk);
    assert_eq!(meta.tiles().tiles().checkpoint(), None);
    assert_eq!(meta.publish(&[]).unwrap(), published);
    assert_eq!(meta.tiles().tiles().checkpoint(), Some(published));
    drop(meta);
    disk.damage("entries", |bytes| bytes.truncate(bytes.len() - 1));
    let error = MetaLog::open_on(Arc::new(disk.clone()), key());
    assert!(matches!(error, Err(OpenError::Damaged("entries"))));
}

/// Whatever fails, every checkpoint that was shown continues the one before it.
fn schedule(seed: u64) {
    let mut random = Random(seed);
    let disk = FaultyDisk::new(seed ^ 0xD15C);
    let mut partitions = ["votes/0", "votes/1"].map(partition);
    let mut shown: Option<SignedCheckpoint> = None;
    for last in [false, false, false, false, true] {
        if last {
            disk.crash();
        }
        disk.fail(if last { 0 } else { [0, 3, 20][random.below(3)] });
        if random.percent(50) && !last {
            disk.stop_after(random.below(60));
        }
        let opened = MetaLog::open_on(Arc::new(disk.clone()), key());
        let Ok(mut meta) = opened else {
            assert!(matches!(opened, Err(OpenError::Io(_))), "{opened:?}");
            disk.crash();
            continue;
        };
        for _ in 0..=random.below(6) {
            let heads = partitions.each_mut().map(|tree| grow(tree, random.below(3) as u64));
            match meta.publish(&heads) {
                Ok(checkpoint) => {
                    let tiles = meta.tiles();
                    if let Some(before) = shown.filter(|before| before.size() > 0) {
                        let (old, new) = (before.size(), checkpoint.size());
                        let growth = tiles.tiles().prove_growth(old, new).unwrap().unwrap();
                        crate::check_consistency(&growth, new, checkpoint.root(), old, before.root())
                            .unwrap();
                    }
                    assert!(
                        heads.iter().all(|head| tiles.covered(head.origin()).unwrap().size() == head.size())
                    );
                    shown = Some(checkpoint);
                }
                Err(error) => {
                    assert!(!last && matches!(error, TreeError::Io(_) | TreeError::Broken), "{error}")
                }
            }
        }
        if random.percent(70) {
            disk.crash();
        }
    }
}

#[test]
fn no_fault_makes_the_meta_log_contradict_itself() {
    for seed in 0..300 {
        let run = std::panic::catch_unwind(|| schedule(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}
