//! The receipts of a batch's records, made when it is folded, or again for who asks a second time.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_log::Entry;
use canvass_protocol::record::{BatchReader, DecodeError, time};
use canvass_tlog::receipt::BatchReceipts;
use canvass_tlog::{SecretKey, record_hash};

/// Records of batches whose receipts are kept for who asks next; about a hundred bytes each.
const KEPT_RECORDS: u64 = 500_000;

/// The receipts of a batch's records. They are made when the first of them is asked for, by whoever asks.
pub struct Receipts {
    entry: Entry,
    key: Arc<SecretKey>,
    made: OnceLock<Option<BatchReceipts>>,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipts({}, batch {})", self.entry.partition, self.entry.offset)
    }
}

impl PartialEq for Receipts {
    fn eq(&self, other: &Self) -> bool {
        (&self.entry, self.key.public()) == (&other.entry, other.key.public())
    }
}

impl Receipts {
    /// Those of a batch. `key` is that of its partition.
    pub fn new(entry: Entry, key: Arc<SecretKey>) -> Self {
        Receipts { entry, key, made: OnceLock::new() }
    }

    /// The receipts; none where the batch is not readable, which the fold would have said.
    pub fn get(&self) -> Option<&BatchReceipts> {
        self.made.get_or_init(|| sign(&self.entry, &self.key).ok()).as_ref()
    }
}

/// Signs for the records of a batch.
fn sign(entry: &Entry, key: &SecretKey) -> Result<BatchReceipts, DecodeError> {
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
    batches: VecDeque<(PartitionId, Offset, Arc<Receipts>)>,
    records: u64,
}

impl Recent {
    pub(super) fn get(&self, partition: PartitionId, offset: Offset) -> Option<Arc<Receipts>> {
        let found = self.batches.iter().find(|(p, o, _)| (*p, *o) == (partition, offset));
        found.map(|(_, _, receipts)| Arc::clone(receipts))
    }

    pub(super) fn put(&mut self, partition: PartitionId, offset: Offset, receipts: Arc<Receipts>) {
        self.records += u64::from(receipts.entry.batch.count);
        self.batches.push_back((partition, offset, receipts));
        while self.records > KEPT_RECORDS
            && let Some((_, _, old)) = self.batches.pop_front()
        {
            self.records -= u64::from(old.entry.batch.count);
        }
    }
}
