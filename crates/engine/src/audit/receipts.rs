//! The receipts of a batch's records, made when it is folded, or again for who asks a second time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use canvass_election::ids::{Offset, PartitionId, Timestamp};
use canvass_log::Entry;
use canvass_protocol::record::{BatchReader, DecodeError, time};
use canvass_tlog::receipt::BatchReceipts;
use canvass_tlog::{SecretKey, record_hash};

/// Records of batches whose receipts are kept for who asks again; about 200 bytes each.
const KEPT_RECORDS: u64 = 200_000;
/// Most such batches; a batch takes about 1,500 bytes beside its records.
const KEPT_BATCHES: usize = 8_192;

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
    fn new(entry: Entry, key: Arc<SecretKey>) -> Self {
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

/// Promises the records of one partition's batches.
pub(crate) struct Promises {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) recent: Recent,
}

impl Promises {
    /// The receipts of a batch.
    pub(crate) fn of(&self, entry: &Entry) -> Arc<Receipts> {
        self.recent.receipts(entry.clone(), &self.key)
    }
}

/// Makes receipts, and keeps those of late: clients that were cut off come back together.
#[derive(Clone, Default)]
pub(crate) struct Recent(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    batches: HashMap<(PartitionId, Offset), Arc<Receipts>>,
    order: VecDeque<(PartitionId, Offset)>,
    records: u64,
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, partition: PartitionId, offset: Offset) -> Option<Arc<Receipts>> {
        self.kept().batches.get(&(partition, offset)).cloned()
    }

    /// The receipts of a batch, which are kept. `key` is that of its partition.
    pub(crate) fn receipts(&self, entry: Entry, key: &Arc<SecretKey>) -> Arc<Receipts> {
        let (place, records) = ((entry.partition, entry.offset), u64::from(entry.batch.count));
        let receipts = Arc::new(Receipts::new(entry, Arc::clone(key)));
        let mut kept = self.kept();
        if kept.batches.insert(place, Arc::clone(&receipts)).is_none() {
            kept.order.push_back(place);
            kept.records += records;
        }
        while (kept.records > KEPT_RECORDS || kept.order.len() > KEPT_BATCHES)
            && let Some(oldest) = kept.order.pop_front()
            && let Some(old) = kept.batches.remove(&oldest)
        {
            kept.records -= u64::from(old.entry.batch.count);
        }
        receipts
    }
}
