//! Votes in: one at a time or in batches, recorded before they are confirmed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use canvass_election::event::Vote;
use canvass_election::ids::{ContestId, PartitionId};
use canvass_engine::{Judged, Until};
use canvass_protocol::api::{self, Accepted, VoteRequest};
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::record::Drafts;
use serde::Serialize;

use crate::App;
use crate::auth;
use crate::body::{self, MediaType};
use crate::confirmation::Confirmation;
use crate::reply::{Answer, PRIVATE, json};
use crate::vote::{
    Moment, Prepared, Recorded, Voter, is_collector, prepare, prepare_request, settle, unrecorded,
};

/// Casts one vote.
pub(crate) async fn cast(
    app: &App,
    contest: ContestId,
    voter: Voter<'_>,
    selections: &[String],
    key: Option<&str>,
) -> Result<Recorded, Problem> {
    let selections = selections.iter().map(String::as_str);
    let prepared = prepare(app, &Moment::new(app), contest, voter, selections, key, false);
    let recorded = match prepared {
        Ok(prepared) => record(app, prepared, Until::Judged).await,
        Err(problem) => Err(problem),
    };
    noted(app, recorded)
}

/// Counts a vote by what became of it.
fn noted(app: &App, recorded: Result<Recorded, Problem>) -> Result<Recorded, Problem> {
    app.metrics.general().votes.note(&recorded);
    recorded
}

async fn record(
    app: &App,
    Prepared { partition, request, vote }: Prepared,
    until: Until,
) -> Result<Recorded, Problem> {
    let mut drafts = Drafts::default();
    drafts.push_vote(request, &vote);
    let since = Instant::now();
    let mut judged = app.engine.ingest().submit(partition, drafts, until).await.map_err(unrecorded)?;
    app.metrics.general().waited(since.elapsed(), 1);
    let verdict = judged.verdicts.pop().ok_or(Code::Internal)?;
    settle(app, (&verdict, &judged.receipts), &vote).await
}

impl Recorded {
    /// The answer to a single request.
    pub(crate) fn answer(&self) -> Answer {
        json(StatusCode::from_u16(self.status()).unwrap_or_default(), &self.accepted())
    }
}

/// `POST /api/v1/vote`
pub(crate) async fn post_vote(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    noted(&app, take_vote(&app, peer, &headers, body).await)?.answer()
}

async fn take_vote(
    app: &App,
    peer: SocketAddr,
    headers: &HeaderMap,
    body: Body,
) -> Result<Recorded, Problem> {
    let credential = auth::bearer(headers)?;
    let trusted = is_collector(app, credential, peer, 1)?;
    if body::media_type(headers)? != MediaType::Json {
        return Err(Code::UnsupportedMediaType.into());
    }
    let body = body::read(body, body::VOTE_LIMIT).await?;
    let request: VoteRequest<'_> = api::read(&body)?;
    let key = body::idempotency_key(headers)?.or(request.key.as_deref());
    let prepared = prepare_request(app, &Moment::new(app), &request, credential, key, trusted)?;
    let mut recorded = record(app, prepared, until(headers)).await?;
    recorded.receipts.take_if(|_| prefers_minimal(headers));
    Ok(recorded)
}

fn until(headers: &HeaderMap) -> Until {
    let wait = body::prefers_wait(headers.get_all("prefer").iter().map(HeaderValue::as_bytes));
    if wait { Until::Judged } else { Until::Recorded }
}

fn prefers_minimal(headers: &HeaderMap) -> bool {
    body::prefers_minimal(headers.get_all("prefer").iter().map(HeaderValue::as_bytes))
}

/// What is said of a line of a batch that does not simply count.
#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Accepted(Box<Accepted>),
    Refused { problem: &'a Problem },
}

/// The answer to a batch: a line for each of its lines, in their order.
pub(crate) fn batch_answer(headers: &HeaderMap, results: &[Result<Recorded, Problem>]) -> Answer {
    let minimal = prefers_minimal(headers);
    let mut out = Vec::with_capacity(results.len() * if minimal { 160 } else { 1_200 });
    let mut confirmation = Confirmation::new();
    for (i, result) in results.iter().enumerate() {
        let status = result.as_ref().map_or_else(|problem| problem.status, Recorded::status);
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(br#"{"line":"#);
        out.extend_from_slice(digits.format(i + 1).as_bytes());
        out.extend_from_slice(br#","status":"#);
        out.extend_from_slice(digits.format(status).as_bytes());
        out.push(b',');
        let said = match result {
            Ok(Recorded { record, time, known, held: None, receipts, .. }) => {
                let promises = receipts.as_ref().filter(|_| !minimal).and_then(|receipts| receipts.get());
                confirmation.write((*record, *time, *known), promises, &mut out);
                out.extend_from_slice(b"}\n");
                continue;
            }
            Ok(recorded) => Said::Accepted(Box::new(recorded.accepted())),
            Err(problem) => Said::Refused { problem },
        };
        let members = serde_json::to_vec(&said).map_err(|_| Code::Internal)?;
        out.extend_from_slice(&members[1..]);
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
    let credential = auth::bearer(&headers)?;
    let trusted = is_collector(&app, credential, peer, lines.len())?;
    let (moment, since) = (Moment::new(&app), Instant::now());
    let mut results: Vec<Option<Result<Recorded, Problem>>> = Vec::with_capacity(lines.len());
    let mut by_partition: BTreeMap<PartitionId, (Drafts, Vec<(usize, Vote)>)> = BTreeMap::new();
    for (i, line) in lines.iter().enumerate() {
        let prepared = api::read(line).and_then(|request: VoteRequest<'_>| {
            prepare_request(&app, &moment, &request, None, request.key.as_deref(), trusted)
        });
        results.push(match prepared {
            Ok(Prepared { partition, request, vote }) => {
                let (drafts, votes) = by_partition.entry(partition).or_default();
                drafts.push_vote(request, &vote);
                votes.push((i, vote));
                None
            }
            Err(problem) => Some(Err(problem)),
        });
    }
    let submissions = by_partition.into_iter().map(|(partition, (drafts, votes))| {
        let (app, until) = (&app, until(&headers));
        async move { (votes, app.engine.ingest().submit(partition, drafts, until).await) }
    });
    for (votes, answer) in futures_util::future::join_all(submissions).await {
        match answer {
            Ok(Judged { verdicts, receipts }) => {
                for ((i, vote), verdict) in votes.iter().zip(&verdicts) {
                    results[*i] = Some(settle(&app, (verdict, &receipts), vote).await);
                }
            }
            Err(error) => {
                let problem = unrecorded(error);
                votes.iter().for_each(|(i, _)| results[*i] = Some(Err(problem.clone())));
            }
        }
    }
    let results = results.into_iter().collect::<Option<Vec<_>>>().ok_or(Code::Internal)?;
    let counts = app.metrics.general();
    results.iter().for_each(|result| counts.votes.note(result));
    counts.waited(since.elapsed(), results.len());
    batch_answer(&headers, &results)
}
