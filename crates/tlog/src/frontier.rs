//! A tree in memory, as far as its right edge: what a verifier keeps of the leaves it has seen.

use tlog_tiles::Hash;

use crate::hash::{WIDTH, root, subtree};
use crate::tile::TilePath;
use crate::tree::LEVELS;

/// The right edge of a tree that grows leaf by leaf. It takes the same memory however large the tree is, and
/// every tile passes by once.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    /// The hashes in the last tile of each level, while it is partial.
    edges: [Vec<Hash>; LEVELS],
    size: u64,
}

impl Frontier {
    /// How many leaves were added.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. Each tile that it fills is handed to `full`, the lowest level first; an error of `full` is
    /// returned once the leaf is in.
    pub fn push<E>(
        &mut self,
        leaf: Hash,
        mut full: impl FnMut(TilePath, &[Hash]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut hash, mut result, mut index) = (leaf, Ok(()), self.size);
        self.size += 1;
        for (level, edge) in (0_u8..).zip(&mut self.edges) {
            edge.push(hash);
            if edge.len() < WIDTH {
                break;
            }
            index /= WIDTH as u64;
            let path = TilePath { level: Some(level), index, width: 256 };
            result = result.and_then(|()| full(path, edge));
            hash = subtree(edge);
            edge.clear();
        }
        result
    }

    /// The partial tiles at the right edge, the lowest level first; a level without one is left out.
    pub fn partial_tiles(&self) -> impl Iterator<Item = (TilePath, &[Hash])> {
        (0_u8..).zip(&self.edges).filter(|(_, edge)| !edge.is_empty()).map(|(level, edge)| {
            let width = u16::try_from(edge.len()).expect("a tile is at most 256 wide");
            let index = self.size >> (8 * (u32::from(level) + 1));
            (TilePath { level: Some(level), index, width }, edge.as_slice())
        })
    }

    /// The root of the tree as far as it has grown.
    pub fn root(&self) -> Hash {
        root(self.edges.iter().map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;
    use crate::hash::{from_bytes, leaf_hash};
    use crate::{SecretKey, Tree};

    #[test]
    fn every_tile_and_root_is_that_of_the_tree() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(folder.path(), SecretKey::generate("count.example").unwrap()).unwrap();
        let (mut frontier, mut tiles) = (Frontier::default(), HashMap::new());
        assert_eq!(frontier.root(), tree.publish().unwrap().root());
        let sizes = [1, 2, 255, 256, 257, 600, 65_535, 65_536, 65_537, 70_000];
        for n in 0..*sizes.last().unwrap() {
            let leaf = leaf_hash(&u32::to_be_bytes(n));
            tree.append(&[leaf]).unwrap();
            let Ok(()) = frontier.push(leaf, |path, hashes| {
                tiles.insert(path, hashes.to_vec());
                Ok::<_, Infallible>(())
            });
            if sizes.contains(&(n + 1)) {
                assert_eq!(frontier.root(), tree.publish().unwrap().root(), "{n}");
            }
        }
        tiles.extend(frontier.partial_tiles().map(|(path, hashes)| (path, hashes.to_vec())));
        let wanted: Vec<_> = TilePath::all(frontier.size()).filter(|path| path.level.is_some()).collect();
        assert_eq!(tiles.len(), wanted.len());
        for path in wanted {
            let bytes = tree.tiles().tile(path).unwrap().unwrap();
            assert_eq!(tiles[&path], from_bytes(&bytes), "{path}");
        }
    }
}
