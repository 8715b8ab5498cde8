//! The published log: checkpoints, tiles, entry bundles and long records, as docs/audit.md says.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use canvass_election::ids::{PartitionId, Timestamp};
use canvass_engine::{Audit, Shown};
use canvass_protocol::problem::Code;
use canvass_protocol::time;
use canvass_tlog::{BATCH_ENDS, SignedCheckpoint, TilePath};
use serde_json::json;

use crate::App;
use crate::reply::{Answer, IMMUTABLE, json as json_answer};
use crate::vote::internal;

/// For what must be the newest each time.
const NO_CACHE: &str = "no-cache";
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// The log as a whole at the root of the server, and each partition's under a prefix of its own.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/checkpoint", get(get_checkpoint))
        .route("/tile/{*path}", get(get_tile))
        .route("/log/{topic}/{index}/checkpoint", get(get_partition_checkpoint))
        .route("/log/{topic}/{index}/tile/{*path}", get(get_partition_tile))
        .route("/log/{topic}/{index}/batches/{slice}", get(get_batches))
        .route("/log/{topic}/{index}/record/{sha256}", get(get_long_record))
}

fn audit(app: &App) -> Result<&Audit, Code> {
    app.engine.audit().map(|audit| &**audit).ok_or(Code::NotFound)
}

fn partition(topic: &str, index: &str) -> Result<PartitionId, Code> {
    let text = format!("{topic}/{index}");
    // There is one way to write each.
    text.parse().ok().filter(|id: &PartitionId| id.to_string() == text).ok_or(Code::NotFound)
}

fn tile_path(path: &str) -> Result<TilePath, Code> {
    path.parse().map_err(|_| Code::NotFound)
}

fn checkpoint(checkpoint: Option<SignedCheckpoint>) -> Answer {
    let checkpoint = checkpoint.ok_or(Code::NotFound)?;
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, NO_CACHE)];
    Ok((headers, checkpoint.note().to_owned()).into_response())
}

/// What was published under this address never changes.
fn immutable(bytes: Option<impl IntoResponse>) -> Answer {
    let bytes = bytes.ok_or(Code::NotFound)?;
    Ok(([(header::CONTENT_TYPE, BYTES), (header::CACHE_CONTROL, IMMUTABLE)], bytes).into_response())
}

/// `GET /checkpoint`
async fn get_checkpoint(State(app): State<Arc<App>>) -> Answer {
    checkpoint(audit(&app)?.checkpoint().map(|shown| shown.checkpoint))
}

/// `GET /tile/…`
async fn get_tile(State(app): State<Arc<App>>, Path(path): Path<String>) -> Answer {
    let (path, meta) = (tile_path(&path)?, audit(&app)?.meta());
    let bytes = if path.level.is_some() { meta.tiles().tile(path) } else { meta.bundle(path) };
    immutable(bytes.map_err(internal)?)
}

/// `GET /log/votes/0/checkpoint`
async fn get_partition_checkpoint(
    State(app): State<Arc<App>>,
    Path((topic, index)): Path<(String, String)>,
) -> Answer {
    let tiles = audit(&app)?.tiles(partition(&topic, &index)?);
    checkpoint(tiles.and_then(|tiles| tiles.checkpoint()))
}

/// `GET /log/votes/0/tile/…`
async fn get_partition_tile(
    State(app): State<Arc<App>>,
    Path((topic, index, path)): Path<(String, String, String)>,
) -> Answer {
    let (partition, path, audit) = (partition(&topic, &index)?, tile_path(&path)?, audit(&app)?);
    let bytes = match (path.level, audit.tiles(partition)) {
        (None, _) => audit.bundle(partition, path).await.map_err(internal)?,
        (Some(_), Some(tiles)) => tiles.tile(path).map_err(internal)?,
        (Some(_), None) => None,
    };
    immutable(bytes)
}

/// `GET /log/votes/0/batches/…`: where batches end. The last slice grows.
async fn get_batches(
    State(app): State<Arc<App>>,
    Path((topic, index, slice)): Path<(String, String, String)>,
) -> Answer {
    let number: u64 = slice.parse().map_err(|_| Code::NotFound)?;
    let tiles = audit(&app)?.tiles(partition(&topic, &index)?).ok_or(Code::NotFound)?;
    let bytes = tiles.batch_ends(number).map_err(internal)?.filter(|_| number.to_string() == slice);
    let bytes = bytes.ok_or(Code::NotFound)?;
    let whole = bytes.len() as u64 == 8 * BATCH_ENDS;
    let caching = if whole { IMMUTABLE } else { NO_CACHE };
    Ok(([(header::CONTENT_TYPE, BYTES), (header::CACHE_CONTROL, caching)], bytes).into_response())
}

/// `GET /log/returns/0/record/…`
async fn get_long_record(
    State(app): State<Arc<App>>,
    Path((topic, index, sha256)): Path<(String, String, String)>,
) -> Answer {
    let hash = crate::auth::unhex(&sha256).ok_or(Code::NotFound)?;
    let record = audit(&app)?.long_record(partition(&topic, &index)?, hash).await;
    immutable(record.map_err(internal)?)
}

/// `GET /api/v1/receipts/{record}/proof`: what a receipt promises, kept.
pub(crate) async fn get_record_proof(State(app): State<Arc<App>>, Path(record): Path<String>) -> Answer {
    let record = record.parse().map_err(|_| Code::UnknownRecord)?;
    let Some(proof) = audit(&app)?.proof(record).map_err(internal)? else {
        app.engine.record(record).await.map_err(internal)?.ok_or(Code::UnknownRecord)?;
        return Err(Code::NotPublished.into());
    };
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, NO_CACHE)];
    Ok((headers, proof.to_string()).into_response())
}

/// `GET /api/v1/proof`
pub(crate) async fn get_proof(State(app): State<Arc<App>>) -> Answer {
    let audit = audit(&app)?;
    let mut state = json!({ "key": audit.key().to_string(), "witnesses": {} });
    if let Some(Shown { checkpoint, published, covers, cosignatures }) = audit.checkpoint() {
        state["checkpoint"] = json!({
            "size": checkpoint.size(),
            "root": checkpoint.root().to_string(),
            "published": time::format(published),
            "covers": covers,
        });
        let signed = |name: &str| cosignatures.iter().find(|c| c.witness() == name).map(|c| c.time());
        let witnesses = audit.witnesses().iter().map(|name| {
            let signed = signed(name).map(|seconds| time::format(Timestamp(seconds.saturating_mul(1_000))));
            let state = signed.map_or_else(|| json!({}), |signed| json!({ "signed": signed }));
            (name.clone(), state)
        });
        state["witnesses"] = witnesses.collect();
    }
    if !audit.witnesses().is_empty() {
        state["quorum"] = json!(audit.quorum());
    }
    if let Some(anchors) = &app.anchors {
        state["anchors"] = json!(anchors());
    }
    json_answer(StatusCode::OK, &state)
}
