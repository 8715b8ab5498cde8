//! The table of voters, packed: 31 bytes an entry in pages that are never moved, and 5 bytes a slot of an index.
//!
//! A live vote knows tens of millions of voters at once, so what each takes decides what a machine can hold. A
//! hash map of whole entries would hold up to twice as many slots as voters, and would copy them all when it grows.

use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Nullifier, Offset};

/// Bytes of an entry: nullifier 16, request tag 4, offset 5, position 2, choice 4; numbers little-endian.
const ENTRY: usize = 31;
/// Entries of a page.
const PAGE: usize = 4_096;
/// First offset, and first position, that an entry has no room for.
const OFFSETS: u64 = 1 << 40;
const POSITIONS: u32 = 1 << 16;

/// What is kept of a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) nullifier: Nullifier,
    /// Part of the id of the request that brought the vote.
    pub(super) request: u32,
    pub(super) offset: Offset,
    pub(super) position: u32,
    pub(super) choice: u32,
}

impl Entry {
    /// Whether the place is one that an entry has room for. A batch holds fewer than 2^16 records, and a partition
    /// fewer than 2^40 batches, unless something else than a gateway wrote them.
    pub(super) fn fits(offset: Offset, position: u32) -> bool {
        offset.0 < OFFSETS && position < POSITIONS
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.nullifier.0);
        bytes[16..20].copy_from_slice(&self.request.to_le_bytes());
        bytes[20..25].copy_from_slice(&self.offset.0.to_le_bytes()[..5]);
        bytes[25..27].copy_from_slice(&self.position.to_le_bytes()[..2]);
        bytes[27..].copy_from_slice(&self.choice.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY]) -> Self {
        let b = bytes;
        let mut nullifier = Nullifier([0; 16]);
        nullifier.0.copy_from_slice(&b[..16]);
        Entry {
            nullifier,
            request: u32::from_le_bytes([b[16], b[17], b[18], b[19]]),
            offset: Offset(u64::from_le_bytes([b[20], b[21], b[22], b[23], b[24], 0, 0, 0])),
            position: u32::from(u16::from_le_bytes([b[25], b[26]])),
            choice: u32::from_le_bytes([b[27], b[28], b[29], b[30]]),
        }
    }
}

type Page = Vec<[u8; ENTRY]>;

/// Entries in the order in which they came, found by nullifier.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pages: Vec<Page>,
    index: HashTable<u32>,
}

/// A nullifier is itself a keyed hash, so its first half hashes it.
fn hash(nullifier: &[u8]) -> u64 {
    nullifier.first_chunk().map_or(0, |half| u64::from_le_bytes(*half))
}

fn at(pages: &[Page], number: u32) -> &[u8; ENTRY] {
    let number = number as usize;
    &pages[number / PAGE][number % PAGE]
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The number of the voter's entry.
    pub(super) fn find(&self, nullifier: &Nullifier) -> Option<u32> {
        let same = |number: &u32| at(&self.pages, *number)[..16] == nullifier.0;
        self.index.find(hash(&nullifier.0), same).copied()
    }

    /// The entry of this number.
    pub(super) fn get(&self, number: u32) -> Entry {
        Entry::from_bytes(at(&self.pages, number))
    }

    /// Puts another entry of the same voter in place of the one of this number.
    pub(super) fn replace(&mut self, number: u32, entry: &Entry) {
        let number = number as usize;
        self.pages[number / PAGE][number % PAGE] = entry.to_bytes();
    }

    /// Adds the entry of a voter who has none, and returns its number; none where 2^32 have one.
    pub(super) fn push(&mut self, entry: &Entry) -> Option<u32> {
        let number = u32::try_from(self.len()).ok()?;
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages.last_mut()?.push(entry.to_bytes());
        let pages = &self.pages;
        self.index.insert_unique(hash(&entry.nullifier.0), number, |n| hash(at(pages, *n)));
        Some(number)
    }

    /// Every entry with its number, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Entry)> {
        (0u32..).zip(self.pages.iter().flatten().map(Entry::from_bytes))
    }

    /// Bytes of memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * ENTRY + self.index.allocation_size()
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.pages == other.pages
    }
}

impl Eq for Table {}

/// The entries as one run of bytes; the index is made anew from them.
impl Serialize for Table {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.len() * ENTRY);
        self.pages.iter().for_each(|page| bytes.extend_from_slice(page.as_flattened()));
        s.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let bytes = serde_bytes::ByteBuf::deserialize(d)?;
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(D::Error::custom("the table of voters is not whole"));
        }
        let pages: Vec<Page> = entries
            .chunks(PAGE)
            .map(|chunk| {
                let mut page = Vec::with_capacity(PAGE);
                page.extend_from_slice(chunk);
                page
            })
            .collect();
        let mut index = HashTable::with_capacity(entries.len());
        for (number, entry) in (0u32..).zip(entries) {
            index.insert_unique(hash(entry), number, |n| hash(at(&pages, *n)));
        }
        if index.len() != entries.len() {
            return Err(D::Error::custom("the table of voters is too long"));
        }
        Ok(Table { pages, index })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(voter: u64, value: u32) -> Entry {
        let mut nullifier = Nullifier([0; 16]);
        let spread = voter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        nullifier.0[..8].copy_from_slice(&spread.to_le_bytes());
        nullifier.0[8..].copy_from_slice(&voter.to_le_bytes());
        let (offset, position) = (Offset(OFFSETS - 1 - u64::from(value)), value % POSITIONS);
        Entry { nullifier, request: !value, offset, position, choice: value }
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_that_keeps_the_order(
            steps in prop::collection::vec((0u64..40, any::<u32>()), 0..200),
        ) {
            let (mut table, mut map, mut order) = (Table::default(), HashMap::new(), Vec::new());
            for (voter, value) in steps {
                let entry = entry(voter, value);
                match table.find(&entry.nullifier) {
                    Some(number) => table.replace(number, &entry),
                    None => {
                        table.push(&entry);
                        order.push(entry.nullifier);
                    }
                }
                map.insert(entry.nullifier, entry);
            }
            prop_assert_eq!(table.len(), map.len());
            let listed: Vec<_> = table.iter().map(|(_, e)| e).collect();
            prop_assert_eq!(listed, order.iter().map(|n| map[n]).collect::<Vec<_>>());
            let bytes = postcard::to_stdvec(&table).unwrap();
            let again: Table = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&again, &table);
            for (nullifier, entry) in &map {
                prop_assert_eq!(again.find(nullifier).map(|n| again.get(n)), Some(*entry));
            }
        }
    }

    #[test]
    fn a_voter_takes_less_than_forty_two_bytes_when_there_are_many() {
        let mut table = Table::default();
        // Just below the size at which the index grows, and just above it, where it has the most room to spare.
        for (voters, most) in [(1_834_000, 37), (1_836_000, 43)] {
            while table.len() < voters {
                let voter = table.len() as u64;
                table.push(&entry(voter, 0));
            }
            assert!(table.bytes() < voters * most, "{} bytes for {voters}", table.bytes());
        }
    }
}
