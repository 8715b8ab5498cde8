//! What a voter has cast is known to the owner of their partition: a gateway asks on the exchange, and is told there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canvass_election::ids::Nullifier;
use canvass_election::tally::Cast;
use canvass_log::Log;
use canvass_log::kafka::{Exchange, From, Subject};
use tokio::sync::oneshot;

use super::messages::{Answer, Question, encode, heard};
use super::{Process, random};
use crate::Elsewhere;
use crate::partition::Partition;

/// How often a question is asked, and how long an answer is waited for each time.
const TIMES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(1);

/// The questions of a gateway that are not answered yet.
pub(crate) struct Questions {
    exchange: Exchange,
    open: Mutex<HashMap<u64, oneshot::Sender<Option<Cast>>>>,
}

impl Questions {
    pub(super) fn new(exchange: Exchange) -> Arc<Self> {
        Arc::new(Questions { exchange, open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Option<Cast>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the owner of a partition what a voter has cast there.
    pub(crate) async fn ask(&self, place: u16, nullifier: Nullifier) -> Result<Option<Cast>, Elsewhere> {
        let number = random();
        let question = encode(&Question { number, nullifier }).map_err(|_| Elsewhere::Silent)?;
        let (sender, mut answer) = oneshot::channel();
        self.open().insert(number, sender);
        let mut told = Err(Elsewhere::Silent);
        // A partition that is changing its owner hears nothing for a moment.
        for _ in 0..TIMES {
            self.exchange.mention(Subject::Questions, place, &question);
            if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut answer).await {
                told = answer.map_err(|_| Elsewhere::Silent);
                break;
            }
        }
        self.open().remove(&number);
        told
    }

    /// Hands over what an owner has told, if it was asked here.
    pub(super) fn told(&self, number: u64, cast: Option<Cast>) {
        if let Some(asked) = self.open().remove(&number) {
            // Whoever asked may have gone.
            let _ = asked.send(cast);
        }
    }
}

impl<L: Log> Process<L> {
    /// Answers what gateways ask of a partition, for as long as it is this process's.
    pub(super) async fn answer(self: Arc<Self>, partition: Arc<Partition>, place: u16) -> Result<(), String> {
        let questions = self.exchange.follow(Subject::Questions, Some(place), From::Now);
        let mut questions = questions.map_err(|e| e.to_string())?;
        loop {
            let next = questions.next().await.map_err(|e| e.to_string())?;
            let Some(Question { number, nullifier }) = heard(&next)? else { continue };
            let cast = partition.tally().cast(&nullifier);
            self.exchange.mention(Subject::Verdicts, place, &encode(&Answer::Cast { number, cast })?);
        }
    }
}
