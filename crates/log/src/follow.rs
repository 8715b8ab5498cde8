//! The stream every log in this process hands out: what is there, then what comes.

use std::collections::VecDeque;

use canvass_election::ids::Offset;
use futures_util::{Stream, stream};
use tokio::sync::watch;

use crate::{Entry, ReadError};

/// What readers are told when the log changes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tail {
    /// Nothing will be appended any more.
    pub(crate) closed: bool,
}

/// Follows a partition. `chunk` returns some of the entries from an offset on, or none at the end.
pub(crate) fn follow(
    from: Offset,
    tail: watch::Receiver<Tail>,
    chunk: impl FnMut(Offset) -> Result<VecDeque<Entry>, ReadError> + Send + 'static,
) -> impl Stream<Item = Result<Entry, ReadError>> + Send + 'static {
    let state = Follow { next: from, tail, chunk, ready: VecDeque::new(), failed: false };
    stream::unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) })
}

struct Follow<F> {
    next: Offset,
    tail: watch::Receiver<Tail>,
    chunk: F,
    ready: VecDeque<Entry>,
    failed: bool,
}

impl<F: FnMut(Offset) -> Result<VecDeque<Entry>, ReadError>> Follow<F> {
    async fn next(&mut self) -> Option<Result<Entry, ReadError>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                self.next = entry.offset.next();
                return Some(Ok(entry));
            }
            if self.failed {
                return None;
            }
            // Looked at before the log is, so that a change after the look is not missed.
            let closed = self.tail.borrow_and_update().closed;
            match (self.chunk)(self.next) {
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
                Ok(chunk) if !chunk.is_empty() => {
                    self.ready = chunk;
                    // A long replay is always ready; let other tasks of this thread run between chunks.
                    tokio::task::yield_now().await;
                }
                Ok(_) if closed => return None,
                Ok(_) => self.tail.changed().await.ok()?,
            }
        }
    }
}
