//! The page of a contest, for its whole district or a unit of it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use canvass_election::Definition;
use canvass_election::event::Counts;
use canvass_election::ids::UnitId;
use canvass_election::results::{ContestResults, leaders};
use canvass_engine::Published;
use serde::Deserialize;

use super::chart::Chart;
use super::format::{Integer, Share};
use super::projection::Part;
use super::standing::Standing;
use super::view::{Place, View};
use super::{Fault, Site, shared, words};
use crate::App;

/// Most units in one table; a country's counties fit, and its precincts are reached through them.
const MAX_UNITS: usize = 1_000;

#[derive(Deserialize)]
pub(super) struct Asked {
    unit: Option<String>,
}

/// A link and its text.
pub(super) struct Crumb<'a> {
    pub(super) href: String,
    pub(super) name: &'a str,
}

/// A selection's votes by count type.
struct TypeRow<'a> {
    id: &'a str,
    name: &'a str,
    votes: Vec<(&'static str, Option<Integer>)>,
}

/// The votes by count type.
struct Types<'a> {
    columns: Vec<&'static str>,
    rows: Vec<TypeRow<'a>>,
    totals: Vec<(&'static str, Option<Integer>)>,
}

/// One unit below.
struct UnitRow<'a> {
    id: &'a str,
    name: &'a str,
    leader: String,
    share: Option<Share>,
    votes: Integer,
    reporting: Integer,
    expected: Integer,
    held: Integer,
}

/// The units below.
struct Units<'a> {
    kind: &'a str,
    /// Whether one selection leads a unit, and not several.
    one_leads: bool,
    rows: Vec<UnitRow<'a>>,
    left_out: Integer,
}

#[derive(Template)]
#[template(path = "contest.html")]
struct ContestPage<'a> {
    site: Site<'a>,
    crumbs: Vec<Crumb<'a>>,
    view: &'a View<'a>,
    parts: String,
    types: Option<Types<'a>>,
    units: Option<Units<'a>>,
    standing: Option<Standing>,
}

#[derive(Template)]
#[template(path = "parts.html")]
struct Parts<'a> {
    view: &'a View<'a>,
    chart: Chart<'a>,
    projection: Part<'a>,
}

/// The place that the address names.
pub(super) fn place(definition: &Definition, contest: &str, unit: Option<&str>) -> Result<Place, Fault> {
    let id = definition.contest_by_id(contest).ok_or_else(|| Fault::missing_contest(contest))?;
    let district = definition.contests[id.index()].unit;
    let unit = match unit {
        None => district,
        Some(unit) => definition
            .unit_by_id(unit)
            .filter(|u| definition.is_within(*u, district))
            .ok_or_else(|| Fault::missing_unit(unit))?,
    };
    Ok(Place { contest: id, unit })
}

/// `GET /contests/{id}`
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    match place(app.definition(), &id, asked.unit.as_deref()) {
        Err(fault) => fault.page(&app),
        Ok(place) => shared(&app, &headers, &format!("page contest {place:?}"), |published| {
            let view = View::new(app.definition(), published, place);
            render(&app, published, &view)
        }),
    }
}

/// `GET /contests/{id}/parts`: what the live module puts in place of the page's older parts.
pub(super) async fn parts(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    match place(app.definition(), &id, asked.unit.as_deref()) {
        Err(fault) => fault.page(&app),
        Ok(place) => {
            shared(&app, &headers, &parts_name(place), |published| render_parts(&app, published, place))
        }
    }
}

/// The name under which the parts are prepared.
pub(super) fn parts_name(place: Place) -> String {
    format!("page parts {place:?}")
}

/// The state in words, the table of selections and the chart.
pub(super) fn render_parts(app: &App, published: &Published, place: Place) -> Result<String, Fault> {
    let view = View::new(app.definition(), published, place);
    Ok(whole_parts(app, published, &view).render()?)
}

fn whole_parts<'a>(app: &App, published: &Published, view: &'a View<'a>) -> Parts<'a> {
    let chart = Chart::new(app, published, view);
    Parts { view, chart, projection: Part::new(app, published, view) }
}

fn render(app: &App, published: &Published, view: &View<'_>) -> Result<String, Fault> {
    let definition = app.definition();
    let results = &published.contests[view.place.contest.index()].results;
    let page = ContestPage {
        site: Site::new(app),
        crumbs: crumbs(definition, view),
        view,
        parts: whole_parts(app, published, view).render()?,
        types: types(view, results),
        units: units(definition, view, results),
        standing: Standing::new(app, published, view.place.contest),
    };
    Ok(page.render()?)
}

/// The way up: the overview, the contest, and the units above this one.
fn crumbs<'a>(definition: &'a Definition, view: &View<'a>) -> Vec<Crumb<'a>> {
    let mut crumbs = vec![Crumb { href: "/".to_owned(), name: "Overview" }];
    if view.is_whole() {
        return crumbs;
    }
    let contest = view.contest;
    let within = |u: &UnitId| definition.is_within(*u, contest.unit);
    let mut above: Vec<UnitId> = definition.ancestry(view.place.unit).skip(1).filter(within).collect();
    above.reverse();
    crumbs.extend(above.into_iter().map(|unit| {
        let unit_text = &definition.units[unit.index()];
        if unit == contest.unit {
            return Crumb { href: format!("/contests/{}", contest.id), name: &contest.name };
        }
        Crumb { href: format!("/contests/{}?unit={}", contest.id, unit_text.id), name: &unit_text.name }
    }));
    crumbs
}

fn types<'a>(view: &View<'a>, results: &ContestResults) -> Option<Types<'a>> {
    let contest = view.contest;
    let official = &results.unit(view.place.unit).official;
    let types = contest.count_types();
    if types.len() < 2 {
        return None;
    }
    let cells = |number: &dyn Fn(&Counts) -> u64| {
        types.iter().map(|t| (t.as_str(), official.get(t).map(|c| Integer(number(c))))).collect()
    };
    let rows = view.rows.iter().filter_map(|row| {
        let i = contest.selection_by_id(row.id)?.index();
        Some(TypeRow { id: row.id, name: row.name, votes: cells(&|c| c.votes[i]) })
    });
    Some(Types {
        columns: types.iter().map(|t| words::count_type(*t)).collect(),
        rows: rows.collect(),
        totals: cells(&Counts::total),
    })
}

fn units<'a>(definition: &'a Definition, view: &View<'a>, results: &ContestResults) -> Option<Units<'a>> {
    let contest = view.contest;
    let children = definition.children(view.place.unit);
    if contest.voting().is_some() {
        return None;
    }
    let row = |id: &UnitId| {
        let unit = &definition.units[id.index()];
        let here = results.unit(*id);
        let counts = here.total(contest.selections.len());
        let part = match leaders(contest, &counts).as_slice() {
            [only] => Some(counts.votes[only.index()]),
            _ => None,
        };
        UnitRow {
            id: &unit.id,
            name: &unit.name,
            leader: words::leader(contest, &counts),
            share: part.map(|part| Share { part, whole: counts.total() }),
            votes: Integer(counts.total()),
            reporting: Integer(here.reporting.into()),
            expected: Integer(definition.leaves(*id).into()),
            held: Integer(here.held.into()),
        }
    };
    let kind = definition.units[children.first()?.index()].kind.as_str();
    let left_out = u64::try_from(children.len().saturating_sub(MAX_UNITS)).unwrap_or(0);
    let rows = children.iter().take(MAX_UNITS).map(row).collect();
    let one_leads = contest.max_choices() == 1;
    Some(Units { kind, one_leads, rows, left_out: Integer(left_out) })
}
