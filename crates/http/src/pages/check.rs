//! The page on which a voter checks that their record is in the log. The check itself is made in the browser.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::{Site, assets, shared};
use crate::App;

#[derive(Template)]
#[template(path = "check.html")]
struct CheckPage<'a> {
    site: Site<'a>,
    script: String,
    /// The log's key, to be compared with what is known of it elsewhere.
    key: Option<String>,
}

/// `GET /check`
pub(super) async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    shared(&app, &headers, "page check", |_| {
        let key = app.engine.audit().map(|audit| audit.key().to_string());
        let page = CheckPage { site: Site::new(&app), script: assets::address("check.js"), key };
        Ok(page.render()?)
    })
}
