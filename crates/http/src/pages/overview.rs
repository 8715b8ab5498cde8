//! The front page: every contest as a card.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use canvass_engine::Published;
use serde::Deserialize;

use super::format::Moment;
use super::view::{Place, View};
use super::{Fault, Site, shared};
use crate::App;

/// Contests on one page.
const PER_PAGE: usize = 60;
/// Selections on one card.
const PER_CARD: usize = 4;

#[derive(Deserialize)]
pub(super) struct Asked {
    page: Option<usize>,
}

/// A way through a list that is too long for one page.
pub(super) struct Pager {
    pub(super) page: usize,
    pub(super) pages: usize,
    /// The address without the page's number, ending in `?` or `&`.
    pub(super) base: String,
}

impl Pager {
    /// Page number `asked` of so many entries; none where there is no such page.
    pub(super) fn new(
        asked: Option<usize>,
        entries: usize,
        per_page: usize,
        base: String,
    ) -> Result<Self, Fault> {
        let (page, pages) = (asked.unwrap_or(1), entries.div_ceil(per_page).max(1));
        if page == 0 || page > pages {
            return Err(Fault::Missing(format!("This list has {pages} pages; there is no page {page}.")));
        }
        Ok(Pager { page, pages, base })
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview<'a> {
    site: Site<'a>,
    cards: Vec<View<'a>>,
    contests: usize,
    changed: Moment,
    seq: u64,
    pager: Pager,
}

/// `GET /`
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let name = format!("page overview {:?}", asked.page);
    shared(&app, &headers, &name, |published| render(&app, published, asked.page))
}

fn render(app: &App, published: &Published, asked: Option<usize>) -> Result<String, Fault> {
    let definition = app.definition();
    let pager = Pager::new(asked, definition.contests.len(), PER_PAGE, "/?".to_owned())?;
    let shown = definition.contest_ids().skip((pager.page - 1) * PER_PAGE).take(PER_PAGE);
    let cards = shown.map(|(contest, c)| {
        let mut card = View::new(definition, published, Place { contest, unit: c.unit });
        // The card keeps who leads, in the order of the votes.
        card.rows.sort_by_key(|row| std::cmp::Reverse(row.votes.0));
        card.rows.truncate(PER_CARD);
        card
    });
    let changed = published.contests.iter().map(|c| c.stamp.time).max();
    let page = Overview {
        site: Site::new(app),
        cards: cards.collect(),
        contests: definition.contests.len(),
        changed: Moment(changed.unwrap_or_default()),
        seq: published.seq.seq,
        pager,
    };
    Ok(page.render()?)
}
