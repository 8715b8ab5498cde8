//! A small HTTP/1.1 client that keeps its connections and does not give up on a server that restarts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_NONE_MATCH, RETRY_AFTER};
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long a client waits, by default, for a server that is away or has too much to do.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// One attempt that takes longer than this is taken for a lost connection.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// First wait before another attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A `Retry-After` is honoured up to this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// What went wrong on the way to the server or in its answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the server is not one.
    #[error("`{0}` is no address of a server; expected http://HOST:PORT")]
    Address(String),
    /// The server could not be reached, or had too much to do, for too long.
    #[error(
        "no answer from {server} for {waited} s ({last}); start the server and run the same command again"
    )]
    Away {
        /// The server.
        server: String,
        /// Seconds since the first failed attempt.
        waited: u64,
        /// The last failure.
        last: String,
    },
    /// The server refused.
    #[error("{what}: the server refused with {status} {problem}")]
    Refused {
        /// The request.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The problem in its answer.
        problem: Problem,
    },
    /// The answer is not one this client understands.
    #[error("{what}: the answer is not as expected: {fault}")]
    Answer {
        /// The request.
        what: String,
        /// What is wrong with its answer.
        fault: String,
    },
    /// What is asked for does not fit the server's election.
    #[error("{0}")]
    Mismatch(String),
}

/// A problem as the server tells it, as far as clients use it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Problem {
    /// The stable word.
    #[serde(default)]
    pub code: String,
    /// What happened this time.
    #[serde(default)]
    pub detail: Option<String>,
    /// The record that stands in the way.
    #[serde(default)]
    pub record: Option<String>,
    /// The fields that are wrong.
    #[serde(default)]
    pub errors: Vec<Field>,
}

/// A wrong field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Field {
    /// JSON pointer.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        self.errors.iter().try_for_each(|field| write!(f, "; {} {}", field.pointer, field.detail))
    }
}

/// A request, kept so that it can be sent again.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    content_type: Option<&'static str>,
    key: Option<String>,
    bearer: Option<String>,
    etag: Option<HeaderValue>,
    body: Bytes,
}

impl Request {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Request { method, path, content_type: None, key: None, bearer: None, etag: None, body: Bytes::new() }
    }

    /// Reads a path.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Posts a JSON body under an idempotency key.
    pub fn post(path: impl Into<String>, key: impl Into<String>, body: &impl Serialize) -> Self {
        Request { key: Some(key.into()), ..Self::new(Method::POST, path).json(body) }
    }

    /// Puts a JSON body.
    pub fn put(path: impl Into<String>, body: &impl Serialize) -> Self {
        Self::new(Method::PUT, path).json(body)
    }

    /// Posts NDJSON, each line with its own key.
    pub fn batch(path: impl Into<String>, lines: Vec<u8>) -> Self {
        let content_type = Some("application/x-ndjson");
        Request { content_type, body: lines.into(), ..Self::new(Method::POST, path) }
    }

    /// Acts under this token instead of the client's.
    #[must_use]
    pub fn bearer(self, token: Option<String>) -> Self {
        Request { bearer: token, ..self }
    }

    /// Asks only for what is newer.
    #[must_use]
    pub fn if_none_match(self, etag: Option<HeaderValue>) -> Self {
        Request { etag, ..self }
    }

    fn json(self, body: &impl Serialize) -> Self {
        // Bodies are plain structs with text keys, which JSON always can.
        let body = serde_json::to_vec(body).unwrap_or_default().into();
        Request { content_type: Some("application/json"), body, ..self }
    }

    fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    what: String,
    /// The HTTP status.
    pub status: u16,
    /// The entity tag, where there is one.
    pub etag: Option<HeaderValue>,
    /// The body.
    pub body: Bytes,
    retry_after: Option<Duration>,
}

impl Answer {
    /// The body of a good answer as JSON; a problem is an error.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let good = self.good()?;
        serde_json::from_slice(&good.body)
            .map_err(|e| Error::Answer { what: self.what.clone(), fault: e.to_string() })
    }

    /// The answer if its status is a good one; a problem is an error.
    pub fn good(&self) -> Result<&Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let (what, status, problem) = (self.what.clone(), self.status, self.problem());
        Err(Error::Refused { what, status, problem })
    }

    /// The problem in the body; empty where it holds none.
    pub fn problem(&self) -> Problem {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn again(&self) -> bool {
        matches!(self.status, 429 | 503)
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// A client of one server. Clones share the connections that are idle.
#[derive(Debug, Clone)]
pub struct Client {
    authority: Arc<str>,
    bearer: Option<Arc<str>>,
    patience: Duration,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Client {
    /// A client of the server at `http://HOST:PORT`.
    pub fn new(server: &str) -> Result<Self, Error> {
        let bad = || Error::Address(server.to_owned());
        let authority = server.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        if host.is_empty() || port.parse::<u16>().is_err() || authority.contains('/') {
            return Err(bad());
        }
        Ok(Client { authority: authority.into(), bearer: None, patience: PATIENCE, idle: Arc::default() })
    }

    /// Acts under this API key or token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        Client { bearer: Some(token.trim().into()), ..self }
    }

    /// Waits this long for a server that is away.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Client { patience, ..self }
    }

    /// `HOST:PORT` of the server.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends the request until the server answers something else than 429 or 503. The same request is sent
    /// each time, with the same idempotency key, so that it happens once however often it is sent.
    pub async fn send(&self, request: &Request) -> Result<Answer, Error> {
        let mut pauses = Pauses::new(self);
        loop {
            let (last, retry_after) = match self.once(request).await {
                Ok(answer) if !answer.again() => return Ok(answer),
                Ok(answer) => (format!("{} {}", answer.status, answer.problem()), answer.retry_after),
                Err(failure) => (failure, None),
            };
            pauses.wait(retry_after, last).await?;
        }
    }

    /// Reads a path as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(&Request::get(path)).await?.json()
    }

    /// Posts a JSON body under an idempotency key, and reads the answer.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.send(&Request::post(path, key, body)).await?.json()
    }

    /// Sends the request once; the error says in words why there was no answer.
    pub async fn once(&self, request: &Request) -> Result<Answer, String> {
        // A kept connection may have died unseen; that costs one attempt and is no failure of the server.
        while let Some(mut connection) = self.take_idle() {
            if connection.ready().await.is_err() {
                continue;
            }
            match self.exchange(connection, request).await {
                Ok(answer) => return Ok(answer),
                Err(_) => break,
            }
        }
        let connection = self.connect().await?;
        self.exchange(connection, request).await
    }

    /// Opens an answer that does not end, on a connection of its own.
    pub(crate) async fn open(&self, request: &Request, last_event: Option<&str>) -> Result<Incoming, String> {
        let mut connection = self.connect().await?;
        let mut http = self.http(request)?;
        if let Some(id) = last_event.and_then(|id| HeaderValue::from_str(id).ok()) {
            http.headers_mut().insert("last-event-id", id);
        }
        let response = connection.send_request(http).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("{} {}", request.what(), response.status()));
        }
        Ok(response.into_body())
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Connection, String> {
        let open = async {
            let stream = TcpStream::connect(&*self.authority).await.map_err(|e| e.to_string())?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            // It ends with the sender; what it fails of, the request reports.
            tokio::spawn(connection);
            Ok(sender)
        };
        tokio::time::timeout(ATTEMPT_LIMIT, open).await.unwrap_or_else(|_| Err("no connection".to_owned()))
    }

    async fn exchange(&self, mut connection: Connection, request: &Request) -> Result<Answer, String> {
        let http = self.http(request)?;
        let exchange = async {
            let response = connection.send_request(http).await.map_err(|e| e.to_string())?;
            read_answer(request.what(), response).await
        };
        let answer = tokio::time::timeout(ATTEMPT_LIMIT, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
        if !connection.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(answer)
    }

    fn http(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, String> {
        let mut http = hyper::Request::builder()
            .method(&request.method)
            .uri(&request.path)
            .header(HOST, &*self.authority);
        if let Some(content_type) = request.content_type {
            http = http.header(CONTENT_TYPE, content_type);
        }
        if let Some(key) = &request.key {
            http = http.header("idempotency-key", key);
        }
        if let Some(token) = request.bearer.as_deref().or(self.bearer.as_deref()) {
            http = http.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(etag) = &request.etag {
            http = http.header(IF_NONE_MATCH, etag);
        }
        http.body(Full::new(request.body.clone())).map_err(|e| e.to_string())
    }
}

async fn read_answer(what: String, response: Response<Incoming>) -> Result<Answer, String> {
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = http_body_util::Limited::new(body, MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    let etag = head.headers.get(ETAG).cloned();
    let retry_after = retry_after.map(Duration::from_secs);
    Ok(Answer { what, status: head.status.as_u16(), etag, body, retry_after })
}

/// The waits between attempts, until patience ends.
pub(crate) struct Pauses<'a> {
    client: &'a Client,
    since: Instant,
    next: Duration,
}

impl<'a> Pauses<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Pauses { client, since: Instant::now(), next: FIRST_PAUSE }
    }

    /// Waits before another attempt, as long as the server asked, or ends with what the last attempt came to.
    pub(crate) async fn wait(&mut self, retry_after: Option<Duration>, last: String) -> Result<(), Error> {
        let waited = self.since.elapsed();
        if waited >= self.client.patience {
            let server = format!("http://{}", self.client.authority);
            return Err(Error::Away { server, waited: waited.as_secs(), last });
        }
        let pause = retry_after.map_or(self.next, |after| after.min(LONGEST_RETRY_AFTER));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(pause.min(self.client.patience.saturating_sub(waited))).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
