//! The corrections log, and what happened to a unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use canvass_election::Definition;
use canvass_election::definition::{Contest, CountItemType};
use canvass_election::event::Counts;
use canvass_election::ids::{ContestId, RecordId, Timestamp, UnitId};
use canvass_engine::{Change, ChangeKind};
use serde::Deserialize;

use super::format::{Integer, Moment};
use super::overview::Pager;
use super::{Fault, Site, shared, words};
use crate::App;
use crate::desk::held_because;

/// Entries on one page.
const PER_PAGE: usize = 100;

#[derive(Deserialize)]
pub(super) struct Asked {
    contest: Option<String>,
    page: Option<usize>,
}

/// One number before and after.
struct Line<'a> {
    name: &'a str,
    before: Option<Integer>,
    after: Option<Integer>,
}

impl Line<'_> {
    /// The difference, with its sign.
    fn difference(&self) -> String {
        let (before, after) = (self.before.map_or(0, |n| n.0), self.after.map_or(0, |n| n.0));
        let size = Integer(before.abs_diff(after));
        match before.cmp(&after) {
            std::cmp::Ordering::Less => format!("+{size}"),
            std::cmp::Ordering::Equal => "0".to_owned(),
            std::cmp::Ordering::Greater => format!("−{size}"),
        }
    }
}

/// One event as the pages show it.
struct Entry<'a> {
    record: RecordId,
    time: Moment,
    what: &'static str,
    contest: &'a Contest,
    unit_id: &'a str,
    unit_name: &'a str,
    count_type: Option<&'static str>,
    lines: Vec<Line<'a>>,
    /// What the numbers are, where they are not the official ones.
    caption: &'static str,
    held_because: Option<String>,
    answers: Option<RecordId>,
    /// How it answers that record.
    answers_word: &'static str,
    reason: Option<String>,
    actor: String,
}

/// Where an event stands among others: newest first.
type Order = std::cmp::Reverse<(Timestamp, RecordId, UnitId, Option<CountItemType>)>;

fn order(change: &Change) -> Order {
    let count_type = change.cell.as_ref().map(|c| c.cell.count_type);
    std::cmp::Reverse((change.time, change.record, change.unit, count_type))
}

/// The changes for which `wanted` holds, of one page. They are looked through twice, so that only those of the
/// page are copied: a night has hundreds of thousands.
fn page_of(
    app: &App,
    asked: Option<usize>,
    base: String,
    wanted: impl Fn(&Change) -> bool,
) -> Result<(Vec<Change>, Pager, usize), Fault> {
    let mut orders: Vec<Order> = Vec::new();
    app.engine.for_each_change(|change| {
        if wanted(change) {
            orders.push(order(change));
        }
    });
    orders.sort_unstable();
    let total = orders.len();
    let pager = Pager::new(asked, total, PER_PAGE, base)?;
    let shown = orders.iter().skip((pager.page - 1) * PER_PAGE).take(PER_PAGE).copied();
    let mut found: BTreeMap<Order, Option<Change>> = shown.map(|order| (order, None)).collect();
    app.engine.for_each_change(|change| {
        if let Some(slot) = found.get_mut(&order(change)) {
            *slot = Some(change.clone());
        }
    });
    Ok((found.into_values().flatten().collect(), pager, total))
}

fn entry<'a>(definition: &'a Definition, change: &Change) -> Entry<'a> {
    let contest = &definition.contests[change.contest.index()];
    let unit = &definition.units[change.unit.index()];
    let provisional = change.kind == ChangeKind::Recounted;
    let cell = change.cell.as_ref();
    let side = |value: &canvass_election::tally::CellValue| {
        if provisional { value.provisional_or_official().cloned() } else { value.official.clone() }
    };
    let (before, after) = match cell {
        Some(cell) => (side(&cell.before), side(&cell.after)),
        None => (None, change.stated.as_ref().map(|(_, counts)| counts.clone())),
    };
    let stated = change.stated.as_ref().map(|(count_type, _)| *count_type);
    let count_type = cell.map(|c| c.cell.count_type).or(stated);
    let caption = match change.kind {
        ChangeKind::Held => "What the return says; it is not counted",
        ChangeKind::Recounted => "Provisional counts of the recount",
        _ => "Official counts",
    };
    Entry {
        record: change.record,
        time: Moment(change.time),
        what: words::change(change.kind),
        contest,
        unit_id: &unit.id,
        unit_name: &unit.name,
        count_type: count_type.map(words::count_type),
        lines: lines(contest, before.as_ref(), after.as_ref()),
        caption,
        held_because: change.held_because.as_ref().map(held_because),
        answers: change.answers,
        answers_word: match change.kind {
            ChangeKind::Corrected => "corrects",
            ChangeKind::Released | ChangeKind::Dropped => "answers the held return",
            ChangeKind::Called | ChangeKind::Uncalled => "confirms the proposal",
            ChangeKind::CallDropped => "drops the proposal",
            _ => "in the recount",
        },
        reason: change.reason.clone(),
        actor: change.actor.0.clone(),
    }
}

/// The numbers that differ.
fn lines<'a>(contest: &'a Contest, before: Option<&Counts>, after: Option<&Counts>) -> Vec<Line<'a>> {
    let votes = |counts: Option<&Counts>, i: usize| counts.and_then(|c| c.votes.get(i).copied()).map(Integer);
    let selections = contest.selections.iter().enumerate();
    let mut lines: Vec<Line<'a>> = selections
        .map(|(i, s)| Line { name: &s.name, before: votes(before, i), after: votes(after, i) })
        .collect();
    type Number = fn(&Counts) -> Option<u64>;
    let others: [(&str, Number); 3] = [
        ("Overvotes", |c| Some(c.overvotes)),
        ("Undervotes", |c| Some(c.undervotes)),
        ("Ballots", |c| c.ballots),
    ];
    for (name, number) in others {
        let side = |counts: Option<&Counts>| counts.and_then(number).map(Integer);
        let line = Line { name, before: side(before), after: side(after) };
        if line.before.map_or(0, |n| n.0) != line.after.map_or(0, |n| n.0) {
            lines.push(line);
        }
    }
    lines.retain(|line| line.before != line.after);
    lines
}

#[derive(Template)]
#[template(path = "corrections.html")]
struct Corrections<'a> {
    site: Site<'a>,
    contest: Option<&'a Contest>,
    contests: &'a [Contest],
    entries: Vec<Entry<'a>>,
    total: Integer,
    pager: Pager,
}

impl Corrections<'_> {
    fn is_chosen(&self, contest: &Contest) -> bool {
        self.contest.is_some_and(|chosen| chosen.id == contest.id)
    }
}

/// Whether the change put other official counts in the place of some that stood.
fn corrects(change: &Change) -> bool {
    let stood = change
        .cell
        .as_ref()
        .is_some_and(|c| c.before.official.is_some() && c.before.official != c.after.official);
    match change.kind {
        ChangeKind::Corrected => true,
        ChangeKind::Released | ChangeKind::RecountClosed => stood,
        _ => false,
    }
}

fn contest_of(definition: &Definition, asked: &Asked) -> Result<Option<ContestId>, Fault> {
    match asked.contest.as_deref().filter(|id| !id.is_empty()) {
        None => Ok(None),
        Some(id) => definition.contest_by_id(id).map(Some).ok_or_else(|| Fault::missing_contest(id)),
    }
}

/// The address of a list without its page's number.
fn base(definition: &Definition, path: &str, contest: Option<ContestId>) -> String {
    match contest.and_then(|id| definition.contest(id)) {
        Some(contest) => format!("{path}?contest={}&", contest.id),
        None => format!("{path}?"),
    }
}

/// `GET /corrections`
pub(super) async fn corrections(
    State(app): State<Arc<App>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let definition = app.definition();
    let only = match contest_of(definition, &asked) {
        Ok(only) => only,
        Err(fault) => return fault.page(&app),
    };
    let name = format!("page corrections {only:?} {:?}", asked.page);
    shared(&app, &headers, &name, |_| {
        let wanted = |change: &Change| corrects(change) && only.is_none_or(|c| c == change.contest);
        let base = base(definition, "/corrections", only);
        let (changes, pager, total) = page_of(&app, asked.page, base, wanted)?;
        let page = Corrections {
            site: Site::new(&app),
            contest: only.and_then(|id| definition.contest(id)),
            contests: &definition.contests,
            entries: changes.iter().map(|change| entry(definition, change)).collect(),
            total: Integer(u64::try_from(total).unwrap_or(u64::MAX)),
            pager,
        };
        Ok(page.render()?)
    })
}

#[derive(Template)]
#[template(path = "unit.html")]
struct UnitPage<'a> {
    site: Site<'a>,
    name: &'a str,
    id: &'a str,
    above: Vec<(&'a str, &'a str)>,
    is_leaf: bool,
    contest: Option<&'a Contest>,
    entries: Vec<Entry<'a>>,
    total: Integer,
    pager: Pager,
}

/// `GET /units/{id}`
pub(super) async fn unit(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let definition = app.definition();
    let found = definition.unit_by_id(&id).ok_or_else(|| Fault::missing_unit(&id));
    let (unit, only) = match found.and_then(|unit| Ok((unit, contest_of(definition, &asked)?))) {
        Ok(found) => found,
        Err(fault) => return fault.page(&app),
    };
    let name = format!("page unit {unit:?} {only:?} {:?}", asked.page);
    shared(&app, &headers, &name, |_| {
        // What happened to a unit above as a whole happened here too; what happened below is part of this unit.
        let touches = |c: &Change| {
            definition.is_within(c.unit, unit) || c.cell.is_none() && definition.is_within(unit, c.unit)
        };
        let wanted = |change: &Change| only.is_none_or(|c| c == change.contest) && touches(change);
        let base = base(definition, &format!("/units/{id}"), only);
        let (changes, pager, total) = page_of(&app, asked.page, base, wanted)?;
        let mut above: Vec<_> = definition
            .ancestry(unit)
            .skip(1)
            .map(|u| &definition.units[u.index()])
            .map(|u| (u.id.as_str(), u.name.as_str()))
            .collect();
        above.reverse();
        let page = UnitPage {
            site: Site::new(&app),
            name: &definition.units[unit.index()].name,
            id: &definition.units[unit.index()].id,
            above,
            is_leaf: definition.children(unit).is_empty(),
            contest: only.and_then(|id| definition.contest(id)),
            entries: changes.iter().map(|change| entry(definition, change)).collect(),
            total: Integer(u64::try_from(total).unwrap_or(u64::MAX)),
            pager,
        };
        Ok(page.render()?)
    })
}
