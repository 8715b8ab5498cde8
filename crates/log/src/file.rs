//! A log in a folder: one journal of segment files, one writer, one sync for every group of batches.
//!
//! `docs/log-format.md` maps the bytes.

mod disk;
mod index;
mod metrics;
mod reader;
mod recovery;
mod segment;
mod writer;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use canvass_election::ids::{Offset, PartitionId};
use futures_util::Stream;
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};

use self::disk::{Disk, Folder};
use self::index::Index;
use self::metrics::Metrics;
use self::reader::Reader;
use self::writer::{Append, Queue, Writer};
use crate::follow::{Tail, follow};
use crate::{AppendError, Batch, Entry, Log, QUEUE_BATCHES, QUEUE_BYTES, ReadError, check_size};

/// The length at which a segment is full and the next one is begun.
pub const SEGMENT_BYTES: u64 = 256 << 20;
/// The longest segment that can be asked for: positions in a segment are 32 bits wide.
pub const MAX_SEGMENT_BYTES: u64 = 2 << 30;
/// The file whose lock keeps a second process out of the folder.
const LOCK_FILE: &str = "lock";

/// What can be chosen about a journal; the defaults suit all but tests.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// [`SEGMENT_BYTES`] unless asked for; at most [`MAX_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// [`QUEUE_BATCHES`] unless asked for.
    pub queue_batches: usize,
    /// [`QUEUE_BYTES`] unless asked for.
    pub queue_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, queue_batches: QUEUE_BATCHES, queue_bytes: QUEUE_BYTES }
    }
}

/// What was found in a journal when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// How many segment files there are.
    pub segments: usize,
    /// How many batches they hold.
    pub batches: u64,
    /// How many records the batches hold.
    pub records: u64,
    /// How long the segments are together.
    pub bytes: u64,
    /// What the last write before a crash left unfinished.
    pub torn_tail: Option<TornTail>,
}

/// Bytes of a write that a crash interrupted. They were never acknowledged, and were cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's file name.
    pub segment: String,
    /// The segment's length now.
    pub at: u64,
    /// How many bytes were cut.
    pub bytes_cut: u64,
}

/// Why a journal could not be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder open.
    #[error("{} is in use by another process: stop it, or choose another folder", .0.display())]
    Locked(PathBuf),
    /// A frame that was durable is not as it was written.
    #[error(
        "{segment} is damaged at byte {at}: {what}. Nothing was changed. Acknowledged records are affected, \
         so it is not repaired here: put back a copy of this file, or see docs/log-format.md"
    )]
    Corrupt {
        /// The segment's file name.
        segment: String,
        /// The first byte of the damaged frame.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The journal is of a version that is not known here.
    #[error("{segment} has format version {found}; this program reads version {}", segment::VERSION)]
    Version {
        /// The segment's file name.
        segment: String,
        /// Its version.
        found: u32,
    },
    /// The folder could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file, or `.` for the folder itself.
        file: String,
        /// The fault.
        source: io::Error,
    },
}

/// A journal in a folder. It is closed when dropped: what was appended is finished, the folder is released.
pub struct FileLog {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    metrics: Metrics,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for FileLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileLog").finish_non_exhaustive()
    }
}

/// What the writer and the readers share.
struct Shared {
    disk: Arc<dyn Disk>,
    index: RwLock<Index>,
    tail: watch::Sender<Tail>,
}

impl Shared {
    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileLog {
    /// Opens the journal in a folder, which is made if it is not there. Every frame is checked; this reads
    /// the whole journal and blocks meanwhile.
    ///
    /// # Errors
    /// If the folder is in use, damaged, of an unknown version, or cannot be read and written.
    pub fn open(folder: impl AsRef<Path>) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(folder, Options::default())
    }

    /// Opens the journal in a folder, with other limits than usual.
    ///
    /// # Errors
    /// As [`FileLog::open`].
    pub fn open_with(folder: impl AsRef<Path>, options: Options) -> Result<(Self, Recovered), OpenError> {
        let folder = folder.as_ref();
        let io = |source| OpenError::Io { file: folder.display().to_string(), source };
        let disk = Folder::open(folder).map_err(io)?;
        let lock = File::create(folder.join(LOCK_FILE)).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked(folder.to_owned()),
            TryLockError::Error(source) => io(source),
        })?;
        let (writer, recovered) = start(Arc::new(disk), options.segment_bytes)?;
        let queue = Arc::new(Queue::new(options.queue_batches, options.queue_bytes));
        let shared = Arc::clone(writer.shared());
        let thread = thread::Builder::new().name("journal".to_owned());
        let for_writer = Arc::clone(&queue);
        let metrics = writer.metrics().clone();
        let handle = thread.spawn(move || writer::run(writer, &for_writer, lock)).map_err(io)?;
        Ok((Self { shared, queue, metrics, writer: Mutex::new(Some(handle)) }, recovered))
    }

    /// Adds what can be measured of the journal to a registry.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    fn enqueue(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> Result<oneshot::Receiver<Result<Offset, AppendError>>, AppendError> {
        check_size(&batch)?;
        let (answer, answered) = oneshot::channel();
        self.queue.push(Append { partition, batch, answer })?;
        Ok(answered)
    }

    fn join(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the journal's writer panicked");
        }
    }
}

/// Recovers the journal on a disk and makes its writer.
fn start(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<(Writer, Recovered), OpenError> {
    let journal = recovery::recover(disk.as_ref())?;
    let recovered = journal.recovered.clone();
    Ok((Writer::new(disk, journal, segment_bytes.min(MAX_SEGMENT_BYTES)), recovered))
}

impl Log for FileLog {
    fn append(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Offset, AppendError>> + Send {
        let kept = batch.clone();
        let queued = self.enqueue(partition, batch);
        async move {
            let stopped = || io::Error::other("the journal's writer stopped");
            queued?
                .await
                .unwrap_or_else(|_| Err(AppendError::Io { batch: kept, source: Arc::new(stopped()) }))
        }
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        let mut reader = Reader::new(Arc::clone(&self.shared), partition);
        follow(from, self.shared.tail.subscribe(), move |next| reader.chunk(next, usize::MAX))
    }

    async fn end(&self, partition: PartitionId) -> Result<Offset, ReadError> {
        Ok(self.shared.index().end(partition))
    }

    async fn entry(&self, partition: PartitionId, offset: Offset) -> Result<Option<Entry>, ReadError> {
        Ok(Reader::new(Arc::clone(&self.shared), partition).chunk(offset, 1)?.pop_front())
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        self.queue.close();
        async {
            let mut tail = self.shared.tail.subscribe();
            // The sender lives in `shared`, so waiting cannot fail.
            let _ = tail.wait_for(|tail| tail.closed).await;
            self.join();
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.queue.close();
        self.join();
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
