//! Projections beside the board: made of the newest results by a thread of their own, published with the next tick.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use canvass_election::ids::{ContestId, SelectionId};
use canvass_election::results::ContestResults;
use canvass_protocol::projection::Projection;
use canvass_protocol::stream::Seq;
use tokio::sync::watch;

use super::{Board, Published};
use crate::projection::Projector;
use crate::publications::Projected;

/// Projections of the past that are kept, so that they need not be made again.
const KEPT: usize = 256;

/// A projection that waits to be published.
pub(crate) struct New {
    pub(crate) projection: Arc<Projection>,
    pub(crate) made_from: Projected,
}

type Kept = ((Seq, ContestId, Option<SelectionId>), Arc<Projection>);

/// What projects, and what it has made.
#[derive(Default)]
pub(crate) struct Projecting {
    pub(crate) projectors: BTreeMap<ContestId, Projector>,
    waiting: Mutex<BTreeMap<ContestId, New>>,
    kept: Mutex<VecDeque<Kept>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Projecting {
    pub(crate) fn new(projectors: BTreeMap<ContestId, Projector>) -> Self {
        Projecting { projectors, ..Projecting::default() }
    }

    /// What waits to be published.
    pub(crate) fn take(&self) -> BTreeMap<ContestId, New> {
        std::mem::take(&mut locked(&self.waiting))
    }

    fn keep(&self, key: (Seq, ContestId, Option<SelectionId>), projection: &Arc<Projection>) {
        let mut kept = locked(&self.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((key, Arc::clone(projection)));
    }
}

impl Board {
    pub(crate) fn is_projected(&self, contest: ContestId) -> bool {
        self.projecting.projectors.contains_key(&contest)
    }

    /// Projects what changed, the newest results always, until told to stop. The board never waits for it.
    pub(crate) async fn project(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut published = self.published();
        let mut seen: BTreeMap<ContestId, Arc<ContestResults>> = BTreeMap::new();
        while !self.projecting.projectors.is_empty() {
            let now = Arc::clone(&published.borrow_and_update());
            for contest in self.projecting.projectors.keys().copied() {
                let results = &now.contests[contest.index()].results;
                let known = seen.get(&contest).is_some_and(|seen| Arc::ptr_eq(seen, results));
                // One that waits is published with the next tick, and then its successor is made.
                if known || locked(&self.projecting.waiting).contains_key(&contest) {
                    continue;
                }
                seen.insert(contest, Arc::clone(results));
                let (board, now) = (Arc::clone(&self), Arc::clone(&now));
                // The engine goes on without a projection that failed.
                let _ = tokio::task::spawn_blocking(move || board.project_now(contest, &now)).await;
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = published.changed() => if changed.is_err() { return },
            }
        }
    }

    fn project_now(&self, contest: ContestId, published: &Published) {
        let Some(projector) = self.projecting.projectors.get(&contest) else { return };
        let of = &published.contests[contest.index()];
        let before = of.projection.as_ref().and_then(|projection| projection.meets);
        let basis = of.stamp.seq;
        let projection = Arc::new(projector.project(&self.definition, &of.results, basis, before));
        self.projecting.keep((basis, contest, before), &projection);
        let model = projector.hash().to_owned();
        let made_from = Projected { contest, basis: basis.seq, model, before };
        locked(&self.projecting.waiting).insert(contest, New { projection, made_from });
    }

    /// A projection as it was: kept, or made again from the same. None where the model is another today.
    pub(crate) fn project_again(&self, epoch: u64, from: &Projected) -> Option<Arc<Projection>> {
        let projector = self.projecting.projectors.get(&from.contest).filter(|p| p.hash() == from.model)?;
        let basis = Seq { epoch, seq: from.basis };
        let key = (basis, from.contest, from.before);
        let kept = locked(&self.projecting.kept).iter().find(|(k, _)| *k == key).map(|(_, p)| Arc::clone(p));
        if kept.is_some() {
            return kept;
        }
        let results = self.contest_at(from.contest, basis)?;
        let projection = Arc::new(projector.project(&self.definition, &results, basis, from.before));
        self.projecting.keep(key, &projection);
        Some(projection)
    }
}
