//! The pages: results, ballots and logs as HTML that is complete without JavaScript.
//!
//! Templates and static files live in `web/`. A page that is the same for everyone is prepared once a
//! publication; only the ballot, which knows its voter, is rendered for each request.

mod assets;
mod ballot;
mod chart;
mod check;
mod colors;
mod contest;
mod format;
mod history;
mod notes;
mod overview;
mod projection;
mod standing;
mod view;
mod words;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use canvass_engine::Published;
use canvass_protocol::problem::Code;

use crate::App;
use crate::edge::Body;
use crate::reply::{self, Refusal};

const HTML: &str = "text/html; charset=utf-8";
/// Nothing but the server's own files, no inline script or style, no frames, no foreign form targets.
const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Every page, with the headers that all of them carry.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/contests/{id}", get(contest::page))
        .route("/contests/{id}/parts", get(contest::parts))
        .route("/contests/{id}/vote", ballot::route())
        .route("/check", get(check::page))
        .route("/corrections", get(history::corrections))
        .route("/units/{id}", get(history::unit))
        .route("/static/{file}", get(assets::file))
        .route("/favicon.ico", get(assets::favicon))
        .route("/{*rest}", any(not_found))
        .layer(axum::middleware::map_response(with_headers))
}

/// The answer where there is no page: in words for people, as a problem for programs.
async fn not_found(State(app): State<Arc<App>>, uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        return Refusal::from(Code::NotFound).into_response();
    }
    Fault::Missing("There is no page at this address.".to_owned()).page(&app)
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// What every page's frame shows.
struct Site<'a> {
    election: &'a str,
    is_test: bool,
    style: String,
    script: String,
    icon: String,
}

impl<'a> Site<'a> {
    fn new(app: &'a App) -> Self {
        let definition = app.definition();
        Site {
            election: &definition.name,
            is_test: definition.is_test,
            style: assets::address("app.css"),
            script: assets::address("live.js"),
            icon: assets::address("icon.svg"),
        }
    }
}

/// Why there is no page.
enum Fault {
    /// Nothing is at this address; the sentence says what was looked for.
    Missing(String),
    /// The request may not do what it asks; the sentence says why and what helps.
    Refused(StatusCode, String),
    /// The template failed.
    Template(askama::Error),
}

impl From<askama::Error> for Fault {
    fn from(error: askama::Error) -> Self {
        Fault::Template(error)
    }
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage<'a> {
    site: Site<'a>,
    title: &'a str,
    sentence: &'a str,
}

impl Fault {
    fn missing_contest(id: &str) -> Self {
        Fault::Missing(format!("The election has no contest “{id}”."))
    }

    fn missing_unit(id: &str) -> Self {
        Fault::Missing(format!(
            "The election has no reporting unit “{id}”, or it has no part in this contest."
        ))
    }

    fn page(&self, app: &App) -> Response {
        let (status, title, sentence) = match self {
            Fault::Missing(sentence) => (StatusCode::NOT_FOUND, "Page not found", sentence.as_str()),
            Fault::Refused(status, sentence) => (*status, "That did not work", sentence.as_str()),
            Fault::Template(error) => {
                tracing::error!(%error, "a page could not be rendered");
                let sentence = "The page could not be made. Please try again.";
                (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong", sentence)
            }
        };
        let page = FaultPage { site: Site::new(app), title, sentence };
        let body = page.render().unwrap_or_else(|_| title.to_owned());
        let headers = [(header::CONTENT_TYPE, HTML), (header::CACHE_CONTROL, reply::PRIVATE)];
        (status, headers, body).into_response()
    }
}

/// Answers with the page prepared under `name`, which must say all that the page depends on.
fn shared(
    app: &App,
    headers: &HeaderMap,
    name: &str,
    prepare: impl FnOnce(&Published) -> Result<String, Fault>,
) -> Response {
    match app.edge.prepared(name, |published| prepare(published).map(|page| Body::new(HTML, page))) {
        Ok(body) => reply::prepared(headers, &body, reply::LIVE),
        Err(fault) => fault.page(app),
    }
}
