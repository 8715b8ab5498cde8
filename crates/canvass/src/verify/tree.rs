//! Checks one tree: every entry, tile and root, from the first leaf to the last.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use canvass_election::ids::RecordId;
use canvass_tlog::{Bundle, Frontier, Hash, TilePath, leaf_hash};

use super::difference::{Difference, Halt};
use super::source::Source;

/// The leaves of a full tile.
pub(crate) const WIDTH: u64 = 256;

/// Somebody's word for what a tree of some size hashes to.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) by: By,
}

/// Whose word it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// The checkpoint that is served.
    Checkpoint,
    /// A leaf of the meta-log.
    Meta(u64),
    /// A checkpoint that was kept.
    Since,
    /// An anchor outside.
    Anchor,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Checkpoint => f.write_str("the checkpoint"),
            By::Meta(leaf) => write!(f, "the checkpoint in leaf {leaf} of the meta-log"),
            By::Since => f.write_str("the checkpoint that was kept"),
            By::Anchor => f.write_str("the anchor"),
        }
    }
}

/// Which tree.
pub(crate) struct Log<'a> {
    /// How differences name it.
    pub(crate) name: &'a str,
    /// What its files' paths begin with.
    pub(crate) prefix: &'a str,
    pub(crate) size: u64,
}

impl Log<'_> {
    fn file(&self, path: TilePath) -> String {
        format!("{}/tile/{path}", self.prefix)
    }

    fn wrong(&self, what: impl Into<String>) -> Difference {
        Difference::new(self.name, what)
    }
}

/// A bundle of a tree of that size, which must have it.
pub(crate) fn bundle(index: u64, size: u64) -> TilePath {
    let width = size.saturating_sub(index.saturating_mul(WIDTH)).min(WIDTH);
    TilePath { level: None, index, width: u16::try_from(width).unwrap_or(256) }
}

/// What takes the entries of a tree, one after another.
pub(crate) trait Entries {
    /// Takes the next entry.
    fn take(&mut self, leaf: u64, entry: &[u8]) -> Result<(), Halt>;
    /// The record of a leaf that was taken, where leaves are records.
    fn record(&self, leaf: u64) -> Option<RecordId>;
}

/// Tiles and bundles in the order in which [`check`] needs them: a bundle, the tile of its leaves, each tile that
/// those fill; partial tiles of the levels above last.
fn order(size: u64) -> impl Iterator<Item = TilePath> + Send + 'static {
    let bundles = size.div_ceil(WIDTH);
    let of_bundle = move |index: u64| {
        let bundle = bundle(index, size);
        let own = [bundle, TilePath { level: Some(0), ..bundle }];
        let filled = (1..8_u8).map_while(move |level| {
            let leaves = WIDTH.checked_pow(u32::from(level) + 1)?;
            let end = (index + 1) * WIDTH;
            (bundle.width == 256 && end.is_multiple_of(leaves)).then(|| TilePath {
                level: Some(level),
                index: end / leaves - 1,
                width: 256,
            })
        });
        own.into_iter().chain(filled)
    };
    let edges = (1..8_u8).filter_map(move |level| {
        let hashes = size >> (8 * u32::from(level));
        let width = u16::try_from(hashes % WIDTH).unwrap_or(0);
        (width > 0).then_some(TilePath { level: Some(level), index: hashes / WIDTH, width })
    });
    (0..bundles).flat_map(of_bundle).chain(edges)
}

/// Reads a whole tree, hands its entries over in order, and compares what they hash to with every tile that is
/// published and with every claim. `claims` are in ascending order of their sizes, none above the tree's.
pub(crate) fn check(
    source: &Source,
    log: &Log<'_>,
    claims: &[Claim],
    done: &AtomicU64,
    entries: &mut impl Entries,
) -> Result<Vec<Difference>, Halt> {
    let prefix = log.prefix.to_owned();
    let files = source.each(order(log.size).map(move |path| format!("{prefix}/tile/{path}")));
    let mut files = order(log.size).zip(files);
    let mut walk = Walk {
        log,
        claims: claims.iter(),
        own: Frontier::default(),
        served: None,
        agreed: 0,
        found: Vec::new(),
    };
    walk.claimed(entries);
    while let Some((path, file)) = files.next() {
        let bytes = present(log, path, file?)?;
        if path.level.is_some() {
            // Only partial tiles above the leaves come here; all others are taken with their bundle.
            walk.compare_edge(path, &bytes);
            continue;
        }
        let (tile, file) = files.next().ok_or_else(|| "the files ended too early".to_owned())?;
        let served = present(log, tile, file?)?;
        let leaves = walk.leaves(path, &bytes, entries)?;
        walk.grow(tile, &leaves, &served, entries, |path| {
            let (next, file) = files.next().ok_or_else(|| "the files ended too early".to_owned())?;
            debug_assert_eq!(next, path);
            present(log, path, file?)
        })?;
        done.fetch_add(leaves.len() as u64, Ordering::Relaxed);
    }
    Ok(walk.found)
}

fn present(log: &Log<'_>, path: TilePath, file: Option<Bytes>) -> Result<Bytes, Halt> {
    file.ok_or_else(|| log.wrong(format!("{} is missing", log.file(path))).into())
}

struct Walk<'a> {
    log: &'a Log<'a>,
    claims: std::slice::Iter<'a, Claim>,
    /// The tree of the entries.
    own: Frontier,
    /// From the first tile on that is not what the entries hash to: the tree of the tiles, and the leaf.
    served: Option<(Frontier, u64, TilePath)>,
    /// The size of the last claim that was true.
    agreed: u64,
    found: Vec<Difference>,
}

impl Walk<'_> {
    fn leaves(&self, path: TilePath, bundle: &[u8], entries: &mut impl Entries) -> Result<Vec<Hash>, Halt> {
        let mut leaves = Vec::with_capacity(usize::from(path.width));
        let file = || self.log.file(path);
        for entry in Bundle::new(bundle) {
            let entry = entry.map_err(|e| self.log.wrong(format!("{}: {e}", file())))?;
            if leaves.len() == usize::from(path.width) {
                return Err(self
                    .log
                    .wrong(format!("{} has more than {} entries", file(), path.width))
                    .into());
            }
            entries.take(self.own.size() + leaves.len() as u64, entry)?;
            leaves.push(leaf_hash(entry));
        }
        if leaves.len() < usize::from(path.width) {
            let (has, wanted) = (leaves.len(), path.width);
            return Err(self.log.wrong(format!("{} has {has} entries, not {wanted}", file())).into());
        }
        Ok(leaves)
    }

    fn grow(
        &mut self,
        tile: TilePath,
        leaves: &[Hash],
        served: &[u8],
        entries: &impl Entries,
        mut next: impl FnMut(TilePath) -> Result<Bytes, Halt>,
    ) -> Result<(), Halt> {
        if served.len() != 32 * leaves.len() {
            let what =
                format!("{} has {} bytes, not {}", self.log.file(tile), served.len(), 32 * leaves.len());
            return Err(self.log.wrong(what).into());
        }
        let hashes = served.as_chunks::<32>().0;
        if self.served.is_none()
            && let Some(at) = hashes.iter().zip(leaves).position(|(served, own)| *served != own.0)
        {
            self.served = Some((self.own.clone(), self.own.size() + at as u64, tile));
        }
        for (leaf, served) in leaves.iter().zip(hashes) {
            let mut above = Vec::new();
            let Ok(()) = self.own.push(*leaf, |path, hashes| {
                if path.level != Some(0) {
                    above.push((path, hashes.to_vec()));
                }
                Ok::<_, std::convert::Infallible>(())
            });
            if let Some((frontier, ..)) = &mut self.served {
                let Ok(()) = frontier.push(Hash(*served), |_, _| Ok::<_, std::convert::Infallible>(()));
            }
            for (path, hashes) in above {
                let bytes = next(path)?;
                self.compare(path, &hashes, &bytes);
            }
            self.claimed(entries);
        }
        Ok(())
    }

    fn compare_edge(&mut self, path: TilePath, bytes: &[u8]) {
        let own = self.own.partial_tiles().find(|(own, _)| *own == path).map(|(_, hashes)| hashes.to_vec());
        self.compare(path, &own.unwrap_or_default(), bytes);
    }

    /// Compares a tile above the leaves.
    fn compare(&mut self, path: TilePath, own: &[Hash], bytes: &[u8]) {
        let served = bytes.as_chunks::<32>().0;
        let at = own.iter().zip(served).position(|(own, served)| own.0 != *served);
        let what = match at {
            // Entries that differ have their own line; all above them follow from that.
            _ if self.served.is_some() || !self.found.is_empty() => return,
            None if bytes.len() == 32 * own.len() => return,
            None => format!("{} has {} bytes, not {}", self.log.file(path), bytes.len(), 32 * own.len()),
            Some(at) => {
                format!("hash {at} of {} is not what the tiles below it hash to", self.log.file(path))
            }
        };
        self.found.push(self.log.wrong(what));
    }

    /// Checks the claims about the tree of the present size.
    fn claimed(&mut self, entries: &impl Entries) {
        while let Some(claim) = self.claims.as_slice().first().filter(|claim| claim.size == self.own.size()) {
            self.claims.next();
            let own = self.own.root() == claim.root;
            let served = self.served.take_if(|(_, leaf, _)| *leaf < claim.size);
            let difference = match &served {
                None if own => None,
                Some((_, leaf, tile)) if own => {
                    let (file, at, by) = (self.log.file(*tile), leaf % WIDTH, &claim.by);
                    let what = format!(
                        "hash {at} of {file} was changed: {by} bears out entry {leaf}, which has another"
                    );
                    Some(self.log.wrong(what))
                }
                Some((frontier, leaf, tile)) if frontier.root() == claim.root => {
                    let file = self.log.file(TilePath { level: None, ..*tile });
                    let (tile, by) = (self.log.file(*tile), &claim.by);
                    let what =
                        format!("entry {leaf} in {file} was changed: {by} bears out its hash in {tile}");
                    Some(self.log.wrong(what).at(entries.record(*leaf)))
                }
                _ => Some(self.contradiction(claim, entries)),
            };
            if let Some(difference) = difference {
                self.found.push(difference);
            }
            if own {
                self.agreed = claim.size;
            } else {
                // Every claim from here on would be as wrong as this one.
                self.claims = [].iter();
            }
        }
    }

    /// No single leaf can be named: those after the last claim that was true are all that is known.
    fn contradiction(&self, claim: &Claim, entries: &impl Entries) -> Difference {
        let Claim { size, by, root } = claim;
        let own = self.own.root();
        if matches!(by, By::Anchor | By::Since) {
            let what = format!(
                "the log was rewritten: its first {size} leaves hash to {own}, and {by} has {root} for so many"
            );
            return self.log.wrong(what);
        }
        let (first, last) = (self.agreed, size.saturating_sub(1));
        let records = match (entries.record(first), entries.record(last)) {
            (Some(from), Some(to)) => format!(", records {from} to {to}"),
            _ => String::new(),
        };
        self.log.wrong(format!(
            "the entries are not what was signed: the first {size} hash to {own}, and {by} says {root}; the first \
             wrong one is among leaves {first} to {last}{records}"
        ))
    }
}
