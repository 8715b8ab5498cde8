//! Static files, built into the binary. Their addresses carry a hash of their content.

use std::sync::{Arc, LazyLock};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{Fault, colors};
use crate::App;
use crate::edge::Body;
use crate::reply::{self, IMMUTABLE};

const SHORT: &str = "public, max-age=300";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

static FILES: LazyLock<[(&'static str, Arc<Body>); 4]> = LazyLock::new(|| {
    let body = |kind, text: &'static str| Body::new(kind, text);
    [
        ("app.css", body(CSS, include_str!("../../../../web/static/app.css"))),
        ("live.js", body(SCRIPT, include_str!("../../../../web/static/live.js"))),
        ("check.js", body(SCRIPT, include_str!("../../../../web/static/check.js"))),
        ("icon.svg", body("image/svg+xml", include_str!("../../../../web/static/icon.svg"))),
    ]
});

fn find(name: &str) -> Option<&'static Arc<Body>> {
    FILES.iter().find(|(n, _)| *n == name).map(|(_, body)| body)
}

fn version(body: &Body) -> &str {
    body.etag.trim_matches('"')
}

/// The address of a file, which changes with its content.
pub(super) fn address(name: &str) -> String {
    format!("/static/{name}?v={}", find(name).map_or("", |body| version(body)))
}

#[derive(Deserialize)]
pub(super) struct Version {
    v: Option<String>,
}

/// `GET /static/{file}`
pub(super) async fn file(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(asked): Query<Version>,
    headers: HeaderMap,
) -> Response {
    if name == "parties.css" {
        return reply::prepared(&headers, &Body::new(CSS, colors::sheet(app.definition())), SHORT);
    }
    let Some(body) = find(&name) else {
        return Fault::Missing(format!("There is no file “{name}”.")).page(&app);
    };
    // An address with another version is an old page's, and must not keep the new content for ever.
    let lasting = asked.v.as_deref() == Some(version(body));
    reply::prepared(&headers, body, if lasting { IMMUTABLE } else { SHORT })
}

/// `GET /favicon.ico`, for browsers that ask before they read the page.
pub(super) async fn favicon() -> impl IntoResponse {
    (StatusCode::FOUND, [(header::LOCATION, address("icon.svg")), (header::CACHE_CONTROL, SHORT.to_owned())])
}
