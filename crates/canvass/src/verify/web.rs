//! Reads a server's public addresses, over HTTP or HTTPS, and does not give up when it is busy for a moment.

use std::time::{Duration, Instant};

use bytes::Bytes;
use canvass_outward::{AddressError, Client, is_distrust};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode, Uri, body::Incoming};

/// How long a server may be away or busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// An attempt that takes longer is taken for a lost connection.
const ATTEMPT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Above everything that a server publishes: the largest batch has one record of 32 MiB.
const MAX_BYTES: usize = 64 << 20;

/// A server.
pub(super) struct Web {
    client: Client<Empty<Bytes>>,
    /// The address without a slash at its end.
    base: String,
}

/// What an attempt came to that is worth another.
struct Failure {
    what: String,
    after: Option<Duration>,
}

impl Failure {
    fn new(what: impl ToString) -> Self {
        Failure { what: what.to_string(), after: None }
    }
}

impl Web {
    /// A server by its address, which may have a path before all of the server's own. Nothing is sent yet.
    pub(super) fn new(address: &str) -> Result<Self, String> {
        let form = || format!("`{address}` is no address of a server; expected http://HOST or https://HOST");
        let base = address.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| form())?;
        if uri.query().is_some() {
            return Err(form());
        }
        let client = canvass_outward::client(&uri).map_err(|e| match e {
            AddressError::Certificates(_) => e.to_string(),
            AddressError::Form | AddressError::Password => form(),
        })?;
        Ok(Web { client, base })
    }

    /// Reads a path; `None` where there is nothing.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Bytes>, String> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(|e| format!("{path}: {e}"))?;
        let began = Instant::now();
        loop {
            let attempt = tokio::time::timeout(ATTEMPT, self.attempt(&uri)).await;
            let failure = match attempt.unwrap_or_else(|_| Err(Failure::new("no answer in time"))) {
                Ok(answer) => return answer.map_err(|what| format!("{uri}: {what}")),
                Err(failure) => failure,
            };
            if began.elapsed() > PATIENCE {
                return Err(format!("{uri}: {}", failure.what));
            }
            tokio::time::sleep(failure.after.unwrap_or(PAUSE).min(LONGEST_PAUSE)).await;
        }
    }

    async fn attempt(&self, uri: &Uri) -> Result<Result<Option<Bytes>, String>, Failure> {
        let response = match self.client.get(uri.clone()).await {
            Ok(response) => response,
            // A certificate that is not trusted now will not be a moment later.
            Err(error) if is_distrust(&error) => return Ok(Err(cause(&error))),
            Err(error) => return Err(Failure::new(cause(&error))),
        };
        match response.status() {
            StatusCode::NOT_FOUND => Ok(Ok(None)),
            StatusCode::OK => {
                let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
                Ok(Ok(Some(body.map_err(Failure::new)?.to_bytes())))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(Failure { what: response.status().to_string(), after: retry_after(&response) })
            }
            status => Ok(Err(format!("the server answers {status}"))),
        }
    }
}

/// The innermost reason: the outer ones only say that something failed.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
