//! The board: puts what the tallies tell into one order, and publishes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use canvass_election::ids::PartitionId;
use canvass_log::Log;
use canvass_log::kafka::{From, Heard, Member, PublishError, Publisher, Said, Subject};
use tokio::sync::watch;

use super::follow::now;
use super::messages::{Flush, Gathering, News, encode, heard};
use super::{Process, place_of, random};

/// How soon something is tried again that Kafka did not do.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a publication may take to come back to the board that made it.
const ECHO: Duration = Duration::from_secs(10);

/// What the tallies have told and no board has published yet.
#[derive(Default)]
struct Inbox(Mutex<BTreeMap<PartitionId, Vec<Flush>>>);

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Vec<Flush>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Log> Process<L> {
    /// Publishes whenever it is this process's turn, and keeps what is to be published ready when it is not.
    pub(super) async fn lead(
        self: Arc<Self>,
        member: Member,
        claims: watch::Receiver<u64>,
    ) -> Result<(), String> {
        let inbox = Inbox::default();
        tokio::select! {
            ended = self.gather(&inbox) => ended,
            ended = self.take_turns(&member, &inbox, claims) => ended,
            () = self.forget(&inbox) => Ok(()),
        }
    }

    /// Takes in what the tallies tell.
    async fn gather(&self, inbox: &Inbox) -> Result<(), String> {
        let partitions: BTreeMap<u16, PartitionId> =
            self.definition.partition_ids().map(|id| (place_of(&self.definition, id), id)).collect();
        let mut gathering: BTreeMap<u16, Gathering> = BTreeMap::new();
        let partials = self.exchange.follow(Subject::Partials, None, From::Start);
        let mut partials = partials.map_err(|e| e.to_string())?;
        loop {
            let next = partials.next().await.map_err(|e| e.to_string())?;
            let Heard::Said { partition: place, .. } = &next else { continue };
            let (Some(id), Some(told)) = (partitions.get(place), heard(&next)?) else { continue };
            if let Some(flush) = gathering.entry(*place).or_default().take(*id, told) {
                inbox.lock().entry(*id).or_default().push(flush);
            }
        }
    }

    /// Drops what was published, by whichever board.
    async fn forget(&self, inbox: &Inbox) {
        let mut heard = self.board.heard().subscribe();
        while heard.changed().await.is_ok() {
            let mut inbox = inbox.lock();
            inbox.values_mut().for_each(|flushes| *flushes = self.board.news(flushes));
        }
    }

    async fn take_turns(
        &self,
        member: &Member,
        inbox: &Inbox,
        mut claims: watch::Receiver<u64>,
    ) -> Result<(), String> {
        let mut assigned = member.assigned();
        loop {
            let share = assigned.wait_for(|share| !share.is_empty()).await;
            let turn = share.map_err(|_| "the group of boards cannot be joined any more")?.clone();
            let over = async {
                let mut assigned = assigned.clone();
                let _ = assigned.wait_for(|share| *share != turn).await;
            };
            tokio::select! {
                () = over => tracing::info!("another board publishes now"),
                error = self.publish(inbox, &mut claims) => {
                    tracing::warn!(error, "this board begins anew");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Publishes until that fails, and says why.
    async fn publish(&self, inbox: &Inbox, claims: &mut watch::Receiver<u64>) -> String {
        let publisher = match self.begin(claims).await {
            Ok(publisher) => publisher,
            Err(error) => return error,
        };
        tracing::info!("this board publishes now");
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let flushes: Vec<_> = inbox.lock().values().flatten().cloned().collect();
            let flushes = self.board.news(&flushes);
            if flushes.is_empty() {
                continue;
            }
            match self.say(&publisher, &News::Update { published: now(), flushes: flushes.clone() }).await {
                Ok(()) => {}
                Err(Failure::Publish(PublishError::Io(error))) => {
                    // It may be published all the same: what is new is worked out again.
                    tracing::warn!(%error, "results cannot be published; trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return error.into(),
            }
            if tokio::time::timeout(ECHO, self.echo(&flushes)).await.is_err() {
                return "what was published does not come back".to_owned();
            }
        }
    }

    /// Shuts out the board before, and waits until all that it published has been heard.
    async fn begin(&self, claims: &mut watch::Receiver<u64>) -> Result<Publisher, String> {
        let publisher = self.exchange.publisher(Subject::Results, 0).await.map_err(|e| e.to_string())?;
        let published = now();
        let number = random().max(1);
        let news = News::Board { number, epoch: published.0 / 1000, published };
        self.say(&publisher, &news).await.map_err(String::from)?;
        match tokio::time::timeout(ECHO, claims.wait_for(|last| *last == number)).await {
            Ok(Ok(_)) => Ok(publisher),
            _ => Err("the results cannot be read to their end".to_owned()),
        }
    }

    async fn say(&self, publisher: &Publisher, news: &News) -> Result<(), Failure> {
        let value = encode(news).map_err(Failure::Encode)?;
        publisher.publish(&[Said { key: Vec::new(), value }]).await.map_err(Failure::Publish)
    }

    /// Waits until what was published has come back.
    async fn echo(&self, flushes: &[Flush]) {
        let mut heard = self.board.heard().subscribe();
        let _ = heard.wait_for(|()| self.board.news(flushes).is_empty()).await;
    }
}

enum Failure {
    Encode(String),
    Publish(PublishError),
}

impl std::convert::From<Failure> for String {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Encode(reason) => reason,
            Failure::Publish(error) => error.to_string(),
        }
    }
}
