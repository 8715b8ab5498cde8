//! Returns in, and everything the desk does: each an event in the log, each answered with its receipt.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use canvass_election::definition::CountItemType;
use canvass_election::event::{
    Actor, Cell, ContestAct, Correction, Event, HeldAnswer, RecountClosing, RecountOpening, RecountReturn,
    Return,
};
use canvass_election::ids::{PartitionId, RecordId, RequestId, Timestamp};
use canvass_election::tally::{HoldReason, Outcome, Remembered};
use canvass_engine::{Judged, Until, Verdict};
use canvass_protocol::api::{
    self, ClockRequest, CorrectionRequest, ReasonRequest, RecountRequest, ReturnRequest,
};
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::record::Drafts;
use rand::RngCore;
use serde_json::json;

use crate::App;
use crate::auth::{self, Key, Role};
use crate::body::{self, MediaType, check_key};
use crate::calls;
use crate::gateway::batch_answer;
use crate::reply::{Answer, json};
use crate::vote::{Receipts, Recorded, contest_in_body, internal, receipts_again, refusal_of, unrecorded};

/// Longest reason, in bytes.
const REASON_LIMIT: usize = 2_000;

/// A hold's rule in one sentence.
pub(crate) fn held_because(reason: &HoldReason) -> String {
    match reason {
        HoldReason::LowerCount { standing } => {
            format!("a count is lower than in {standing}; send a correction that names that record")
        }
        HoldReason::VotesAboveBallots => "there are more votes than the ballots could hold".to_owned(),
        HoldReason::AboveRegistered => "there are more votes or ballots than registered voters".to_owned(),
        HoldReason::PartsNotTotal => "the votes do not add up to the total that is stated".to_owned(),
        HoldReason::Doubling { standing } => format!("every count is exactly twice that of {standing}"),
        HoldReason::Replayed { of } => format!("another unit reported exactly these counts in {of}"),
        HoldReason::ParentTotal { .. } => "the counts are the total of a unit above this one".to_owned(),
        HoldReason::UnderRecount { recount } => {
            format!("the recount {recount} is open here; send the counts as its returns")
        }
    }
}

/// Records one event in one partition and answers what it did. A retry of the same event gets the first answer.
pub(crate) async fn record(
    app: &App,
    partition: PartitionId,
    request: RequestId,
    event: Event,
) -> Result<Recorded, Problem> {
    let draft = Drafts::one(request, &event);
    let submitted = app.engine.ingest().submit(partition, draft, Until::Judged).await;
    let recorded = match submitted.map_err(unrecorded) {
        Ok(Judged { mut verdicts, receipts }) => match verdicts.pop() {
            Some(verdict) => settle(app, (&verdict, &receipts), &event).await,
            None => Err(Code::Internal.into()),
        },
        Err(problem) => Err(problem),
    };
    let counts =
        matches!(event, Event::ReturnReported(_) | Event::ReturnCorrected(_) | Event::RecountReported(_));
    if counts {
        app.metrics.returns().note(&recorded);
    }
    recorded
}

async fn settle(
    app: &App,
    (verdict, receipts): (&Verdict, &Receipts),
    event: &Event,
) -> Result<Recorded, Problem> {
    let Verdict { record, time, outcome } = verdict;
    // Returns are folded wherever they are taken in.
    let outcome = outcome.as_ref().ok_or(Code::Internal)?;
    let (record, time, remembered, replayed) = match outcome {
        Outcome::Counted(_) => (*record, *time, Remembered::Counted, false),
        Outcome::Held(reason) => (*record, *time, Remembered::Held(*reason), false),
        Outcome::Rejected(reason) => (*record, *time, Remembered::Rejected(*reason), false),
        Outcome::Duplicate { first } => {
            let before = app.engine.record(*first).await.map_err(internal)?.ok_or(Code::Internal)?;
            if before.event != *event {
                return Err(Problem::new(Code::KeyReused).record(first));
            }
            let remembered = app.engine.outcome_of(first).ok_or(Code::Internal)?;
            (before.id, before.time, remembered, true)
        }
    };
    let held = match remembered {
        Remembered::Counted => None,
        Remembered::Held(reason) => Some(reason),
        Remembered::Rejected(reason) => return Err(refusal_of(reason)),
    };
    let receipts = if replayed { receipts_again(app, record).await? } else { receipts.clone() };
    Ok(Recorded { record, time, known: true, held, replayed, receipts })
}

/// A key with one of the roles, and its share of the rate.
fn allow(app: &App, headers: &HeaderMap, peer: SocketAddr, roles: &[Role]) -> Result<Arc<Key>, Problem> {
    match auth::bearer(headers).and_then(|credential| app.keys.require(credential, roles)) {
        Ok(key) => {
            app.limits.key(&key.name, 1)?;
            Ok(key)
        }
        Err(problem) => {
            // Guessing keys is slowed down by the limit of the address.
            app.limits.address(peer.ip(), 1)?;
            Err(problem)
        }
    }
}

/// The id of a request by its idempotency key. Without one, every request is a new one: counts are cumulative, so
/// the same return again changes nothing, and an act of the desk that was done is refused the second time. To take
/// equal bodies for retries would be wrong, since a number may be corrected and then rightly be stated again.
fn request_id(app: &App, key: &Key, given: Option<&str>) -> Result<RequestId, Problem> {
    match given {
        Some(given) => {
            check_key(given)?;
            Ok(app.secret.request(key.name.as_bytes(), given))
        }
        None => {
            let mut id = RequestId([0; 16]);
            rand::rng().fill_bytes(&mut id.0);
            Ok(id)
        }
    }
}

/// A single request to the desk, read and allowed.
pub(crate) struct Asked<T> {
    pub(crate) body: T,
    pub(crate) request: RequestId,
    pub(crate) actor: Actor,
}

pub(crate) async fn ask<T: serde::de::DeserializeOwned>(
    app: &App,
    (peer, headers, body): (SocketAddr, HeaderMap, Body),
    roles: &[Role],
) -> Result<Asked<T>, Problem> {
    let key = allow(app, &headers, peer, roles)?;
    if body::media_type(&headers)? != MediaType::Json {
        return Err(Code::UnsupportedMediaType.into());
    }
    let bytes = body::read(body, body::SINGLE_LIMIT).await?;
    let request = request_id(app, &key, body::idempotency_key(&headers)?)?;
    Ok(Asked { body: api::read(&bytes)?, request, actor: Actor(key.name.clone()) })
}

pub(crate) fn reason(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.len() > REASON_LIMIT {
        let detail = format!("say why, in 1 to {REASON_LIMIT} bytes; it stands in the public log");
        return Err(Problem::new(Code::BadBody).field("/reason", detail));
    }
    Ok(text.to_owned())
}

/// A record that a path names, in a partition that the log has.
pub(crate) fn record_id(app: &App, text: &str) -> Result<RecordId, Problem> {
    let known = |r: &RecordId| app.definition().partition_ids().any(|p| p == r.partition);
    text.parse().ok().filter(known).ok_or_else(|| Code::UnknownRecord.into())
}

fn to_return(app: &App, request: &ReturnRequest, actor: &Actor) -> Result<Return, Problem> {
    let definition = app.definition();
    let id = contest_in_body(app, &request.contest)?;
    let contest = &definition.contests[id.index()];
    if contest.voting().is_some() {
        let detail = "voters vote here; there is nothing to report";
        return Err(Problem::new(Code::WrongCounting).field("/contest", detail));
    }
    let unit = definition.unit_by_id(&request.unit).ok_or_else(|| {
        Problem::new(Code::UnknownUnit).field("/unit", format!("there is no unit `{}`", request.unit))
    })?;
    let count_type = CountItemType::parse(&request.count_type).filter(|t| contest.count_types().contains(t));
    let count_type = count_type.ok_or_else(|| {
        let known: Vec<_> = contest.count_types().iter().map(|t| t.as_str()).collect();
        Problem::new(Code::UnknownCountType)
            .field("/count_type", format!("expected one of {}", known.join(", ")))
    })?;
    let counts = request.counts.to_counts(contest, "/counts")?;
    let cell = Cell { contest: id, unit, count_type };
    Ok(Return { cell, counts, stated_total: request.total, source: actor.clone() })
}

/// What each line of a batch of returns becomes.
type MakeEvent<'a> = dyn Fn(Return) -> (PartitionId, Event) + Send + Sync + 'a;

async fn take_returns(
    app: &App,
    (peer, headers, body): (SocketAddr, HeaderMap, Body),
    make: &MakeEvent<'_>,
) -> Answer {
    let key = allow(app, &headers, peer, &[Role::Source])?;
    let actor = Actor(key.name.clone());
    let media_type = body::media_type(&headers)?;
    let (limit, _room) = match media_type {
        MediaType::Json => (body::SINGLE_LIMIT, None),
        MediaType::Ndjson => (body::BATCH_LIMIT, Some(app.limits.batch()?)),
    };
    let bytes = body::read(body, limit).await?;
    let prepare = |line: &[u8], given: Option<&str>| -> Result<(PartitionId, RequestId, Event), Problem> {
        let request: ReturnRequest = api::read(line)?;
        let id = request_id(app, &key, given.or(request.key.as_deref()))?;
        let (partition, event) = make(to_return(app, &request, &actor)?);
        Ok((partition, id, event))
    };
    if media_type == MediaType::Json {
        let (partition, request, event) = prepare(&bytes, body::idempotency_key(&headers)?)?;
        let recorded = record(app, partition, request, event).await?;
        return recorded.answer();
    }
    let lines = body::lines(&bytes)?;
    app.limits.key(&key.name, lines.len().saturating_sub(1))?;
    let prepared: Vec<_> = lines.into_iter().map(|line| prepare(line, None)).collect();
    let results = record_all(app, prepared).await;
    results.iter().for_each(|result| app.metrics.returns().note(result));
    batch_answer(&headers, &results)
}

/// Records a batch: one submission a partition, in the order of the lines.
async fn record_all(
    app: &App,
    prepared: Vec<Result<(PartitionId, RequestId, Event), Problem>>,
) -> Vec<Result<Recorded, Problem>> {
    let mut by_partition: std::collections::BTreeMap<PartitionId, (Vec<usize>, Drafts)> = Default::default();
    for (i, prepared) in prepared.iter().enumerate() {
        if let Ok((partition, request, event)) = prepared {
            let (lines, drafts) = by_partition.entry(*partition).or_default();
            lines.push(i);
            drafts.push(*request, event);
        }
    }
    let mut answers: Vec<Option<Result<(Verdict, Receipts), Problem>>> =
        prepared.iter().map(|_| None).collect();
    for (partition, (lines, drafts)) in by_partition {
        match app.engine.ingest().submit(partition, drafts, Until::Judged).await {
            Ok(Judged { verdicts, receipts }) => {
                let all = lines.into_iter().zip(verdicts);
                all.for_each(|(i, verdict)| answers[i] = Some(Ok((verdict, receipts.clone()))));
            }
            Err(error) => {
                let problem = unrecorded(error);
                lines.into_iter().for_each(|i| answers[i] = Some(Err(problem.clone())));
            }
        }
    }
    let mut results = Vec::with_capacity(prepared.len());
    for (prepared, answer) in prepared.into_iter().zip(answers) {
        results.push(match (prepared, answer) {
            (Err(problem), _) | (_, Some(Err(problem))) => Err(problem),
            (Ok((_, _, event)), Some(Ok((verdict, receipts)))) => {
                settle(app, (&verdict, &receipts), &event).await
            }
            (Ok(_), None) => Err(Code::Internal.into()),
        });
    }
    results
}

/// `POST /api/v1/returns`
pub(crate) async fn post_returns(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let definition = Arc::clone(app.definition());
    let make = |reported: Return| {
        (definition.returns_partition(reported.cell.unit), Event::ReturnReported(reported))
    };
    take_returns(&app, (peer, headers, body), &make).await
}

/// `POST /api/v1/recounts/{record}/returns`
pub(crate) async fn post_recount_returns(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    Path(recount): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let recount = record_id(&app, &recount)?;
    let make =
        |reported: Return| (recount.partition, Event::RecountReported(RecountReturn { recount, reported }));
    take_returns(&app, (peer, headers, body), &make).await
}

/// `POST /api/v1/returns/{record}/{corrections|release|reject}`
pub(crate) async fn post_return_act(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    Path((target, act)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked = (peer, headers, body);
    let target = record_id(&app, &target);
    let (request, event) = match act.as_str() {
        "corrections" => {
            let asked = ask::<CorrectionRequest>(&app, asked, &[Role::Source, Role::Desk]).await?;
            let corrects = target.clone()?;
            let cell = corrected_cell(&app, corrects).await?;
            let contest = &app.definition().contests[cell.contest.index()];
            let counts = asked.body.counts.to_counts(contest, "/counts")?;
            let reason = reason(&asked.body.reason)?;
            (
                asked.request,
                Event::ReturnCorrected(Correction { corrects, reason, actor: asked.actor, counts }),
            )
        }
        "release" | "reject" => {
            let asked = ask::<ReasonRequest>(&app, asked, &[Role::Desk]).await?;
            let reason = reason(&asked.body.reason)?;
            let answer = HeldAnswer { held: target.clone()?, reason, actor: asked.actor };
            let release = act == "release";
            (
                asked.request,
                if release { Event::ReturnReleased(answer) } else { Event::ReturnRejected(answer) },
            )
        }
        _ => return Err(Code::NotFound.into()),
    };
    let recorded = record(&app, target?.partition, request, event).await?;
    recorded.answer()
}

/// The cell whose counts a record brought, by following corrections and releases back to a return.
async fn corrected_cell(app: &App, record: RecordId) -> Result<Cell, Problem> {
    let mut next = record;
    loop {
        let found = app.engine.record(next).await.map_err(internal)?.ok_or(Code::UnknownRecord)?;
        let back = match found.event {
            Event::ReturnReported(reported) => return Ok(reported.cell),
            Event::RecountReported(counted) => return Ok(counted.reported.cell),
            Event::ReturnCorrected(correction) => correction.corrects,
            Event::ReturnReleased(answer) => answer.held,
            _ => return Err(Code::UnknownRecord.into()),
        };
        // Records name earlier ones only; one that does not was refused when it came.
        if back >= next {
            return Err(Code::UnknownRecord.into());
        }
        next = back;
    }
}

/// `POST /api/v1/recounts`
pub(crate) async fn post_recount(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked: Asked<RecountRequest> = ask(&app, (peer, headers, body), &[Role::Desk]).await?;
    let definition = app.definition();
    let contest = contest_in_body(&app, &asked.body.contest)?;
    if definition.contests[contest.index()].voting().is_some() {
        let detail = "voters vote here; there is nothing to count again";
        return Err(Problem::new(Code::WrongCounting).field("/contest", detail).into());
    }
    let unit = definition.unit_by_id(&asked.body.unit).ok_or_else(|| {
        Problem::new(Code::UnknownUnit).field("/unit", format!("there is no unit `{}`", asked.body.unit))
    })?;
    if definition.partitions.returns > 1 && definition.unit(unit).is_some_and(|u| u.parent.is_none()) {
        let detail = "returns have several partitions here: open a recount for each region";
        return Err(Problem::new(Code::BadBody).field("/unit", detail).into());
    }
    let reason = reason(&asked.body.reason)?;
    let event = Event::RecountOpened(RecountOpening { contest, unit, reason, actor: asked.actor });
    let recorded = record(&app, definition.returns_partition(unit), asked.request, event).await?;
    recorded.answer()
}

/// `POST /api/v1/recounts/{record}/close`
pub(crate) async fn post_recount_close(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    Path(recount): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked: Asked<ReasonRequest> = ask(&app, (peer, headers, body), &[Role::Desk]).await?;
    let recount = record_id(&app, &recount)?;
    let reason = reason(&asked.body.reason)?;
    let event = Event::RecountClosed(RecountClosing { recount, reason, actor: asked.actor });
    let recorded = record(&app, recount.partition, asked.request, event).await?;
    recorded.answer()
}

/// `POST /api/v1/contests/{id}/{close|certify|call|uncall}`
pub(crate) async fn post_contest_act(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    Path((id, act)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked = (peer, headers, body);
    let make = match act.as_str() {
        "close" => Event::ContestClosed,
        "certify" => Event::ContestCertified,
        "call" => return calls::propose(&app, &id, ask(&app, asked, &[Role::Desk]).await?).await,
        "uncall" => return calls::propose_end(&app, &id, ask(&app, asked, &[Role::Desk]).await?).await,
        _ => return Err(Code::NotFound.into()),
    };
    let asked: Asked<ReasonRequest> = ask(&app, asked, &[Role::Desk]).await?;
    let reason = reason(&asked.body.reason)?;
    let event = make(ContestAct { contest: contest_in_body(&app, &id)?, reason, actor: asked.actor });
    record_everywhere(&app, asked.request, event).await?.answer()
}

/// Records an act on a contest in every partition, since each folds alone; the control partition answers.
///
/// It comes last: a failure before it leaves an act that nobody was told of and that a retry completes. What it
/// would refuse must not be recorded in the others, and no partition knows of the recounts of another.
async fn record_everywhere(app: &App, request: RequestId, event: Event) -> Result<Recorded, Problem> {
    if let Event::ContestCertified(act) = &event {
        let state = &app.edge.published().contests[act.contest.index()].results.state;
        if !state.recounts.is_empty() {
            return Err(Code::RecountOpen.into());
        }
    }
    let others = app.definition().partition_ids().filter(|p| *p != PartitionId::CONTROL);
    let drafts = others.map(|partition| {
        app.engine.ingest().submit(partition, Drafts::one(request, &event), Until::Recorded)
    });
    futures_util::future::try_join_all(drafts).await.map_err(unrecorded)?;
    record(app, PartitionId::CONTROL, request, event).await
}

/// `GET /api/v1/held`
pub(crate) async fn get_held(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
) -> Answer {
    allow(&app, &headers, peer, &[Role::Desk, Role::Auditor])?;
    let definition = app.definition();
    let rows = app.engine.held().into_iter().map(|(record, held)| {
        let cell = held.reported.cell;
        let contest = &definition.contests[cell.contest.index()];
        json!({
            "record": record,
            "contest": contest.id,
            "unit": definition.units[cell.unit.index()].id,
            "count_type": cell.count_type.as_str(),
            "counts": canvass_protocol::api::CountsRequest::from_counts(contest, &held.reported.counts),
            "source": held.reported.source.0,
            "because": held_because(&held.reason),
        })
    });
    json(StatusCode::OK, &json!({ "held": rows.collect::<Vec<_>>() }))
}

fn clock_value(now: Timestamp) -> serde_json::Value {
    json!({ "now": canvass_protocol::time::format(now) })
}

/// `GET /api/v1/clock`
pub(crate) async fn get_clock(State(app): State<Arc<App>>) -> Answer {
    json(StatusCode::OK, &clock_value(app.engine.clock().now()))
}

/// `PUT /api/v1/clock`
pub(crate) async fn put_clock(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let asked: Asked<ClockRequest> = ask(&app, (peer, headers, body), &[Role::Desk]).await?;
    if !app.definition().is_test {
        return Err(Code::NotARehearsal.into());
    }
    let now = app.engine.clock().drive(asked.body.now).map_err(internal)?;
    json(StatusCode::OK, &clock_value(now))
}
