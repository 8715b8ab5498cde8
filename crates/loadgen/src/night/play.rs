//! Plays a night through the public API.

use std::collections::BTreeMap;

use canvass_election::ids::{RecordId, Timestamp};
use canvass_protocol::api::{
    Accepted, CallRequest, CorrectionRequest, ReasonRequest, RecountRequest, ReturnRequest,
};
use serde::Serialize;

use super::{Action, Night, Step};
use crate::batch;
use crate::client::{Client, Error};
use crate::pace::{Pace, Stop};
use crate::replay::set_clock;

/// How far a night is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Steps that are done.
    pub done: usize,
    /// How many there are.
    pub of: usize,
    /// The virtual time.
    pub now: Timestamp,
    /// Returns that were held when they came.
    pub held: usize,
}

struct Player<'a> {
    client: &'a Client,
    second: &'a Client,
    records: BTreeMap<&'a str, RecordId>,
    progress: Progress,
}

/// Plays the night from `start`, at the pace, which may change meanwhile, and tells `watch` how far it is after
/// each move of the clock. Ends early when it is told to stop. Played again from the same start, it finds what
/// was recorded before and goes on from there. The second client confirms what the first proposes.
pub async fn play(
    [client, second]: [&Client; 2],
    night: &Night,
    start: Timestamp,
    pace: &Pace,
    stop: &Stop,
    mut watch: impl FnMut(Progress),
) -> Result<Progress, Error> {
    let progress = Progress { done: 0, of: night.script.len(), now: start, held: 0 };
    let mut player = Player { client, second, records: BTreeMap::new(), progress };
    let played = stop.or(player.play(&night.script, start, pace, &mut watch)).await;
    played.unwrap_or(Ok(()))?;
    Ok(player.progress)
}

impl<'a> Player<'a> {
    async fn play(
        &mut self,
        script: &'a [Step],
        start: Timestamp,
        pace: &Pace,
        watch: &mut impl FnMut(Progress),
    ) -> Result<(), Error> {
        let moment = |step: &Step| {
            let after = u64::try_from(step.after.as_millis()).unwrap_or(u64::MAX);
            Timestamp(start.0.saturating_add(after))
        };
        let end = script.last().map_or(start, moment);
        while let Some(next) = script.get(self.progress.done) {
            // At the highest speed the clock still stops at each moment: the night keeps its order of time.
            let until = if pace.times() == Pace::MAX { moment(next) } else { end };
            self.progress.now = pace.tick(self.progress.now, until).await;
            set_clock(self.client, self.progress.now).await?;
            let now = self.progress.now;
            let rest = script.split_at(self.progress.done).1;
            let due = rest.split_at(rest.partition_point(|step| moment(step) <= now)).0;
            for same in
                due.chunk_by(|a, b| batch_path(&a.action).is_some_and(|p| Some(p) == batch_path(&b.action)))
            {
                self.perform(same).await?;
                self.progress.done += same.len();
            }
            watch(self.progress);
        }
        Ok(())
    }

    /// Performs one step, or several that one batch can hold.
    async fn perform(&mut self, steps: &'a [Step]) -> Result<(), Error> {
        let [first, ..] = steps else { return Ok(()) };
        let requests: Vec<&ReturnRequest> = steps.iter().filter_map(|step| return_of(&step.action)).collect();
        if requests.is_empty() {
            let record = self.act(first).await?;
            self.records.insert(&first.key, record);
            return Ok(());
        }
        let path = match &first.action {
            Action::Recount { of, .. } => format!("/api/v1/recounts/{}/returns", self.record(of)?),
            _ => "/api/v1/returns".to_owned(),
        };
        let answers = batch::send(self.client, &path, &batch::lines(&requests)).await?;
        for (step, answer) in steps.iter().zip(answers) {
            let accepted = answer.accepted(|| step.key.clone())?;
            self.progress.held += usize::from(accepted.outcome == "held");
            self.records.insert(&step.key, accepted.receipt.record);
        }
        Ok(())
    }

    async fn act(&self, step: &Step) -> Result<RecordId, Error> {
        let because = |reason: &String| ReasonRequest { reason: reason.clone() };
        let accepted: Accepted = match &step.action {
            Action::Correct { of, counts, reason } => {
                let path = format!("/api/v1/returns/{}/corrections", self.record(of)?);
                let body = CorrectionRequest { reason: reason.clone(), counts: counts.clone() };
                self.client.post(&path, &step.key, &body).await?
            }
            Action::Release { of, reason } => {
                let path = format!("/api/v1/returns/{}/release", self.record(of)?);
                self.client.post(&path, &step.key, &because(reason)).await?
            }
            Action::Reject { of, reason } => {
                let path = format!("/api/v1/returns/{}/reject", self.record(of)?);
                self.client.post(&path, &step.key, &because(reason)).await?
            }
            Action::OpenRecount { contest, unit, reason } => {
                let (contest, unit, reason) = (contest.clone(), unit.clone(), reason.clone());
                let body = RecountRequest { contest, unit, reason };
                self.client.post("/api/v1/recounts", &step.key, &body).await?
            }
            Action::CloseRecount { of, reason } => {
                let path = format!("/api/v1/recounts/{}/close", self.record(of)?);
                self.client.post(&path, &step.key, &because(reason)).await?
            }
            Action::ProposeCall { contest, winners, reason } => {
                let body = CallRequest { winners: winners.clone(), reason: reason.clone() };
                let path = format!("/api/v1/contests/{contest}/call");
                self.client.post(&path, &step.key, &body).await?
            }
            Action::ConfirmCall { of, reason } => {
                let path = format!("/api/v1/calls/{}/confirm", self.record(of)?);
                self.second.post(&path, &step.key, &because(reason)).await?
            }
            Action::Certify { contest, reason } => {
                let path = format!("/api/v1/contests/{contest}/certify");
                self.client.post(&path, &step.key, &because(reason)).await?
            }
            Action::Return(request) | Action::Recount { found: request, .. } => {
                self.client.post("/api/v1/returns", &step.key, request).await?
            }
        };
        Ok(accepted.receipt.record)
    }

    fn record(&self, key: &str) -> Result<RecordId, Error> {
        let found = self.records.get(key).copied();
        found.ok_or_else(|| Error::Mismatch(format!("the script speaks of `{key}` before it happened")))
    }
}

fn return_of(action: &Action) -> Option<&ReturnRequest> {
    match action {
        Action::Return(request) | Action::Recount { found: request, .. } => Some(request),
        _ => None,
    }
}

/// Where a batch of such steps goes: the recount's key, or nothing for returns; none where there is no batch.
fn batch_path(action: &Action) -> Option<&str> {
    match action {
        Action::Return(_) => Some(""),
        Action::Recount { of, .. } => Some(of),
        _ => None,
    }
}
