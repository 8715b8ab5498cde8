//! What the ingest table is compared with: a hyper server that reads and parses the same requests, and answers
//! a constant of the same size. It checks, keeps and counts nothing.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::LazyLock;

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

/// As long as Canvass's answer with the promise of a batch of 512 votes.
static ANSWER: LazyLock<Bytes> = LazyLock::new(|| {
    let path = r"M4hV0rh2dq5OEfc4zaeb4Kzc5ppnbjx5/GWNSQVAPNI=\n".repeat(9);
    let note = r"bench/votes/4/batch/1024/1795585007309\n512\nM4hV0rh2dq5OEfc4zaeb4Kzc5ppnbjx5/GWNSQVAPNI=\n\n— bench/votes/4 oZvVOna8/cfJmUIgmV4T+45B1FaIh965nWGW+nMie9K+OuvximHNRdEmIyeBIfWnhrnWL+GqDDeNQxbqJh0iiaRfuQ4=\n";
    let promise = format!(r"c2sp.org/tlog-proof@v1\nindex 17\n{path}\n{note}");
    let receipt =
        format!(r#"{{"record":"votes-4-1024-17","time":"2026-11-23T07:33:23.193Z","promise":"{promise}"}}"#);
    format!(r#"{{"receipt":{receipt},"outcome":"counted"}}"#).into()
});

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
    let mut response = Response::new(Full::new(ANSWER.clone()));
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
