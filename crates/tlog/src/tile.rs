//! Where tiles and entry bundles are found, and what an entry bundle is made of, as C2SP's tlog-tiles has it.

use std::fmt;
use std::str::FromStr;

use crate::hash::WIDTH;

/// How wide a full tile is.
const FULL: u16 = 256;
const _: () = assert!(FULL as usize == WIDTH);

/// The place of a tile or an entry bundle: what follows `/tile/` in its address, such as `0/x001/234.p/17` or
/// `entries/000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TilePath {
    /// The level of a tile of hashes; `None` for an entry bundle.
    pub level: Option<u8>,
    /// Which tile of its level, from 0.
    pub index: u64,
    /// How many hashes or entries: 1 to 255 for a partial tile, 256 for a full one.
    pub width: u16,
}

impl TilePath {
    /// Every tile and bundle of a tree of that size, partial ones too.
    pub fn all(size: u64) -> impl Iterator<Item = TilePath> {
        let levels = (0..8_u8).map(Some).take_while(move |level| size >> (8 * level.unwrap_or(0)) > 0);
        levels.chain((size > 0).then_some(None)).flat_map(move |level| {
            let count = size >> (8 * level.unwrap_or(0));
            (0..count.div_ceil(FULL.into())).map(move |index| {
                let left = count - index * u64::from(FULL);
                TilePath { level, index, width: u16::try_from(left).map_or(FULL, |left| left.min(FULL)) }
            })
        })
    }

    /// The number, on this tile's level, of its first hash or entry; meant for paths that lead to something.
    pub fn first(&self) -> u64 {
        self.index.saturating_mul(FULL.into())
    }

    /// The number, on this tile's level, behind its last hash or entry; none for what no tree has.
    pub fn end(&self) -> Option<u64> {
        self.index.checked_mul(FULL.into())?.checked_add(self.width.into())
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "{level}/")?,
            None => f.write_str("entries/")?,
        }
        let digits = self.index.checked_ilog(1000).unwrap_or(0);
        for group in (0..=digits).rev() {
            let x = if group > 0 { "x" } else { "" };
            let slash = if group > 0 { "/" } else { "" };
            write!(f, "{x}{:03}{slash}", self.index / 1000_u64.pow(group) % 1000)?;
        }
        if self.width == FULL { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// A path that leads to no tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not the path of a tile or an entry bundle")]
pub struct NoTile;

impl FromStr for TilePath {
    type Err = NoTile;

    fn from_str(text: &str) -> Result<Self, NoTile> {
        let (level, rest) = text.split_once('/').ok_or(NoTile)?;
        let level = if level == "entries" { None } else { Some(level.parse().map_err(|_| NoTile)?) };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().map_err(|_| NoTile)?),
            None => (rest, FULL),
        };
        let index = index.split('/').try_fold(0_u64, |number, group| {
            let group: u64 = group.trim_start_matches('x').parse().ok()?;
            number.checked_mul(1000)?.checked_add(group)
        });
        let path = TilePath { level, index: index.ok_or(NoTile)?, width };
        // There is one way to write each path; whatever else was accepted above is caught here.
        let exists = level.is_none_or(|level| level < 64) && (1..=FULL).contains(&width);
        if exists && path.to_string() == text { Ok(path) } else { Err(NoTile) }
    }
}

/// Adds an entry to a bundle, behind its length. Entries are at most 65,535 bytes long, see
/// [`entry`](crate::entry).
///
/// # Panics
///
/// If the entry is longer.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).expect("long records have a stand-in");
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The first entry of a bundle and the rest; `None` where the bytes end before it does.
pub(crate) fn take_entry(bundle: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bundle.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// A bundle that ends in the middle of an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the entry bundle ends in the middle of an entry")]
pub struct BundleError;

/// The entries of a bundle, one after another.
#[derive(Debug, Clone)]
pub struct Bundle<'a>(&'a [u8]);

impl<'a> Bundle<'a> {
    /// Reads a bundle's bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Bundle(bytes)
    }
}

impl<'a> Iterator for Bundle<'a> {
    type Item = Result<&'a [u8], BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (item, rest) =
            take_entry(self.0).map_or((Err(BundleError), &[][..]), |(entry, rest)| (Ok(entry), rest));
        self.0 = rest;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_c2sp() {
        let path = |level, index, width| TilePath { level, index, width };
        for (text, tile) in [
            ("0/000", path(Some(0), 0, 256)),
            ("1/x001/x234/067", path(Some(1), 1_234_067, 256)),
            ("4/x001/000.p/255", path(Some(4), 1000, 255)),
            ("entries/999.p/1", path(None, 999, 1)),
        ] {
            assert_eq!(tile.to_string(), text);
            assert_eq!(text.parse(), Ok(tile));
        }
        for text in [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "00/000",
            "64/000",
            "-1/000",
            "data/000",
            "0/x000/000",
            "0/001/000",
            "0/x001/x000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/+01",
            "8/0/000",
            "0/xx01/000",
            "0/000/",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
            "entries/000.p/+1",
        ] {
            assert_eq!(text.parse::<TilePath>(), Err(NoTile), "{text}");
        }
    }

    #[test]
    fn a_tree_of_70_000_has_the_tiles_of_the_specification() {
        let all: Vec<_> = TilePath::all(70_000).collect();
        let of =
            |level: Option<u8>| all.iter().filter(move |tile| tile.level == level).map(|tile| tile.width);
        for level in [Some(0), None] {
            assert_eq!(of(level).filter(|width| *width == 256).count(), 273);
            assert_eq!(of(level).next_back(), Some(112));
        }
        assert_eq!(of(Some(1)).collect::<Vec<_>>(), [256, 17]);
        assert_eq!(of(Some(2)).collect::<Vec<_>>(), [1]);
        assert_eq!(of(Some(3)).count(), 0);
        assert_eq!(TilePath::all(0).count(), 0);
        assert_eq!(TilePath::all(256).count(), 3);
    }

    proptest! {
        #[test]
        fn every_path_reads_back(
            level in prop::option::of(0..64_u8), index: u64, shift in 0..64_u32, width in 1..=256_u16,
        ) {
            let path = TilePath { level, index: index >> shift, width };
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn bundles_read_back(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..9)) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| push_entry(&mut bytes, entry));
            let read: Vec<_> = Bundle::new(&bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read, entries);
            if let Some((_, torn)) = bytes.split_last() {
                prop_assert_eq!(Bundle::new(torn).last(), Some(Err(BundleError)));
            }
        }
    }
}
