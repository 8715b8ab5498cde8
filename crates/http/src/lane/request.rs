//! Reads the head of a request as far as a lane needs it.

use std::mem::MaybeUninit;

use httparse::{Header, Request, Status};

use crate::body::{self, VOTE_LIMIT};
use crate::server::HEAD_LIMIT;

/// Most headers of a request that a lane reads itself.
const MAX_HEADERS: usize = 32;

/// What the bytes of a connection begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// Less than a request.
    Partial,
    /// A vote.
    Vote(VoteRequest<'a>),
    /// A read of results.
    Read(ReadRequest<'a>),
    /// Any other request, and whatever is unusual about one of these.
    Other,
}

/// A request to `POST /api/v1/vote`, as its bytes have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct VoteRequest<'a> {
    pub(super) authorization: Option<&'a [u8]>,
    pub(super) content_type: Option<&'a [u8]>,
    pub(super) idempotency_key: Option<&'a [u8]>,
    pub(super) traceparent: Option<&'a [u8]>,
    pub(super) prefer: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
    /// The bytes of the whole request.
    pub(super) size: usize,
}

/// A request for results as JSON or as a page, as its bytes have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadRequest<'a> {
    /// The path with its parameters.
    pub(super) target: &'a str,
    pub(super) if_none_match: Option<&'a [u8]>,
    pub(super) accept_encoding: Option<&'a [u8]>,
    /// The bytes of the whole request.
    pub(super) size: usize,
}

/// Where votes are sent.
pub(super) const VOTE_PATH: &str = "/api/v1/vote";

/// Reads the first request of a connection's bytes.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(head)) if request.method == Some("GET") => {
            read(&request, head).map_or(Parsed::Other, Parsed::Read)
        }
        Ok(Status::Complete(head)) => vote(&request, head, bytes).unwrap_or(Parsed::Other),
        Ok(Status::Partial) if bytes.len() < HEAD_LIMIT => Parsed::Partial,
        // Whoever reads it next knows how to refuse it.
        Ok(Status::Partial) | Err(_) => Parsed::Other,
    }
}

/// The vote in a request, unless it is no vote or not written in the usual way.
fn vote<'a>(request: &Request<'_, 'a>, head: usize, bytes: &'a [u8]) -> Option<Parsed<'a>> {
    if request.method != Some("POST") || request.path != Some(VOTE_PATH) || request.version != Some(1) {
        return None;
    }
    let mut vote = VoteRequest::default();
    let mut length = None;
    for Header { name, value } in request.headers.iter() {
        let slot = if name.eq_ignore_ascii_case("content-length") {
            &mut length
        } else if name.eq_ignore_ascii_case("authorization") {
            &mut vote.authorization
        } else if name.eq_ignore_ascii_case("content-type") {
            &mut vote.content_type
        } else if name.eq_ignore_ascii_case("idempotency-key") {
            &mut vote.idempotency_key
        } else if name.eq_ignore_ascii_case("traceparent") {
            &mut vote.traceparent
        } else if name.eq_ignore_ascii_case("prefer") {
            &mut vote.prefer
        } else if is_unusual(name, value) {
            return None;
        } else {
            continue;
        };
        if slot.replace(*value).is_some() {
            return None;
        }
    }
    if body::prefers_wait(vote.prefer) {
        return None;
    }
    let length = length.filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok().filter(|n| *n <= VOTE_LIMIT)?;
    vote.size = head + length;
    match bytes.get(head..vote.size) {
        Some(body) => {
            vote.body = body;
            Some(Parsed::Vote(vote))
        }
        None => Some(Parsed::Partial),
    }
}

/// The read in a request, unless it is none of results or not written in the usual way.
fn read<'a>(request: &Request<'_, 'a>, head: usize) -> Option<ReadRequest<'a>> {
    let target = request.path.filter(|target| is_of_results(target) && request.version == Some(1))?;
    let mut read = ReadRequest { target, size: head, ..ReadRequest::default() };
    for Header { name, value } in request.headers.iter() {
        let slot = if name.eq_ignore_ascii_case("if-none-match") {
            &mut read.if_none_match
        } else if name.eq_ignore_ascii_case("accept-encoding") {
            &mut read.accept_encoding
        } else if is_unusual(name, value) || name.eq_ignore_ascii_case("content-length") {
            return None;
        } else {
            continue;
        };
        if slot.replace(*value).is_some() {
            return None;
        }
    }
    Some(read)
}

/// Whether what is asked for is the same for everyone until the next publication: a page of results, or their JSON.
fn is_of_results(target: &str) -> bool {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    path == "/"
        || path == "/api/v1/results"
        || path.strip_prefix("/contests/").is_some_and(|contest| !contest.contains('/'))
}

/// Whether a header asks for something that a lane does not do.
fn is_unusual(name: &str, value: &[u8]) -> bool {
    ["transfer-encoding", "expect", "upgrade"].iter().any(|n| name.eq_ignore_ascii_case(n))
        || name.eq_ignore_ascii_case("connection") && !value.eq_ignore_ascii_case(b"keep-alive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str, body: &str) -> String {
        format!("{head}\r\n\r\n{body}")
    }

    #[test]
    fn a_vote_is_read_whole_and_what_follows_is_left() {
        let text = request(
            "POST /api/v1/vote HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\nIdempotency-Key: k\r\ncontent-length: 3",
            "{ }GET",
        );
        let Parsed::Vote(vote) = parse(text.as_bytes()) else { panic!("no vote") };
        assert_eq!((vote.authorization, vote.idempotency_key), (Some(&b"Bearer t"[..]), Some(&b"k"[..])));
        assert_eq!((vote.body, vote.size), (&b"{ }"[..], text.len() - 3));
        for cut in 0..vote.size {
            assert_eq!(parse(&text.as_bytes()[..cut]), Parsed::Partial, "{cut}");
        }
    }

    #[test]
    fn a_read_of_results_is_read_whole() {
        for target in ["/", "/api/v1/results?contest=a", "/contests/a?unit=b"] {
            let text = request(
                &format!("GET {target} HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"e\"\r\nAccept-Encoding: gzip"),
                "GET",
            );
            let read = ReadRequest {
                target,
                if_none_match: Some(b"\"e\""),
                accept_encoding: Some(b"gzip"),
                size: text.len() - 3,
            };
            assert_eq!(parse(text.as_bytes()), Parsed::Read(read));
        }
    }

    #[test]
    fn other_reads_are_left_to_others() {
        let rows = [
            "GET /contests/a/vote HTTP/1.1\r\nHost: a",
            "GET /api/v1/election HTTP/1.1\r\nHost: a",
            "GET /api/v1/events?contest=a HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.0\r\nHost: a",
            "GET / HTTP/1.1\r\nConnection: close",
            "GET / HTTP/1.1\r\nContent-Length: 1",
            "GET / HTTP/1.1\r\nIf-None-Match: a\r\nIf-None-Match: b",
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
            "HEAD / HTTP/1.1\r\nHost: a",
        ];
        for head in rows {
            assert_eq!(parse(request(head, "").as_bytes()), Parsed::Other, "{head}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        let post = "POST /api/v1/vote HTTP/1.1\r\nHost: a";
        let rows = [
            "GET /api/v1/vote HTTP/1.1\r\nHost: a".to_owned(),
            "POST /api/v1/vote?x=1 HTTP/1.1\r\nContent-Length: 0".to_owned(),
            "POST /api/v1/vote HTTP/1.0\r\nContent-Length: 0".to_owned(),
            post.to_owned(),
            format!("{post}\r\nTransfer-Encoding: chunked"),
            format!("{post}\r\nContent-Length: 0\r\nExpect: 100-continue"),
            format!("{post}\r\nContent-Length: 0\r\nConnection: close"),
            format!("{post}\r\nContent-Length: 0\r\nContent-Length: 0"),
            format!("{post}\r\nContent-Length: +1"),
            format!("{post}\r\nContent-Length: -1"),
            format!("{post}\r\nContent-Length: 8193"),
            format!("{post}\r\nContent-Length: 99999999999999999999"),
            "nonsense".to_owned(),
            format!("{post}{}", "\r\na: b".repeat(MAX_HEADERS)),
        ];
        for head in rows {
            assert_eq!(parse(request(&head, "").as_bytes()), Parsed::Other, "{head}");
        }
        let endless = format!("{post}\r\na: {}", "b".repeat(HEAD_LIMIT));
        assert_eq!(parse(endless.as_bytes()), Parsed::Other);
    }
}
