//! A log in memory, for tests and trials: it is gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use canvass_election::ids::{Offset, PartitionId};
use futures_util::Stream;
use tokio::sync::watch;

use crate::follow::{Tail, follow};
use crate::{AppendError, Batch, Entry, Log, ReadError, check_size};

/// How many batches a reader takes at once.
const CHUNK_BATCHES: usize = 256;

/// A log in memory. Clones share it; it is closed when the last of them is dropped.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    // Apart from what readers hold, so that they notice when the log is dropped.
    tail: Arc<watch::Sender<Tail>>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    partitions: HashMap<PartitionId, Vec<Batch>>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&self, partition: PartitionId, batch: Batch) -> Result<Offset, AppendError> {
        check_size(&batch)?;
        let mut state = self.shared.state();
        if state.closed {
            return Err(AppendError::Closed(batch));
        }
        let batches = state.partitions.entry(partition).or_default();
        let offset = Offset(batches.len() as u64);
        batches.push(batch);
        // Told while the state is locked, so that it cannot overtake or undo what `close` tells.
        self.tail.send_replace(Tail { closed: false });
        Ok(offset)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self, partition: PartitionId, from: Offset, limit: usize) -> VecDeque<Entry> {
        let state = self.state();
        let start = usize::try_from(from.0).unwrap_or(usize::MAX);
        let batches = state.partitions.get(&partition).and_then(|all| all.get(start..)).unwrap_or_default();
        let numbered = batches.iter().take(limit).zip(from.0..);
        numbered.map(|(batch, n)| Entry { partition, offset: Offset(n), batch: batch.clone() }).collect()
    }
}

impl Log for MemoryLog {
    fn append(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Offset, AppendError>> + Send {
        std::future::ready(self.push(partition, batch))
    }

    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        let tail = self.tail.subscribe();
        follow(from, tail, move |next| Ok(shared.entries(partition, next, CHUNK_BATCHES)))
    }

    async fn end(&self, partition: PartitionId) -> Result<Offset, ReadError> {
        let state = self.shared.state();
        Ok(Offset(state.partitions.get(&partition).map_or(0, Vec::len) as u64))
    }

    async fn entry(&self, partition: PartitionId, offset: Offset) -> Result<Option<Entry>, ReadError> {
        Ok(self.shared.entries(partition, offset, 1).pop_front())
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        let mut state = self.shared.state();
        state.closed = true;
        self.tail.send_replace(Tail { closed: true });
        std::future::ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::log_conformance!(async || (MemoryLog::new(), ()));
}
