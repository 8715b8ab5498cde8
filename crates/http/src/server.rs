//! Routes, and connections with their limits.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use canvass_protocol::problem::Code;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, Chain};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tower::ServiceExt;

use crate::App;
use crate::lane::{HandOver, Lanes};
use crate::metrics::{self, Present};
use crate::reply::{Refusal, finish};
use crate::stream::{Feeds, Following};
use crate::{calls, desk, gateway, pages, proof, reads, stream};

/// A client that has not sent its request's head after this time is cut off.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// Largest head of a request, in bytes.
pub(crate) const HEAD_LIMIT: usize = 32 << 10;
/// How long open requests may take to end when the server stops.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Everything the server answers.
pub fn router(app: Arc<App>) -> Router {
    let feeds = Arc::new(Feeds::default());
    let streams = Router::new()
        .route("/api/v1/stream", get(stream::get_stream))
        .route("/api/v1/events", get(stream::get_events))
        .with_state((Arc::clone(&app), feeds));
    let reads = Router::new()
        .route("/api/v1/election", get(reads::get_election))
        .route("/api/v1/results", get(reads::get_results))
        .route("/api/v1/proof", get(proof::get_proof))
        .route("/api/v1/receipts/{record}/proof", get(proof::get_record_proof))
        .route("/api/v1/snapshots/{number}", get(reads::get_snapshot))
        .route("/api/v1/contests/{id}/timeline", get(reads::get_timeline))
        .route("/api/v1/corrections", get(reads::get_corrections))
        .route("/api/v1/units/{id}/history", get(reads::get_history))
        .route("/api/openapi.json", get(reads::get_openapi))
        .merge(proof::routes())
        .with_state(Arc::clone(&app))
        .merge(streams)
        .layer(axum::middleware::map_response(allow_other_origins));
    let writes = Router::new()
        .route("/api/v1/vote", post(gateway::post_vote))
        .route("/api/v1/votes", post(gateway::post_votes))
        .route("/api/v1/votes/{voter}", get(reads::get_vote))
        .route("/api/v1/returns", post(desk::post_returns))
        .route("/api/v1/returns/{record}/{act}", post(desk::post_return_act))
        .route("/api/v1/recounts", post(desk::post_recount))
        .route("/api/v1/recounts/{record}/returns", post(desk::post_recount_returns))
        .route("/api/v1/recounts/{record}/close", post(desk::post_recount_close))
        .route("/api/v1/contests/{id}/{act}", post(desk::post_contest_act))
        .route("/api/v1/calls/{record}/{act}", post(calls::post_answer))
        .route("/api/v1/held", get(desk::get_held))
        .route("/api/v1/clock", get(desk::get_clock).put(desk::put_clock))
        .route("/livez", get(reads::livez))
        .route("/readyz", get(reads::readyz))
        .route("/metrics", get(metrics::get_metrics))
        .with_state(Arc::clone(&app));
    Router::new()
        .merge(reads)
        .merge(writes)
        .merge(pages::routes().with_state(Arc::clone(&app)))
        .method_not_allowed_fallback(async || Refusal::from(Code::MethodNotAllowed))
        .layer(axum::middleware::from_fn_with_state(app, finish))
}

/// Results are for everyone: any site may show them.
async fn allow_other_origins(mut response: Response) -> Response {
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

/// Serves connections until told to stop, then lets open requests end. At most `connections` are open at a time.
///
/// # Errors
/// Where its threads cannot be started.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    connections: usize,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = router(app.clone());
    let lanes = Lanes::start(&app, lanes(), &router, &general(router.clone()))?;
    let slots = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: existing connections end some time.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            app.metrics.turned_away();
            tokio::spawn(turn_away(socket));
            continue;
        };
        let _ = socket.set_nodelay(true);
        let slot = Slot { stop: stop.clone(), _place: slot, _counted: app.metrics.connection() };
        match socket.into_std() {
            Ok(socket) => lanes.take(socket, peer, slot),
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    }
    drop(listener);
    lanes.stop();
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(STOP_PATIENCE, slots.acquire_many(all)).await;
    Ok(())
}

/// One lane a core: a lane never waits for anything but its sockets.
fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The general server, for whatever is no vote: it goes on with a connection where its lane left off.
fn general(router: Router) -> HandOver {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |socket, peer, slot, read| {
        // Sockets belong to the runtime that is entered.
        let _entered = runtime.enter();
        match TcpStream::from_std(socket) {
            Ok(socket) => drop(tokio::spawn(connection(prefixed(socket, read), peer, router.clone(), slot))),
            Err(error) => tracing::warn!(%error, "a connection could not be taken"),
        }
    })
}

/// A connection of which some bytes were read before.
pub(crate) type Prefixed = tokio::io::Join<Chain<Cursor<Bytes>, OwnedReadHalf>, OwnedWriteHalf>;

fn prefixed(socket: TcpStream, read: Bytes) -> Prefixed {
    let (reader, writer) = socket.into_split();
    tokio::io::join(Cursor::new(read).chain(reader), writer)
}

/// A connection's place among those that may be open. A stream keeps it when it takes the connection over.
#[derive(Debug)]
pub(crate) struct Slot {
    stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
    _counted: Present,
}

async fn connection(socket: Prefixed, peer: SocketAddr, router: Router, slot: Slot) {
    let mut stop = slot.stop.clone();
    // From here on the socket is known as writable until it has no room: see `idle_socket`.
    if socket.writer().writable().await.is_err() {
        return;
    }
    let (take_over, mut taken_over) = mpsc::channel(1);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), request, peer, take_over.clone())
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_LIMIT)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(socket), service);
    // A client that breaks off is no fault of ours, so the results are of no interest.
    tokio::select! {
        _ = &mut connection => {}
        Some((answer, following)) = taken_over.recv() => {
            let parts = connection.into_parts();
            if let Some(socket) = idle_socket(parts.io.into_inner(), &parts.read_buf) {
                following.begin(answer, socket, slot);
            }
        }
        () = stopped(&mut stop) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// The socket of a connection on which nothing is under way: no earlier answer waits to be taken by the client, and
/// nothing came after its last request. On another a stream would begin in the middle of something.
fn idle_socket(connection: Prefixed, unread: &[u8]) -> Option<std::net::TcpStream> {
    let (reader, writer) = connection.into_inner();
    let (prefix, reader) = reader.into_inner();
    let socket = reader.reunite(writer).ok()?;
    let all_read = unread.is_empty() && !bytes::Buf::has_remaining(&prefix);
    // A write that found no room has taken this back, and left the rest where it cannot be reached.
    let all_sent = socket.try_io(tokio::io::Interest::WRITABLE, || Ok(())).is_ok();
    if all_read && all_sent { socket.into_std().ok() } else { None }
}

impl Slot {
    /// Waits until the server stops: a stream has no other end. It keeps no place.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.clone();
        async move { stopped(&mut stop).await }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn answer(
    router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    take_over: mpsc::Sender<(Response, Following)>,
) -> Result<Response, std::convert::Infallible> {
    let mut request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(peer);
    let mut response = router.oneshot(request).await.into_response();
    if let Some(following) = response.extensions_mut().remove::<Following>() {
        let _ = take_over.send((response, following)).await;
        // The connection is taken away from whoever waits for this.
        return std::future::pending().await;
    }
    Ok(response)
}

/// Tells a client that there is no room for it.
async fn turn_away(mut socket: TcpStream) {
    use tokio::io::AsyncWriteExt;
    let problem = canvass_protocol::problem::Problem::new(Code::TooManyConnections);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1";
    let answer = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = tokio::time::timeout(HEAD_PATIENCE, socket.write_all(answer.as_bytes())).await;
}
