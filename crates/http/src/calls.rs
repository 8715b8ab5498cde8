//! Calls: one person of the desk proposes, another one answers; each is an event in the log.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use canvass_election::event::{CallAnswer, CallProposal, Choices, Event};
use canvass_election::ids::{ContestId, PartitionId};
use canvass_protocol::api::{CallRequest, ReasonRequest};
use canvass_protocol::problem::{Code, Problem};

use crate::App;
use crate::auth::Role;
use crate::desk::{Asked, ask, reason, record, record_id};
use crate::reply::Answer;
use crate::vote::{contest_in_body, internal};

/// `POST /api/v1/contests/{id}/call`: proposes that a contest be called.
pub(crate) async fn propose(app: &App, id: &str, asked: Asked<CallRequest>) -> Answer {
    let contest = contest_in_body(app, id)?;
    let winners = winners(app, contest, &asked.body.winners)?;
    none_held_elsewhere(app, contest)?;
    let (winners, reason) = (Some(winners), reason(&asked.body.reason)?);
    let proposal = CallProposal { contest, winners, reason, projection: None, actor: asked.actor };
    let event = Event::CallProposed(proposal);
    record(app, PartitionId::CONTROL, asked.request, event).await?.answer()
}

/// `POST /api/v1/contests/{id}/uncall`: proposes that its call be taken back.
pub(crate) async fn propose_end(app: &App, id: &str, asked: Asked<ReasonRequest>) -> Answer {
    let (contest, reason) = (contest_in_body(app, id)?, reason(&asked.body.reason)?);
    let proposal = CallProposal { contest, winners: None, reason, projection: None, actor: asked.actor };
    let event = Event::CallProposed(proposal);
    record(app, PartitionId::CONTROL, asked.request, event).await?.answer()
}

/// `POST /api/v1/calls/{record}/{confirm|drop}`; the record is that of the proposal.
pub(crate) async fn post_answer(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<SocketAddr>,
    Path((proposal, act)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let confirms = match act.as_str() {
        "confirm" => true,
        "drop" => false,
        _ => return Err(Code::NotFound.into()),
    };
    let asked: Asked<ReasonRequest> = ask(&app, (peer, headers, body), &[Role::Desk]).await?;
    let reason = reason(&asked.body.reason)?;
    let proposal = record_id(&app, &proposal)?;
    let found = app.engine.record(proposal).await.map_err(internal)?.ok_or(Code::UnknownRecord)?;
    let Event::CallProposed(stated) = found.event else { return Err(Code::UnknownRecord.into()) };
    let answer = CallAnswer { contest: stated.contest, proposal, reason, actor: asked.actor };
    let event = match (confirms, stated.winners) {
        (false, _) => Event::CallDropped(answer),
        (true, None) => Event::ContestUncalled(answer),
        (true, Some(_)) => {
            none_held_elsewhere(&app, stated.contest)?;
            Event::ContestCalled(answer)
        }
    };
    record(&app, PartitionId::CONTROL, asked.request, event).await?.answer()
}

/// The fold of the control partition sees to the returns that are held there, and knows of no others.
fn none_held_elsewhere(app: &App, contest: ContestId) -> Result<(), Problem> {
    let held = app.engine.held();
    let mut elsewhere = held.iter().filter(|(record, _)| record.partition != PartitionId::CONTROL);
    match elsewhere.find(|(_, held)| held.reported.cell.contest == contest) {
        Some((record, _)) => Err(Problem::new(Code::HoldOpen).record(record)),
        None => Ok(()),
    }
}

fn winners(app: &App, contest: ContestId, ids: &[String]) -> Result<Choices, Problem> {
    let contest = &app.definition().contests[contest.index()];
    let mut winners = Choices::new();
    for (i, id) in ids.iter().enumerate() {
        let found = contest.selection_by_id(id).ok_or_else(|| {
            let detail = format!("the contest has no selection `{id}`");
            Problem::new(Code::UnknownSelection).field(format!("/winners/{i}"), detail)
        })?;
        winners.push(found);
    }
    winners.sort_unstable();
    Ok(winners)
}
