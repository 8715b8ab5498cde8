//! The log: ordered partitions of batches, durable before they are acknowledged.
//!
//! The log is the ground truth of Canvass; everything else is derived from it. It knows nothing of what a
//! batch holds. Three logs live here and pass one conformance suite: [`MemoryLog`]; [`FileLog`], a journal
//! of segment files; and [`KafkaLog`], topics of a Kafka cluster. Nothing is ever removed from a log.

mod follow;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod file;
pub mod kafka;
pub mod memory;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId};
use futures_util::Stream;

pub use file::{FileLog, OpenError, Options, Recovered, TornTail};
pub use kafka::KafkaLog;
pub use memory::MemoryLog;

/// The largest batch a log takes: room for the definition of an election with every precinct of a large country.
pub const MAX_BATCH_BYTES: usize = 32 << 20;
/// How many batches may wait for the writer of a log before [`AppendError::Full`].
pub const QUEUE_BATCHES: usize = 8192;
/// How many bytes may wait for the writer of a log before [`AppendError::Full`].
pub const QUEUE_BYTES: usize = 64 << 20;

/// One gateway flush: some records, as bytes the log does not look into.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// How many records the bytes hold.
    pub count: u32,
    /// The encoded records.
    pub bytes: Bytes,
}

// A batch may be megabytes long: its size says enough in a log line or a failed assertion.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} records, {} bytes)", self.count, self.bytes.len())
    }
}

/// A batch at its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition it was appended to.
    pub partition: PartitionId,
    /// Its place there.
    pub offset: Offset,
    /// What was appended.
    pub batch: Batch,
}

/// Why a batch was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Too much waits already; the batch may be tried again a little later.
    #[error("the log is overloaded: its queue is full")]
    Full(Batch),
    /// The log was closed.
    #[error("the log is closed")]
    Closed(Batch),
    /// The batch can never be appended.
    #[error("a batch of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// The batch's size in bytes.
        size: usize,
        /// [`MAX_BATCH_BYTES`].
        limit: usize,
    },
    /// The log could not be written, and the batch may be tried again. As long as this process lives it is not in
    /// the log; only a log beyond a network may have it all the same, where its answer got lost.
    #[error("the log could not be written: {source}")]
    Io {
        /// What was not appended.
        batch: Batch,
        /// The fault.
        source: Arc<io::Error>,
    },
}

impl AppendError {
    /// The batch that was given back, unless it was too large.
    #[must_use]
    pub fn into_batch(self) -> Option<Batch> {
        match self {
            Self::Full(batch) | Self::Closed(batch) | Self::Io { batch, .. } => Some(batch),
            Self::TooLarge { .. } => None,
        }
    }
}

/// Why the log could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// What lies in the log is not what was written there.
    #[error("{place} is damaged at byte {at}: {what}")]
    Corrupt {
        /// The file, or what stands for one.
        place: String,
        /// The first byte of the damaged frame.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The log could not be read.
    #[error("the log could not be read: {0}")]
    Io(Arc<io::Error>),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Ordered partitions of batches that can be appended to and read, and nothing else.
pub trait Log: Send + Sync + 'static {
    /// Appends a batch. `Ok` means durable.
    ///
    /// The order of calls is the order of records: the batch takes its place when this method is called,
    /// not when the future is first polled. Dropping the future leaves open whether the batch is appended.
    fn append(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Offset, AppendError>> + Send;

    /// Every batch of a partition from an offset on, without gaps: those that are there, then new ones as
    /// they become durable. An offset that is not there yet is waited for.
    ///
    /// The stream ends when the log is closed and everything in it was read, and after an error.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static;

    /// The offset that the partition's next batch will get.
    fn end(&self, partition: PartitionId) -> impl Future<Output = Result<Offset, ReadError>> + Send;

    /// One batch by its place; `None` where there is none yet.
    fn entry(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> impl Future<Output = Result<Option<Entry>, ReadError>> + Send;

    /// Refuses new batches from this call on, finishes those that wait, then ends the streams.
    /// What is in the log can still be read. Closing twice is closing once.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

impl<L: Log> Log for Arc<L> {
    fn append(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Offset, AppendError>> + Send {
        L::append(self, partition, batch)
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        L::read(self, partition, from)
    }

    fn end(&self, partition: PartitionId) -> impl Future<Output = Result<Offset, ReadError>> + Send {
        L::end(self, partition)
    }

    fn entry(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> impl Future<Output = Result<Option<Entry>, ReadError>> + Send {
        L::entry(self, partition, offset)
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        L::close(self)
    }
}

/// Refuses a batch that no log takes.
fn check_size(batch: &Batch) -> Result<(), AppendError> {
    let size = batch.bytes.len();
    if size > MAX_BATCH_BYTES {
        return Err(AppendError::TooLarge { size, limit: MAX_BATCH_BYTES });
    }
    Ok(())
}
