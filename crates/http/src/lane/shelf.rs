//! Answers to reads, ready to be written: they are the same for everyone until the next publication.
//!
//! The general server's routes make an answer when a lane is first asked for it; until the next publication the lane
//! has it on its shelf.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use tower::ServiceExt;

use super::request::ReadRequest;
use crate::App;
use crate::edge::{Body, Version};
use crate::reply::{self, Form, Shared};

/// Most answers on a shelf, and most bytes of their bodies; above either it is cleared.
const MAX_SHEETS: usize = 1_024;
const MAX_BYTES: usize = 64 << 20;

/// One answer in all its forms.
#[derive(Debug)]
pub(super) struct Sheet {
    body: Arc<Body>,
    gzip: Option<Bytes>,
    /// Heads in the order of the forms, without the date.
    heads: [String; 3],
}

impl Sheet {
    /// Makes it of what the routes answered; none if that is not for everyone.
    fn new(status: StatusCode, headers: &HeaderMap, body: &Arc<Body>) -> Option<Self> {
        let live = headers.get(header::CACHE_CONTROL).is_some_and(|value| value == reply::LIVE);
        if status != StatusCode::OK || !live {
            return None;
        }
        let mut common = String::new();
        let of_body = [header::CONTENT_TYPE, header::CONTENT_LENGTH];
        for (name, value) in headers.iter().filter(|(name, _)| !of_body.contains(name)) {
            // Writing to memory cannot fail.
            let _ = write!(common, "{name}: {}\r\n", value.to_str().ok()?);
        }
        let gzip = body.gzip();
        let full = |encoding: &str, length: usize| {
            let kind = body.content_type;
            format!(
                "HTTP/1.1 200 OK\r\n{common}content-type: {kind}\r\n{encoding}content-length: {length}\r\n"
            )
        };
        let heads = [
            full("", body.bytes.len()),
            full("content-encoding: gzip\r\n", gzip.as_ref().map_or(0, Bytes::len)),
            format!("HTTP/1.1 304 Not Modified\r\n{common}"),
        ];
        Some(Sheet { body: Arc::clone(body), gzip, heads })
    }

    /// The form that a request asks for.
    pub(super) fn form(&self, request: &ReadRequest<'_>) -> Form {
        reply::form(request.if_none_match, request.accept_encoding, &self.body)
    }

    /// Writes it to the end of `out`; `date` is the end of a head.
    pub(super) fn write(&self, form: Form, date: &str, out: &mut Vec<u8>) {
        let (head, body) = match (form, &self.gzip) {
            (Form::NotModified, _) => (&self.heads[2], &[][..]),
            (Form::Gzip, Some(gzip)) => (&self.heads[1], &gzip[..]),
            (Form::Plain | Form::Gzip, _) => (&self.heads[0], &self.body.bytes[..]),
        };
        out.reserve(head.len() + date.len() + body.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(body);
    }
}

/// What the routes answer, if it is the same for everyone; and the publication that it is at least as new as.
pub(super) async fn prepare(app: &App, router: Router, target: &str) -> (Version, Option<Arc<Sheet>>) {
    let version = app.edge.version();
    let Ok(request) = Request::get(target).body(AxumBody::empty()) else { return (version, None) };
    let Ok(mut response) = router.oneshot(request).await;
    let body = response.extensions_mut().remove::<Shared>();
    let sheet = body.and_then(|Shared(body)| Sheet::new(response.status(), response.headers(), &body));
    (version, sheet.map(Arc::new))
}

/// The answers that one lane has ready for the present publication.
pub(super) struct Shelf {
    version: Version,
    sheets: HashMap<Box<str>, Arc<Sheet>>,
    bytes: usize,
    /// Who waits for an answer that is being prepared.
    asked: HashMap<Box<str>, Vec<Asker>>,
}

/// A connection whose next request waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) key: usize,
    pub(super) connection: u64,
}

impl Shelf {
    pub(super) fn new(version: Version) -> Self {
        Shelf { version, sheets: HashMap::new(), bytes: 0, asked: HashMap::new() }
    }

    /// Clears it if there was a publication since.
    pub(super) fn renew(&mut self, version: Version) {
        if version != self.version {
            self.version = version;
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.sheets.clear();
        self.bytes = 0;
    }

    pub(super) fn get(&self, target: &str) -> Option<&Arc<Sheet>> {
        self.sheets.get(target)
    }

    /// Notes that somebody waits for an answer; tells whether nobody did yet.
    pub(super) fn ask(&mut self, target: &str, asker: Asker) -> bool {
        if let Some(askers) = self.asked.get_mut(target) {
            askers.push(asker);
            return false;
        }
        self.asked.insert(target.into(), vec![asker]);
        true
    }

    /// Takes an answer that was asked for, and tells who waits for it.
    pub(super) fn put(&mut self, target: &str, sheet: Option<Arc<Sheet>>) -> Vec<Asker> {
        if let Some(sheet) = sheet {
            if self.sheets.len() >= MAX_SHEETS || self.bytes > MAX_BYTES {
                self.clear();
            }
            self.bytes += sheet.body.bytes.len();
            self.sheets.insert(target.into(), sheet);
        }
        self.asked.remove(target).unwrap_or_default()
    }

    /// Forgets an answer that is not of the present publication: those who waited for it have it now.
    pub(super) fn withdraw(&mut self, target: &str, version: Version) {
        if version < self.version {
            self.sheets.remove(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use canvass_protocol::stream::Seq;

    use super::*;

    fn written(form: Form) -> String {
        let text = "a long line that is worth compressing ".repeat(100);
        let body = Body::new("text/plain", text);
        let response = reply::prepared(&HeaderMap::new(), &body, reply::LIVE);
        let mut headers = response.headers().clone();
        // The routes tell the length where a lane tells it too.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.bytes.len()));
        let sheet = Sheet::new(StatusCode::OK, &headers, &body).unwrap();
        let mut out = Vec::new();
        sheet.write(form, "date: now\r\n\r\n", &mut out);
        let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let length = format!("content-length: {}\r\n", out.len() - end - 4);
        let head = String::from_utf8(out[..end].to_vec()).unwrap();
        let lengths = usize::from(form != Form::NotModified);
        assert_eq!(head.matches("content-length:").count(), lengths, "{head}");
        assert_eq!(head.matches(&length).count(), lengths, "{head}");
        assert!(head.contains(&format!("etag: {}\r\n", body.etag)), "{head}");
        head
    }

    #[test]
    fn each_form_has_its_head() {
        assert!(written(Form::Plain).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(written(Form::Gzip).contains("\r\ncontent-encoding: gzip\r\n"));
        let head = written(Form::NotModified);
        assert!(head.starts_with("HTTP/1.1 304 ") && !head.contains("content-type"), "{head}");
    }

    #[test]
    fn what_is_not_for_everyone_is_not_kept() {
        let body = Body::new("text/plain", "mine");
        let private = reply::prepared(&HeaderMap::new(), &body, reply::PRIVATE);
        assert!(Sheet::new(StatusCode::OK, private.headers(), &body).is_none());
        let live = reply::prepared(&HeaderMap::new(), &body, reply::LIVE);
        assert!(Sheet::new(StatusCode::NOT_FOUND, live.headers(), &body).is_none());
    }

    #[test]
    fn a_publication_clears_the_shelf_and_late_answers_reach_who_waits() {
        let body = Body::new("text/plain", "a");
        let live = reply::prepared(&HeaderMap::new(), &body, reply::LIVE);
        let sheet = || Sheet::new(StatusCode::OK, live.headers(), &body).map(Arc::new);
        let (one, two) = ((Seq { epoch: 1, seq: 1 }, 0), (Seq { epoch: 1, seq: 2 }, 0));
        let mut shelf = Shelf::new(one);
        assert!(shelf.ask("/", Asker { key: 1, connection: 1 }));
        assert!(!shelf.ask("/", Asker { key: 2, connection: 2 }));
        shelf.renew(two);
        assert_eq!(shelf.put("/", sheet()).len(), 2);
        assert!(shelf.get("/").is_some());
        shelf.withdraw("/", one);
        assert!(shelf.get("/").is_none());
        shelf.put("/", sheet());
        shelf.withdraw("/", two);
        assert!(shelf.get("/").is_some());
        shelf.renew(two);
        assert!(shelf.get("/").is_some());
        shelf.renew((Seq { epoch: 1, seq: 3 }, 0));
        assert!(shelf.get("/").is_none());
    }
}
