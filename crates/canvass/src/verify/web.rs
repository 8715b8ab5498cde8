//! Reads a server's public addresses, over HTTP or HTTPS, and does not give up when it is busy for a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::RETRY_AFTER;
use hyper::{Response, StatusCode, Uri, body::Incoming};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

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
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
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
        if uri.query().is_some() || uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(form());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(|e| e.to_string())?;
        let tls = match uri.scheme_str() {
            Some("http") => tls.with_root_certificates(rustls::RootCertStore::empty()),
            Some("https") => tls.with_native_roots().map_err(|e| {
                format!("the system's certificates cannot be read ({e}); https needs them: install ca-certificates")
            })?,
            _ => return Err(form()),
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Web { client: Client::builder(TokioExecutor::new()).build(connector), base })
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
            Err(error) if refuses(&error) => return Ok(Err(cause(&error))),
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

/// Whether TLS, and not the network, is the reason.
fn refuses(error: &(dyn std::error::Error + 'static)) -> bool {
    // An error of the system is no source of what it wraps.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|wrapped| refuses(wrapped))
        || error.source().is_some_and(refuses)
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
