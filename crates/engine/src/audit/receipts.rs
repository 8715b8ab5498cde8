//! The receipts of a batch's records, made when it is folded, or again for who asks a second time.

use std::collections::VecDeque;
use std::sync::Arc;

use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_log::Entry;
use canvass_protocol::record::{BatchReader, DecodeError, time};
use canvass_tlog::receipt::BatchReceipts;
use canvass_tlog::{SecretKey, record_hash};

/// Records of batches whose receipts are kept for who asks next; about a hundred bytes each.
const KEPT_RECORDS: u64 = 500_000;

/// Signs for the records of a batch. `key` is that of the partition.
pub(crate) fn sign(entry: &Entry, key: &SecretKey) -> Result<BatchReceipts, DecodeError> {
    let mut hashes = Vec::with_capacity(usize::try_from(entry.batch.count).unwrap_or(0));
    let mut moment = Timestamp(0);
    for record in BatchReader::new(&entry.batch.bytes)? {
        let record = record?;
        moment = time(record)?;
        hashes.push(record_hash(record));
    }
    Ok(BatchReceipts::sign(key, entry.offset.0, moment.0, hashes))
}

/// Receipts that were made again of late: clients that were cut off come back together.
#[derive(Default)]
pub(super) struct Recent {
    batches: VecDeque<(PartitionId, Offset, Arc<BatchReceipts>)>,
    records: u64,
}

impl Recent {
    pub(super) fn get(&self, partition: PartitionId, offset: Offset) -> Option<Arc<BatchReceipts>> {
        let found = self.batches.iter().find(|(p, o, _)| (*p, *o) == (partition, offset));
        found.map(|(_, _, receipts)| Arc::clone(receipts))
    }

    pub(super) fn put(&mut self, partition: PartitionId, offset: Offset, receipts: Arc<BatchReceipts>) {
        self.records += receipts.size();
        self.batches.push_back((partition, offset, receipts));
        while self.records > KEPT_RECORDS
            && let Some((_, _, old)) = self.batches.pop_front()
        {
            self.records -= old.size();
        }
    }
}
