use proptest::prelude::*;

use super::*;
use crate::faults::{FaultyDisk, Random};
use crate::hash::{leaf_hash, node_hash};
use crate::proof::verify_inclusion;
use crate::tile::TilePath;
use crate::{check_consistency, record_hash};

/// RFC 6962, section 2.1, word for word.
pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => tlog_tiles::EMPTY_HASH,
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

fn record(n: u64) -> Vec<u8> {
    [b"record ", &n.to_be_bytes()[..]].concat()
}

fn leaves(range: std::ops::Range<u64>) -> Vec<Hash> {
    range.map(|n| leaf_hash(&record(n))).collect()
}

fn key() -> SecretKey {
    // A fixed key, so that a seed is all there is to a run.
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz".parse().unwrap()
}

fn open(disk: &FaultyDisk) -> Tree {
    Tree::open_on(Arc::new(disk.clone()), key(), None).unwrap()
}

/// Appends batches of these sizes and publishes.
fn grow(tree: &mut Tree, batches: &[u64]) -> SignedCheckpoint {
    for count in batches {
        tree.append(&leaves(tree.size()..tree.size() + count)).unwrap();
    }
    tree.publish().unwrap()
}

#[test]
fn every_size_has_the_root_and_the_tiles_of_the_definition() {
    let mut tree = open(&FaultyDisk::new(1));
    let all = leaves(0..600);
    for size in 0..600_usize {
        let checkpoint = if size == 0 { tree.publish().unwrap() } else { grow(&mut tree, &[1]) };
        assert_eq!((checkpoint.size(), checkpoint.root()), (size as u64, naive_root(&all[..size])));
        check_tiles(&tree, &all[..size]);
    }
}

/// Every tile is as the definition has it.
fn check_tiles(tree: &Tree, all: &[Hash]) {
    for path in TilePath::all(all.len() as u64).filter(|path| path.level.is_some()) {
        let span = 256_usize.pow(path.level.unwrap().into());
        let first = usize::try_from(path.index).unwrap() * 256;
        let expected: Vec<u8> = (first..first + usize::from(path.width))
            .flat_map(|n| naive_root(&all[n * span..(n + 1) * span]).0)
            .collect();
        assert_eq!(tree.tiles().tile(path).unwrap(), Some(expected), "{path} of {}", all.len());
    }
}

#[test]
fn nothing_is_shown_before_it_is_published() {
    let mut tree = open(&FaultyDisk::new(1));
    let tiles = tree.tiles();
    let path: TilePath = "0/000.p/3".parse().unwrap();
    tree.append(&leaves(0..3)).unwrap();
    assert_eq!((tiles.checkpoint(), tiles.tile(path).unwrap()), (None, None));
    let checkpoint = tree.publish().unwrap();
    assert_eq!(tiles.checkpoint(), Some(checkpoint));
    assert_eq!(tiles.tile(path).unwrap().unwrap().len(), 96);
    for beyond in ["0/000.p/4", "0/000", "0/001", "1/000.p/1", "7/000.p/1", "entries/000.p/3"] {
        assert_eq!(tiles.tile(beyond.parse().unwrap()).unwrap(), None, "{beyond}");
    }
}

#[test]
fn records_are_found_by_leaf_and_leaves_by_record() {
    let mut tree = open(&FaultyDisk::new(1));
    let batches = [3, 0, 1, 300, 0, 0, 7];
    grow(&mut tree, &batches);
    tree.append(&leaves(311..312)).unwrap();
    let tiles = tree.tiles();
    let mut leaf = 0;
    for (batch, count) in (0..).zip(batches) {
        for position in 0..u32::try_from(count).unwrap() {
            assert_eq!(tiles.leaf(batch, position).unwrap(), Some(leaf));
            assert_eq!(tiles.record(leaf).unwrap(), Some((batch, position)));
            leaf += 1;
        }
        assert_eq!(tiles.leaf(batch, u32::try_from(count).unwrap()).unwrap(), None);
    }
    assert_eq!((tiles.record(311).unwrap(), tiles.leaf(7, 0).unwrap()), (None, None));
    let ends: Vec<u8> = [3_u64, 3, 4, 304, 304, 304, 311].iter().flat_map(|end| end.to_le_bytes()).collect();
    assert_eq!((tiles.batch_ends(0).unwrap(), tiles.batch_ends(1).unwrap()), (Some(ends), None));
    assert_eq!(tiles.batch_ends(u64::MAX).unwrap(), None);
}

#[test]
fn a_tree_goes_on_where_its_checkpoint_says() {
    let disk = FaultyDisk::new(1);
    let before = grow(&mut open(&disk), &[200, 0, 100]);
    let mut tree = open(&disk);
    assert_eq!((tree.size(), tree.next_batch()), (300, 3));
    assert_eq!(tree.tiles().checkpoint(), Some(before.clone()));
    assert_eq!(tree.publish().unwrap(), before);
    let after = grow(&mut tree, &[500]);
    assert_eq!(after.root(), naive_root(&leaves(0..800)));
}

#[test]
fn lost_or_damaged_files_are_made_again_but_never_against_the_checkpoint() {
    for harm in ["level-0", "level-1", "batches", "flipped", "short"] {
        let disk = FaultyDisk::new(1);
        let before = grow(&mut open(&disk), &[300, 77]);
        match harm {
            "flipped" => disk.damage("level-0", |bytes| bytes[32 * 376 + 5] ^= 1),
            "short" => disk.damage("level-0", |bytes| bytes.truncate(bytes.len() - 1)),
            name => disk.remove(name),
        }
        let mut tree = open(&disk);
        assert_eq!((tree.size(), tree.next_batch()), (0, 0), "{harm}");
        assert_eq!((tree.published(), tree.tiles().checkpoint()), (Some(&before), None));
        tree.append(&leaves(0..300)).unwrap();
        assert!(matches!(tree.publish(), Err(TreeError::RolledBack { published: 377, size: 300 })));
        assert_eq!(tree.tiles().checkpoint(), None);
        tree.append(&leaves(300..377)).unwrap();
        assert_eq!(tree.publish().unwrap(), before, "{harm}");
        assert_eq!(tree.tiles().checkpoint(), Some(before));
    }
}

#[test]
fn a_log_that_was_changed_publishes_nothing() {
    let disk = FaultyDisk::new(1);
    let before = grow(&mut open(&disk), &[300]);
    disk.remove("level-0");
    let mut tree = open(&disk);
    let mut other = leaves(0..400);
    other.swap(17, 18);
    tree.append(&other).unwrap();
    assert!(matches!(tree.publish(), Err(TreeError::Contradiction { published: 300 })));
    assert_eq!((tree.published(), tree.tiles().checkpoint()), (Some(&before), None));
    disk.damage("checkpoint", |note| note[25] ^= 1);
    let error = Tree::open_on(Arc::new(disk), key(), None);
    assert!(matches!(error, Err(OpenError::Checkpoint(_))));
}

/// One run of a tree on a disk that fails: whatever happens, each checkpoint that was shown is of the log, the
/// sizes never go back, and in the end all is there.
fn schedule(seed: u64) {
    let mut random = Random(seed);
    let disk = FaultyDisk::new(seed ^ 0xD15C);
    // The log: the ends of its batches.
    let mut log = vec![0_u64];
    let mut shown: Option<SignedCheckpoint> = None;
    for _ in 0..6 {
        disk.fail([0, 3, 20][random.below(3)]);
        if random.percent(50) {
            disk.stop_after(random.below(60));
        }
        if let Ok(mut tree) = Tree::open_on(Arc::new(disk.clone()), key(), None) {
            // What was shown was durable, so no crash makes the tree begin again.
            assert!(shown.as_ref().is_none_or(|shown| tree.size() >= shown.size()));
            run(&mut tree, &mut log, &mut shown, &mut random);
        }
        if random.percent(70) {
            disk.crash();
        }
    }
    disk.fail(0);
    disk.crash();
    let mut tree = open(&disk);
    run(&mut tree, &mut log, &mut shown, &mut Random(seed));
    catch_up(&mut tree, &log).unwrap();
    check(&tree.publish().unwrap(), &shown, &tree);
}

fn catch_up(tree: &mut Tree, log: &[u64]) -> Result<(), TreeError> {
    for ends in log.windows(2).skip(usize::try_from(tree.next_batch()).unwrap()) {
        tree.append(&leaves(ends[0]..ends[1]))?;
    }
    Ok(())
}

fn run(tree: &mut Tree, log: &mut Vec<u64>, shown: &mut Option<SignedCheckpoint>, random: &mut Random) {
    for _ in 0..random.below(8) {
        let more = [0, 1, 5, 256, 700][random.below(5)];
        log.push(log.last().unwrap() + more);
        let published = catch_up(tree, log).and_then(|()| tree.publish());
        match published {
            Ok(checkpoint) => {
                check(&checkpoint, shown, tree);
                *shown = Some(checkpoint);
            }
            Err(TreeError::Io(_) | TreeError::Broken) => {}
            Err(error) => panic!("{error}"),
        }
        // What readers see is what was shown, or nothing yet.
        if let Some(seen) = tree.tiles().checkpoint() {
            assert!(shown.as_ref().is_none_or(|shown| seen.size() >= shown.size()));
        }
    }
}

fn check(checkpoint: &SignedCheckpoint, shown: &Option<SignedCheckpoint>, tree: &Tree) {
    let all = leaves(0..checkpoint.size());
    assert_eq!(checkpoint.root(), naive_root(&all));
    check_tiles(tree, &all);
    if let Some(before) = shown.as_ref().filter(|before| before.size() > 0) {
        let growth = tree.tiles().prove_growth(before.size(), checkpoint.size()).unwrap().unwrap();
        check_consistency(&growth, checkpoint.size(), checkpoint.root(), before.size(), before.root())
            .unwrap();
    }
}

#[test]
fn no_fault_makes_a_tree_contradict_itself() {
    for seed in 0..300 {
        let run = std::panic::catch_unwind(|| schedule(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}

/// The same tree by ct-merkle.
type Oracle = ct_merkle::mem_backed_tree::MemoryBackedTree<sha2::Sha256, Vec<u8>>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn proofs_are_those_of_another_implementation(
        batches in prop::collection::vec(0..400_u64, 1..6), old in 1..2000_u64, index in 0..2000_u64,
    ) {
        let size: u64 = batches.iter().sum();
        prop_assume!(size > 0);
        let (old, index) = (1 + old % size, index % size);
        let mut tree = open(&FaultyDisk::new(1));
        let mut oracle = Oracle::new();
        (0..size).for_each(|n| oracle.push(record(n)));
        let checkpoint = grow(&mut tree, &batches);
        prop_assert_eq!(checkpoint.root().0, <[u8; 32]>::from(*oracle.root().as_bytes()));

        let proof = tree.tiles().prove(index, &checkpoint).unwrap().unwrap();
        let path: Vec<u8> = proof.path.iter().flat_map(|hash| hash.0).collect();
        let other = oracle.prove_inclusion(usize::try_from(index).unwrap());
        prop_assert_eq!(&path, other.as_bytes());
        prop_assert_eq!(verify_inclusion(&record(index), &proof, &key().public()), Ok(checkpoint.clone()));
        prop_assert_eq!(record_hash(&record(index)), leaf_hash(&record(index)));

        let growth = tree.tiles().prove_growth(old, size).unwrap().unwrap();
        let path: Vec<u8> = growth.iter().flat_map(|hash| hash.0).collect();
        let other = oracle.prove_consistency(usize::try_from(size - old).unwrap());
        prop_assert_eq!(&path, other.as_bytes());
        let before = naive_root(&leaves(0..old));
        prop_assert!(check_consistency(&growth, size, checkpoint.root(), old, before).is_ok());
        prop_assert!(check_consistency(&growth, size, checkpoint.root(), old, leaf_hash(b"x")).is_err());
    }
}
