//! Every process reads the results and keeps what the board has published.

use std::sync::Arc;

use canvass_election::ids::{ContestId, Offset, Timestamp};
use canvass_election::tally::Partial;
use canvass_log::Log;
use canvass_log::kafka::{From, Heard, Subject};
use canvass_protocol::stream::Seq;
use tokio::sync::watch;

use super::Process;
use super::messages::{Flush, News, heard};
use crate::board::Board;
use crate::history;

impl<L: Log> Process<L> {
    /// Keeps the board up to date. `claimed` is the number of the board that published last: it is set once all is
    /// read that is there, and is 0 as long as there is none.
    pub(super) async fn follow_results(self: Arc<Self>, claimed: watch::Sender<u64>) -> Result<(), String> {
        let mut results =
            self.exchange.follow(Subject::Results, None, From::Start).map_err(|e| e.to_string())?;
        let (mut last, mut present) = (0, false);
        loop {
            let next = results.next().await.map_err(|e| e.to_string())?;
            present |= next == Heard::All;
            if let Some(news) = heard::<News>(&next)? {
                if let News::Board { number, .. } = &news {
                    last = *number;
                }
                self.board.hear(news);
            }
            if present && *claimed.borrow() != last {
                claimed.send_replace(last);
            }
        }
    }
}

impl Board {
    /// Takes in what a board has published. All who read the same come to the same, number by number.
    pub(super) fn hear(&self, news: News) {
        let before = self.published().borrow().seq;
        let issued = match news {
            // Another board goes on where the one before it ended.
            News::Board { .. } if before != Seq::default() => return,
            News::Board { epoch, published, .. } => self.begin(epoch, published, self.merge()),
            News::Update { published, flushes } => {
                let mut merge = self.merge();
                let changed = flushes.iter().flat_map(|flush| self.keep(&mut merge, flush)).collect();
                let number = Seq { epoch: before.epoch, seq: before.seq + 1 };
                self.issue(merge, number, published, changed)
            }
        };
        if let Err(error) = issued {
            tracing::error!(%error, "a publication cannot be noted");
        }
        self.heard().send_replace(());
    }

    /// Keeps a flush, unless it is known already; tells which contests have changed.
    fn keep(&self, merge: &mut canvass_election::Merge, flush: &Flush) -> Vec<ContestId> {
        let Some(history) = self.history(flush.partition) else { return Vec::new() };
        let Some(flush) = flush.beyond(known(merge, flush)) else { return Vec::new() };
        let Flush { partition, end, time, partials, changes } = flush;
        let mut changed = Vec::new();
        let mut history = history::write(history);
        for partial in partials {
            history.keep(&partial);
            changed.extend(merge.merge(&partial));
        }
        history.changes.extend(changes);
        let nothing = Partial { partition, end, time, cells: Vec::new(), contests: Vec::new() };
        changed.extend(merge.merge(&nothing));
        changed
    }

    /// What of these flushes is not published yet.
    pub(super) fn news(&self, flushes: &[Flush]) -> Vec<Flush> {
        let merge = self.merge();
        flushes.iter().filter_map(|flush| flush.beyond(known(&merge, flush))).collect()
    }
}

/// How far a flush's partition is published.
fn known(merge: &canvass_election::Merge, flush: &Flush) -> Offset {
    merge.results().watermark.get(&flush.partition).copied().unwrap_or_default()
}

/// The time that a publication gets.
pub(super) fn now() -> Timestamp {
    crate::clock::system_time()
}
