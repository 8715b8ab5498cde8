//! Votes in: one at a time or in batches, recorded before they are confirmed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use canvass_election::definition::{Contest, Eligibility, VotePolicy, Voting};
use canvass_election::event::{Choices, Event, Vote};
use canvass_election::ids::{ContestId, PartitionId, RecordId};
use canvass_election::tally::{Outcome, Reason};
use canvass_engine::{IngestError, Verdict};
use canvass_protocol::api::{self, Accepted, Receipt, VoteRequest};
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::record::Draft;
use serde::Serialize;

use crate::App;
use crate::auth::{self, KEY_PREFIX, Role};
use crate::body::{self, MediaType, check_key};
use crate::reply::{Answer, PRIVATE, json};

/// Longest name of a voter, in bytes.
const VOTER_LIMIT: usize = 256;

/// How a voter is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Voter<'a> {
    /// By a signed token.
    Token(&'a str),
    /// By the name they or a trusted collector give.
    Named(&'a str),
}

/// What was recorded, and whether it was recorded before this request.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) accepted: Accepted,
    pub(crate) replayed: bool,
}

impl Recorded {
    pub(crate) fn status(&self) -> StatusCode {
        if self.replayed { StatusCode::OK } else { StatusCode::CREATED }
    }

    fn answer(&self) -> Answer {
        json(self.status(), &self.accepted)
    }
}

/// A vote that is ready to be recorded.
struct Prepared {
    partition: PartitionId,
    draft: Draft,
    vote: Vote,
}

/// Casts one vote.
pub(crate) async fn cast(
    app: &App,
    contest: ContestId,
    voter: &Voter<'_>,
    selections: &[String],
    key: Option<&str>,
) -> Result<Recorded, Problem> {
    record(app, prepare(app, contest, voter, selections, key, false)?).await
}

async fn record(app: &App, prepared: Prepared) -> Result<Recorded, Problem> {
    let verdicts = app.engine.ingest().submit(prepared.partition, vec![prepared.draft]).await;
    let verdict = verdicts.map_err(unrecorded)?.pop().ok_or(Code::Internal)?;
    settle(app, &verdict, &prepared.vote).await
}

/// Makes a vote ready. `trusted` is for collectors, who name voters even where a token is needed.
fn prepare(
    app: &App,
    id: ContestId,
    voter: &Voter<'_>,
    selections: &[String],
    key: Option<&str>,
    trusted: bool,
) -> Result<Prepared, Problem> {
    let contest = app.definition().contest(id).ok_or(Code::UnknownContest)?;
    let voting = contest.voting().ok_or_else(|| {
        Problem::new(Code::WrongCounting).detail("units report returns here; there is nothing to vote on")
    })?;
    let subject = subject(app, contest, voting, voter, trusted)?;
    let choices = choices(contest, selections)?;
    let nullifier = app.secret.nullifier(&contest.id, &subject);
    let request = match key {
        Some(key) => {
            check_key(key)?;
            app.secret.request(&nullifier.0, key)
        }
        // One vote a voter: the same choices again can only be a retry.
        None if voting.policy == VotePolicy::One => {
            app.secret.request(&nullifier.0, &format!("choices {choices:?}"))
        }
        None => return Err(Code::IdempotencyKeyRequired.into()),
    };
    refuse_outside_window(app, id, voting, &nullifier)?;
    let vote = Vote { contest: id, nullifier, choices };
    let draft = Draft::new(request, &Event::VoteCast(vote.clone()));
    Ok(Prepared { partition: app.engine.votes_partition(&nullifier), draft, vote })
}

/// Turns away who comes too early or too late, before the log is troubled. Who has voted may be retrying, and
/// gets the answer of the fold.
fn refuse_outside_window(
    app: &App,
    id: ContestId,
    voting: &Voting,
    nullifier: &canvass_election::ids::Nullifier,
) -> Result<(), Problem> {
    let now = app.engine.clock().now();
    let closed = app.edge.published().contests[id.index()].results.state.closed.is_some();
    let code = if voting.opens.is_some_and(|opens| now < opens) {
        Code::NotOpen
    } else if closed || voting.closes.is_some_and(|closes| now >= closes) {
        Code::Closed
    } else {
        return Ok(());
    };
    if app.engine.cast(nullifier).is_some() { Ok(()) } else { Err(code.into()) }
}

fn subject(
    app: &App,
    contest: &Contest,
    voting: &Voting,
    voter: &Voter<'_>,
    trusted: bool,
) -> Result<String, Problem> {
    match (voter, voting.eligibility) {
        (Voter::Token(token), _) => app.tokens.voter(token, &contest.id),
        (Voter::Named(_), Eligibility::Token) if !trusted => Err(Code::TokenMissing.into()),
        (Voter::Named(name), _) if name.is_empty() || name.len() > VOTER_LIMIT => {
            let detail = format!("a voter's name has 1 to {VOTER_LIMIT} bytes");
            Err(Problem::new(Code::BadBody).field("/voter", detail))
        }
        (Voter::Named(name), _) => Ok((*name).to_owned()),
    }
}

fn choices(contest: &Contest, selections: &[String]) -> Result<Choices, Problem> {
    let most = usize::from(contest.max_choices());
    if selections.is_empty() || selections.len() > most {
        let detail = format!("{} selections; the contest takes 1 to {most}", selections.len());
        return Err(Problem::new(Code::BadChoices).field("/selections", detail));
    }
    let mut choices = Choices::new();
    for (i, id) in selections.iter().enumerate() {
        let unknown = || {
            let detail = format!("the contest has no selection `{id}`");
            Problem::new(Code::UnknownSelection).field(format!("/selections/{i}"), detail)
        };
        choices.push(contest.selection_by_id(id).ok_or_else(unknown)?);
    }
    choices.sort_unstable();
    if choices.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::new(Code::BadChoices).field("/selections", "a selection is named twice"));
    }
    Ok(choices)
}

/// Turns the fold's verdict into an answer.
async fn settle(app: &App, verdict: &Verdict, vote: &Vote) -> Result<Recorded, Problem> {
    match &verdict.outcome {
        Outcome::Counted(_) => {
            Ok(Recorded { accepted: counted(verdict.record, verdict.time), replayed: false })
        }
        Outcome::Duplicate { first } => {
            let record = app.engine.record(*first).await.map_err(internal)?.ok_or(Code::Internal)?;
            match &record.event {
                Event::VoteCast(before) if before == vote => {
                    Ok(Recorded { accepted: counted(record.id, record.time), replayed: true })
                }
                _ => Err(Problem::new(Code::KeyReused).record(first)),
            }
        }
        Outcome::Rejected(reason) => Err(refusal_of(*reason)),
        Outcome::Held(_) => Err(Code::Internal.into()),
    }
}

fn counted(record: RecordId, time: canvass_election::ids::Timestamp) -> Accepted {
    Accepted { receipt: Receipt { record, time }, outcome: "counted".to_owned(), held_because: None }
}

pub(crate) fn internal(detail: impl ToString) -> Problem {
    tracing::error!(detail = detail.to_string(), "the engine failed");
    Code::Internal.into()
}

/// Nothing was recorded, or nobody knows.
pub(crate) fn unrecorded(error: IngestError) -> Problem {
    match error {
        IngestError::Overloaded => Code::Overloaded.into(),
        IngestError::Log(_) => Code::LogUnavailable.into(),
        IngestError::Stopping => {
            Problem::new(Code::Overloaded).detail("the service is stopping; try again with the same key")
        }
    }
}

/// The problem that stands for a reason of the fold.
pub(crate) fn refusal_of(reason: Reason) -> Problem {
    let code = match reason {
        Reason::AlreadyVoted { first } => return Problem::new(Code::AlreadyVoted).record(first),
        Reason::VotesUsedUp { last } => return Problem::new(Code::VotesUsedUp).record(last),
        Reason::UnknownContest => Code::UnknownContest,
        Reason::UnknownSelection => Code::UnknownSelection,
        Reason::UnknownUnit => Code::UnknownUnit,
        Reason::UnknownCountType => Code::UnknownCountType,
        Reason::BadChoices => Code::BadChoices,
        Reason::BadCounts => Code::BadCounts,
        Reason::NotOpen => Code::NotOpen,
        Reason::Closed => Code::Closed,
        Reason::NotStanding => Code::NotStanding,
        Reason::NotHeld => Code::NotHeld,
        Reason::Superseded => Code::Superseded,
        Reason::Certified => Code::Certified,
        Reason::NotCalled => Code::NotCalled,
        Reason::NoSuchRecount => Code::NoSuchRecount,
        Reason::RecountOpen => Code::RecountOpen,
        Reason::OutsideRecount => Code::OutsideRecount,
        Reason::AlreadyClosed => Code::AlreadyClosed,
        _ => Code::Internal,
    };
    code.into()
}

/// Who asks for a write: the key of a collector, or nobody the server knows.
fn collector(app: &App, headers: &HeaderMap, peer: SocketAddr, n: usize) -> Result<bool, Problem> {
    match auth::bearer(headers)? {
        Some(key) if key.starts_with(KEY_PREFIX) => {
            let key = app.keys.require(headers, &[Role::Collector])?;
            app.limits.key(&key.name, n)?;
            Ok(true)
        }
        _ => {
            app.limits.address(peer.ip(), n)?;
            Ok(false)
        }
    }
}

/// The voter of a request: by the token of its body or its header, or by name.
fn voter<'a>(request: &'a VoteRequest, bearer: Option<&'a str>) -> Result<Voter<'a>, Problem> {
    let token = request.token.as_deref().or(bearer.filter(|b| !b.starts_with(KEY_PREFIX)));
    match (token, &request.voter) {
        (Some(token), _) => Ok(Voter::Token(token)),
        (None, Some(name)) => Ok(Voter::Named(name)),
        (None, None) => Err(Problem::new(Code::TokenMissing).detail("name a voter, or send a token")),
    }
}

/// `POST /api/v1/vote`
pub(crate) async fn post_vote(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let trusted = collector(&app, &headers, peer, 1)?;
    if body::media_type(&headers)? != MediaType::Json {
        return Err(Code::UnsupportedMediaType.into());
    }
    let body = body::read(body, body::VOTE_LIMIT).await?;
    let request: VoteRequest = api::read(&body)?;
    let header_key = body::idempotency_key(&headers)?;
    let key = header_key.as_deref().or(request.key.as_deref());
    let prepared = prepare_request(&app, &request, auth::bearer(&headers)?, key, trusted)?;
    record(&app, prepared).await?.answer()
}

/// The contest that a body names.
pub(crate) fn contest_in_body(app: &App, id: &str) -> Result<ContestId, Problem> {
    app.definition().contest_by_id(id).ok_or_else(|| {
        Problem::new(Code::UnknownContest).field("/contest", format!("there is no contest `{id}`"))
    })
}

fn prepare_request(
    app: &App,
    request: &VoteRequest,
    bearer: Option<&str>,
    key: Option<&str>,
    trusted: bool,
) -> Result<Prepared, Problem> {
    let contest = contest_in_body(app, &request.contest)?;
    prepare(app, contest, &voter(request, bearer)?, &request.selections, key, trusted)
}

/// One line of the answer to a batch.
#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    status: u16,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    accepted: Option<&'a Accepted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Problem>,
}

/// The answer to a batch: a line for each of its lines, in their order.
pub(crate) fn batch_answer(results: &[Result<Recorded, Problem>]) -> Answer {
    let mut out = Vec::with_capacity(results.len() * 128);
    for (i, result) in results.iter().enumerate() {
        let (status, accepted, problem) = match result {
            Ok(recorded) => (recorded.status().as_u16(), Some(&recorded.accepted), None),
            Err(problem) => (problem.status, None, Some(problem)),
        };
        serde_json::to_writer(&mut out, &Line { line: i + 1, status, accepted, problem })
            .map_err(|_| Code::Internal)?;
        out.push(b'\n');
    }
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, PRIVATE)];
    Ok((headers, out).into_response())
}

/// `POST /api/v1/votes`
pub(crate) async fn post_votes(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    // A batch is lines of JSON under either name; one line is the smallest batch.
    body::media_type(&headers)?;
    let _room = app.limits.batch()?;
    let body = body::read(body, body::BATCH_LIMIT).await?;
    let lines = body::lines(&body)?;
    let trusted = collector(&app, &headers, peer, lines.len())?;
    let prepared = lines.iter().map(|line| {
        let request: VoteRequest = api::read(line)?;
        prepare_request(&app, &request, None, request.key.as_deref(), trusted)
    });
    let mut results: Vec<Result<Recorded, Problem>> = Vec::with_capacity(lines.len());
    let mut by_partition: BTreeMap<PartitionId, Vec<(usize, Prepared)>> = BTreeMap::new();
    for (i, prepared) in prepared.enumerate() {
        match prepared {
            Ok(prepared) => {
                by_partition.entry(prepared.partition).or_default().push((i, prepared));
                results.push(Err(Code::Internal.into()));
            }
            Err(problem) => results.push(Err(problem)),
        }
    }
    let submissions = by_partition.into_iter().map(|(partition, votes)| {
        let drafts = votes.iter().map(|(_, p)| p.draft.clone()).collect();
        let app = &app;
        async move { (votes, app.engine.ingest().submit(partition, drafts).await) }
    });
    for (votes, answer) in futures_util::future::join_all(submissions).await {
        match answer {
            Ok(verdicts) => {
                for ((i, prepared), verdict) in votes.iter().zip(&verdicts) {
                    results[*i] = settle(&app, verdict, &prepared.vote).await;
                }
            }
            Err(error) => {
                let problem = unrecorded(error);
                votes.iter().for_each(|(i, _)| results[*i] = Err(problem.clone()));
            }
        }
    }
    batch_answer(&results)
}
