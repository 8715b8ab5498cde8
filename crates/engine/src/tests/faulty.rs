//! A log in memory that fails when told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use canvass_election::ids::{Offset, PartitionId};
use canvass_log::{AppendError, Batch, Entry, Log, MemoryLog, ReadError};
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appends {
    Work,
    /// They fail, and nothing is written.
    Fail,
    /// This many work, the others fail.
    Last(u32),
    /// They wait until something else is said.
    Wait,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reads {
    #[default]
    Work,
    /// As long as there are failures left, an entry that comes is a failure instead.
    Fail,
    Panic,
}

/// Clones share it.
#[derive(Clone)]
pub(crate) struct FaultyLog {
    pub(crate) inner: MemoryLog,
    pub(crate) appends: watch::Sender<Appends>,
    pub(crate) reads: watch::Sender<Reads>,
    pub(crate) failures: Arc<AtomicU32>,
}

impl FaultyLog {
    pub(crate) fn new() -> Self {
        FaultyLog {
            inner: MemoryLog::new(),
            appends: watch::Sender::new(Appends::Work),
            reads: watch::Sender::default(),
            failures: Arc::default(),
        }
    }
}

fn broken() -> Arc<io::Error> {
    Arc::new(io::Error::other("broken on purpose"))
}

impl Log for FaultyLog {
    async fn append(&self, partition: PartitionId, batch: Batch) -> Result<Offset, AppendError> {
        let mut appends = self.appends.subscribe();
        let now = *appends.wait_for(|a| *a != Appends::Wait).await.unwrap();
        match now {
            Appends::Fail | Appends::Last(0) => return Err(AppendError::Io { batch, source: broken() }),
            Appends::Last(n) => self.appends.send_replace(Appends::Last(n - 1)),
            _ => now,
        };
        self.inner.append(partition, batch).await
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        let (reads, failures) = (self.reads.subscribe(), Arc::clone(&self.failures));
        let fail = move || failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        self.inner.read(partition, from).map(move |entry| match *reads.borrow() {
            Reads::Fail if fail().is_ok() => Err(ReadError::Io(broken())),
            Reads::Panic => panic!("on purpose"),
            _ => entry,
        })
    }

    async fn end(&self, partition: PartitionId) -> Result<Offset, ReadError> {
        self.inner.end(partition).await
    }

    async fn entry(&self, partition: PartitionId, offset: Offset) -> Result<Option<Entry>, ReadError> {
        self.inner.entry(partition, offset).await
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        self.inner.close()
    }
}
