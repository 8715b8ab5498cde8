//! What of the log's records is served beside the trees: entry bundles, and records too long for them.

use std::collections::HashMap;

use bytes::Bytes;
use canvass_election::ids::{Offset, RecordId};
use canvass_log::{Entry, ReadError};
use canvass_protocol::record::BatchReader;
use canvass_tlog::push_entry;
use futures_util::{Stream, StreamExt};

use super::text;

/// The bundle of `width` entries that begin at a position of the first batch.
pub(super) async fn bundle(
    mut batches: impl Stream<Item = Result<Entry, ReadError>> + Unpin,
    position: u32,
    width: usize,
) -> Result<Vec<u8>, String> {
    let (mut left, mut skip) = (width, usize::try_from(position).map_err(text)?);
    let mut bundle = Vec::new();
    while left > 0 {
        let entry = batches.next().await.ok_or("the log ends before its tree")?.map_err(text)?;
        let records = BatchReader::new(&entry.batch.bytes).map_err(text)?;
        for record in records.skip(std::mem::take(&mut skip)).take(left) {
            push_entry(&mut bundle, &canvass_tlog::entry(record.map_err(text)?));
            left -= 1;
        }
    }
    Ok(bundle)
}

/// The bytes of the record at a position of a batch.
pub(super) fn of(entry: &Entry, position: u32) -> Result<Option<Bytes>, String> {
    let position = usize::try_from(position).map_err(text)?;
    let record = BatchReader::new(&entry.batch.bytes).map_err(text)?.nth(position);
    Ok(record.transpose().map_err(text)?.map(|record| entry.batch.bytes.slice_ref(record)))
}

/// Where a partition's records are that are too long for a bundle, as far as the log was searched for them.
#[derive(Default)]
pub(super) struct LongRecords {
    searched: u64,
    places: HashMap<[u8; 32], RecordId>,
}

impl LongRecords {
    /// The record with that SHA-256, if one of the first `end` batches has it.
    pub(super) async fn find<S: Stream<Item = Result<Entry, ReadError>> + Unpin>(
        &mut self,
        sha256: [u8; 32],
        end: u64,
        read: impl Fn(Offset) -> S,
    ) -> Result<Option<RecordId>, String> {
        let mut batches = None;
        while !self.places.contains_key(&sha256) && self.searched < end {
            let batches = batches.get_or_insert_with(|| read(Offset(self.searched)));
            let entry = batches.next().await.ok_or("the log ends before its tree")?.map_err(text)?;
            self.note(&entry)?;
            self.searched = entry.offset.0 + 1;
        }
        Ok(self.places.get(&sha256).copied())
    }

    fn note(&mut self, entry: &Entry) -> Result<(), String> {
        for (position, record) in (0..).zip(BatchReader::new(&entry.batch.bytes).map_err(text)?) {
            let stand_in = canvass_tlog::entry(record.map_err(text)?);
            if let Some(canvass_tlog::Entry::Long { sha256, .. }) = canvass_tlog::Entry::read(&stand_in) {
                let place = RecordId { partition: entry.partition, offset: entry.offset, position };
                self.places.entry(sha256).or_insert(place);
            }
        }
        Ok(())
    }
}
