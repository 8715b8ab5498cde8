//! Reading request bodies, each with its limit.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use canvass_protocol::problem::{Code, Problem};
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Largest body of a single vote, in bytes.
pub(crate) const VOTE_LIMIT: usize = 8 << 10;
/// Largest body of another single request, in bytes.
pub(crate) const SINGLE_LIMIT: usize = 256 << 10;
/// Largest body of a batch, in bytes.
pub(crate) const BATCH_LIMIT: usize = 8 << 20;
/// Most lines of a batch.
pub(crate) const BATCH_LINES: usize = 10_000;
/// Longest idempotency key, in bytes.
pub(crate) const KEY_LIMIT: usize = 256;
/// A body that takes longer to arrive is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::BodyTooLarge).detail(format!("at most {limit} bytes are taken here")))
        }
        Ok(Err(_)) => Err(Problem::new(Code::BadJson).detail("the body broke off")),
        Err(_) => Err(Problem::new(Code::BadJson).detail("the body took too long to arrive")),
    }
}

/// The two media types that bodies come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Ndjson,
}

/// The media type of a body; JSON where none is named.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<MediaType, Problem> {
    headers.get(header::CONTENT_TYPE).map_or(Ok(MediaType::Json), |value| media_type_of(value.as_bytes()))
}

/// The media type that a header names.
pub(crate) fn media_type_of(header: &[u8]) -> Result<MediaType, Problem> {
    let essence = plain(header).unwrap_or("").split(';').next().unwrap_or("").trim();
    match essence {
        "application/json" => Ok(MediaType::Json),
        "application/x-ndjson" | "application/jsonl" => Ok(MediaType::Ndjson),
        _ => Err(Problem::new(Code::UnsupportedMediaType)
            .detail("send application/json, or application/x-ndjson for a batch")),
    }
}

/// The lines of a batch, without empty ones.
pub(crate) fn lines(body: &Bytes) -> Result<Vec<&[u8]>, Problem> {
    let lines: Vec<&[u8]> =
        body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).collect();
    if lines.len() > BATCH_LINES {
        return Err(Problem::new(Code::BodyTooLarge).detail(format!("at most {BATCH_LINES} lines are taken")));
    }
    Ok(lines)
}

/// The idempotency key of a single request; its quotes, if it has them, are not part of it.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    headers.get("idempotency-key").map(|value| key_of(value.as_bytes())).transpose()
}

/// Whether the values of `Prefer` headers ask for a minimal answer (RFC 7240). Receipts hold no promises then: who
/// sends thousands of votes a second can do without a kilobyte for each of them, and ask for the proofs of some a
/// second later.
pub(crate) fn prefers_minimal<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut wishes = headers.into_iter().flat_map(|header| header.split(|byte| *byte == b','));
    wishes.any(|wish| wish.trim_ascii().eq_ignore_ascii_case(b"return=minimal"))
}

/// Whether the values of `Prefer` headers ask to wait until it is known what a record did (RFC 7240).
pub(crate) fn prefers_wait<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut wishes = headers.into_iter().flat_map(|header| header.split(|byte| *byte == b','));
    wishes.any(|wish| {
        let name = wish.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"wait")
    })
}

/// The idempotency key in the bytes of its header.
pub(crate) fn key_of(header: &[u8]) -> Result<&str, Problem> {
    let text =
        plain(header).ok_or_else(|| Problem::new(Code::BadHeader).detail("Idempotency-Key: plain text"))?;
    let key = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    check_key(key)?;
    Ok(key)
}

/// The bytes of a header as text, where they are printable ASCII.
pub(crate) fn plain(header: &[u8]) -> Option<&str> {
    // Looking at all bytes, however early one is bad, lets the processor look at many at a time.
    let printable = header.iter().fold(true, |all, b| all & matches!(b, b' '..=b'~' | b'\t'));
    std::str::from_utf8(header).ok().filter(|_| printable)
}

/// Whether an idempotency key is neither empty nor too long.
pub(crate) fn check_key(key: &str) -> Result<(), Problem> {
    if key.is_empty() || key.len() > KEY_LIMIT {
        let detail = format!("an idempotency key has 1 to {KEY_LIMIT} bytes");
        return Err(Problem::new(Code::BadHeader).detail(detail));
    }
    Ok(())
}
