//! What the ingest table is compared with: a hyper server that reads and parses the same requests, and answers
//! a constant of the same size. It checks, keeps and counts nothing.

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;

use super::Fault;

const ANSWER: &str =
    r#"{"receipt":{"record":"votes-4-1024-512","time":"2026-11-23T07:33:23.193Z"},"outcome":"counted"}"#;

/// The same body that Canvass parses, borrowed where that is possible.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vote<'a> {
    #[serde(borrow)]
    contest: Cow<'a, str>,
    #[serde(borrow)]
    selections: Vec<Cow<'a, str>>,
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let vote = serde_json::from_slice::<Vote<'_>>(&body);
    let good = vote.is_ok_and(|vote| !vote.contest.is_empty() && !vote.selections.is_empty());
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER.as_bytes())));
    *response.status_mut() = if good { StatusCode::CREATED } else { StatusCode::BAD_REQUEST };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Serves on a free port of this machine, one thread, until the process is ended; `listening` is told the address.
pub fn serve(listening: impl FnOnce(SocketAddr)) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        listening(listener.local_addr()?);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let connection = http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(socket), service_fn(answer));
            tokio::spawn(async {
                // A client that breaks off is no fault.
                let _ = connection.await;
            });
        }
    })
}
