//! Results, past and present, and what led to them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use canvass_election::ids::{ContestId, Timestamp, UnitId};
use canvass_engine::{At, ChangeKind, Elsewhere, Published, TimelineQuery};
use canvass_protocol::document::{By, votes_value};
use canvass_protocol::problem::{Code, Problem};
use canvass_protocol::time;
use serde_json::{Value, json};

use crate::App;
use crate::auth::{self, KEY_PREFIX, Role};
use crate::changes;
use crate::edge::{Body, DocumentKey, build};
use crate::reply::{Answer, IMMUTABLE, LIVE, json as json_answer, prepared};

/// Most points of one timeline.
const MAX_POINTS: usize = 10_000;
/// Most rows of one page of a list.
const MAX_ROWS: usize = 1_000;

pub(crate) type Params = Query<HashMap<String, String>>;

fn bad_parameter(name: &str, detail: &str) -> Problem {
    Problem::new(Code::BadParameter).detail(format!("`{name}`: {detail}"))
}

/// Refuses parameters that mean nothing here: a misspelt one would silently answer another question.
pub(crate) fn known_only(params: &HashMap<String, String>, known: &[&str]) -> Result<(), Problem> {
    match params.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(bad_parameter(key, &format!("not known here; there are {}", known.join(", ")))),
        None => Ok(()),
    }
}

pub(crate) fn contest_of(app: &App, id: &str) -> Result<ContestId, Problem> {
    app.definition().contest_by_id(id).ok_or_else(|| Code::UnknownContest.into())
}

/// The document that `contest`, `unit` and `by` name.
pub(crate) fn key_of(app: &App, params: &HashMap<String, String>) -> Result<DocumentKey, Problem> {
    let definition = app.definition();
    let contest = match (params.get("contest"), definition.contests.as_slice()) {
        (Some(id), _) => contest_of(app, id)?,
        (None, [_]) => ContestId(0),
        (None, _) => return Err(bad_parameter("contest", "name one of the election's contests")),
    };
    let district = definition.contests[contest.index()].unit;
    let unit = match params.get("unit") {
        None => district,
        Some(id) => {
            let unit = definition.unit_by_id(id).filter(|u| definition.is_within(*u, district));
            unit.ok_or(Code::UnknownUnit)?
        }
    };
    let by = match params.get("by") {
        None => By::Unit,
        Some(word) => By::parse(word).ok_or_else(|| bad_parameter("by", "expected total, unit or leaf"))?,
    };
    Ok(DocumentKey { contest, unit, by })
}

fn at_of(text: &str) -> Result<At, Problem> {
    if let Ok(seq) = text.parse() {
        return Ok(At::Seq(seq));
    }
    let time = time::parse(text);
    time.map(At::Time)
        .ok_or_else(|| bad_parameter("at", "expected a moment such as 2026-11-03T20:15:00Z, or epoch:seq"))
}

/// The document of the past, from the edge's memory or from the history.
fn past(app: &App, at: At, key: DocumentKey) -> Result<Arc<Body>, Problem> {
    let name = format!("past {at:?} {key:?}");
    let prepare = || {
        let published: Published = app.engine.results_at(at).ok_or(Code::UnknownSnapshot)?;
        Ok(build(&app.engine, &published, key).body)
    };
    match at {
        // What was published never changes; what had been recorded by a moment may still be growing.
        At::Seq(_) => app.edge.fixed(&name, prepare),
        At::Time(_) => app.edge.prepared(&name, |_| prepare()),
    }
}

/// `GET /api/v1/results`
pub(crate) async fn get_results(
    State(app): State<Arc<App>>,
    Query(params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, &["contest", "unit", "by", "at"])?;
    let key = key_of(&app, &params)?;
    let body = match params.get("at") {
        None => Arc::clone(&app.edge.document(&app.engine, key).body),
        Some(at) => past(&app, at_of(at)?, key)?,
    };
    Ok(prepared(&headers, &body, LIVE))
}

/// `GET /api/v1/snapshots/{epoch}:{seq}`
pub(crate) async fn get_snapshot(
    State(app): State<Arc<App>>,
    Path(number): Path<String>,
    Query(params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, &["contest", "unit", "by"])?;
    let seq = number.parse().map_err(|()| Code::UnknownSnapshot)?;
    let body = past(&app, At::Seq(seq), key_of(&app, &params)?)?;
    Ok(prepared(&headers, &body, IMMUTABLE))
}

/// `GET /api/v1/election`
pub(crate) async fn get_election(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer {
    let body = app.edge.fixed("election", || {
        let value = canvass_protocol::definition::to_value(app.definition());
        Ok::<_, Problem>(Body::new("application/json", value.to_string()))
    })?;
    Ok(prepared(&headers, &body, LIVE))
}

/// Milliseconds of `1s`, `500ms`, `5m` or `1h`.
fn parse_step(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|step| *step > 0)
}

/// `GET /api/v1/contests/{id}/timeline`
pub(crate) async fn get_timeline(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(mut params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, &["unit", "step", "from", "to"])?;
    params.insert("contest".into(), id);
    let key = key_of(&app, &params)?;
    let moment = |name: &str| match params.get(name) {
        None => Ok(None),
        Some(text) => time::parse(text).map(Some).ok_or_else(|| bad_parameter(name, "expected a moment")),
    };
    let step = params.get("step").map_or("1s", String::as_str);
    let step = parse_step(step).ok_or_else(|| bad_parameter("step", "expected 250ms, 1s, 5m or the like"))?;
    let (from, to): (Option<Timestamp>, Option<Timestamp>) = (moment("from")?, moment("to")?);
    let name = format!("timeline {key:?} {step} {from:?} {to:?}");
    let body = app.edge.prepared(&name, |_| {
        let definition = app.definition();
        let contest = &definition.contests[key.contest.index()];
        let inside = |unit: UnitId| definition.is_within(unit, key.unit);
        let points = app.engine.timeline(&TimelineQuery {
            contest: key.contest,
            selections: contest.selections.len(),
            inside: &inside,
            step,
            from,
            to,
            limit: MAX_POINTS,
        });
        let truncated = points.len() == MAX_POINTS;
        let points = points.iter().map(|p| {
            let total = p.counts.total();
            json!({ "time": time::format(p.time), "votes": votes_value(contest, &p.counts), "total": total })
        });
        let value = json!({
            "contest": contest.id,
            "unit": definition.units[key.unit.index()].id,
            "step_ms": step,
            "truncated": truncated,
            "points": points.collect::<Vec<_>>(),
        });
        Ok::<_, Problem>(Body::new("application/json", value.to_string()))
    })?;
    Ok(prepared(&headers, &body, LIVE))
}

/// A page of a list: `offset` and `limit` of the query, and the rows that fall into it.
struct Page {
    offset: usize,
    limit: usize,
    total: usize,
    rows: Vec<Value>,
}

impl Page {
    fn new(params: &HashMap<String, String>) -> Result<Self, Problem> {
        let number = |name: &str, default| match params.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| bad_parameter(name, "expected a whole number")),
        };
        let (offset, limit): (usize, usize) = (number("offset", 0)?, number("limit", MAX_ROWS)?);
        Ok(Page { offset, limit: limit.min(MAX_ROWS), total: 0, rows: Vec::new() })
    }

    fn take(&mut self, row: impl FnOnce() -> Value) {
        if self.total >= self.offset && self.rows.len() < self.limit {
            self.rows.push(row());
        }
        self.total += 1;
    }

    fn body(self, name: &str) -> Arc<Body> {
        let value = json!({ name: self.rows, "offset": self.offset, "total": self.total });
        Body::new("application/json", value.to_string())
    }
}

/// `GET /api/v1/corrections`
pub(crate) async fn get_corrections(
    State(app): State<Arc<App>>,
    Query(params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, &["contest", "offset", "limit"])?;
    let contest = params.get("contest").map(|id| contest_of(&app, id)).transpose()?;
    let mut page = Page::new(&params)?;
    let name = format!("corrections {contest:?} {} {}", page.offset, page.limit);
    let body = app.edge.prepared(&name, |_| {
        app.engine.for_each_change(|change| {
            if change.kind == ChangeKind::Corrected && contest.is_none_or(|c| c == change.contest) {
                page.take(|| changes::correction(app.definition(), change));
            }
        });
        Ok::<_, Problem>(page.body("corrections"))
    })?;
    Ok(prepared(&headers, &body, LIVE))
}

/// `GET /api/v1/units/{id}/history`
pub(crate) async fn get_history(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, &["contest", "offset", "limit"])?;
    let definition = app.definition();
    let unit = definition.unit_by_id(&id).ok_or(Code::UnknownUnit)?;
    let contest = params.get("contest").map(|id| contest_of(&app, id)).transpose()?;
    let mut page = Page::new(&params)?;
    let name = format!("history {unit:?} {contest:?} {} {}", page.offset, page.limit);
    let body = app.edge.prepared(&name, |_| {
        app.engine.for_each_change(|change| {
            let touches = changes::touches(definition, change, unit);
            if touches && contest.is_none_or(|c| c == change.contest) {
                page.take(|| changes::event(definition, change));
            }
        });
        Ok::<_, Problem>(page.body("events"))
    })?;
    Ok(prepared(&headers, &body, LIVE))
}

/// `GET /api/v1/votes/{voter_id}`
pub(crate) async fn get_vote(
    State(app): State<Arc<App>>,
    Path(voter): Path<String>,
    Query(params): Params,
    headers: HeaderMap,
) -> Answer {
    known_only(&params, &["contest"])?;
    let definition = app.definition();
    let only = params.get("contest").map(|id| contest_of(&app, id)).transpose()?;
    let credential = auth::bearer(&headers)?;
    let token = credential.filter(|b| !b.starts_with(KEY_PREFIX));
    if token.is_none() {
        app.keys.require(credential, &[Role::Auditor])?;
    }
    let mut votes = Vec::new();
    let mut refused = None;
    for (id, contest) in definition.contest_ids() {
        if contest.voting().is_none() || only.is_some_and(|only| only != id) {
            continue;
        }
        if let Some(token) = token {
            match app.tokens.voter(token, &contest.id, |subject| subject == voter) {
                Ok(true) => {}
                Ok(false) => {
                    let detail = "a voter's token shows that voter's own vote only";
                    return Err(Problem::new(Code::Forbidden).detail(detail).into());
                }
                Err(problem) => {
                    refused = Some(problem);
                    continue;
                }
            }
        }
        let cast = app.engine.cast_anywhere(&app.secret.nullifier(&contest.id, &voter)).await;
        let cast = cast.map_err(|elsewhere| match elsewhere {
            Elsewhere::Unknown => Problem::new(Code::NotHere).detail("ask a gateway"),
            Elsewhere::Silent => Problem::new(Code::Overloaded).detail(elsewhere.to_string()),
        })?;
        let Some(cast) = cast else { continue };
        let selections: Vec<_> =
            cast.choices.iter().map(|c| contest.selections[c.index()].id.as_str()).collect();
        votes.push(json!({
            "contest": contest.id,
            "record": cast.record,
            "selections": selections,
            "votes": cast.votes,
        }));
    }
    match refused {
        Some(problem) if votes.is_empty() => Err(problem.into()),
        _ => json_answer(StatusCode::OK, &json!({ "voter": voter, "votes": votes })),
    }
}

/// `GET /livez`: the process answers.
pub(crate) async fn livez() -> Response {
    (StatusCode::OK, "ok\n").into_response()
}

/// `GET /readyz`: everything in the log has been counted, which is so before the server listens.
pub(crate) async fn readyz() -> Response {
    (StatusCode::OK, "ok\n").into_response()
}

/// `GET /api/openapi.json`
pub(crate) async fn get_openapi(headers: HeaderMap) -> Response {
    static BODY: std::sync::OnceLock<Arc<Body>> = std::sync::OnceLock::new();
    let text: &str = include_str!("../openapi.json");
    let body = BODY.get_or_init(|| Body::new("application/json", text));
    prepared(&headers, body, LIVE)
}
