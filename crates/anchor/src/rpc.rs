//! JSON-RPC over HTTP and HTTPS. Each call has a time limit, and no error names more of the node's address than its
//! host: providers put their customers' keys into the path.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::Bytes;
use canvass_outward::{AddressError, Client, causes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A node that has not answered after this long is taken for dead.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How much of a node's own words is shown.
const MAX_WORDS: usize = 200;

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RpcError {
    /// It could not be reached, or did not answer in time, or answered something else than JSON-RPC.
    #[error("the node {host} does not answer: {why}")]
    Away {
        /// Its host.
        host: String,
        /// What happened.
        why: String,
    },
    /// It refused.
    #[error("the node refused {method}: {message}")]
    Refused {
        /// What it was asked.
        method: &'static str,
        /// What it said.
        message: String,
        /// What a contract said.
        data: Option<Bytes>,
    },
    /// Its answer is not one this program understands.
    #[error("the node's answer to {method} is not as expected: {fault}")]
    Answer {
        /// What it was asked.
        method: &'static str,
        /// What is wrong.
        fault: String,
    },
}

/// A node of a chain. Cheap to clone.
#[derive(Clone)]
pub struct Rpc(Arc<Node>);

struct Node {
    client: Client<Full<bytes::Bytes>>,
    uri: Uri,
    host: String,
    next_id: AtomicU64,
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rpc({})", self.host())
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Fault>,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    message: String,
    data: Option<Value>,
}

impl Rpc {
    /// A node by its address; nothing is sent yet.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let uri: Uri = address.trim().parse().map_err(|_| AddressError::Form)?;
        let client = canvass_outward::client(&uri)?;
        let host = uri.authority().ok_or(AddressError::Form)?.to_string();
        Ok(Self(Arc::new(Node { client, uri, host, next_id: AtomicU64::new(1) })))
    }

    /// The node's host and port.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Asks the node once.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, RpcError> {
        let exchange = tokio::time::timeout(CALL_LIMIT, self.exchange(method, params));
        let late = |_| Err(self.away(format!("nothing came within {} s", CALL_LIMIT.as_secs())));
        let (status, body) = exchange.await.unwrap_or_else(late)?;
        let answer: Answer = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            // Whatever stands in front of a node says no in its own way.
            Err(_) if status != StatusCode::OK => return Err(self.away(status.to_string())),
            Err(fault) => return Err(RpcError::Answer { method, fault: fault.to_string() }),
        };
        if let Some(Fault { message, data }) = answer.error {
            let data = data.and_then(|data| serde_json::from_value(data).ok());
            return Err(RpcError::Refused { method, message: shortened(&message), data });
        }
        serde_json::from_value(answer.result)
            .map_err(|fault| RpcError::Answer { method, fault: shortened(&fault.to_string()) })
    }

    async fn exchange(&self, method: &str, params: Value) -> Result<(StatusCode, bytes::Bytes), RpcError> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let request = Request::post(&self.0.uri)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.to_string().into()))
            .map_err(|e| self.away(e.to_string()))?;
        let response = self.0.client.request(request).await.map_err(|e| self.away(causes(&e)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| self.away(e.to_string()))?;
        Ok((head.status, body.to_bytes()))
    }

    fn away(&self, why: String) -> RpcError {
        RpcError::Away { host: self.0.host.clone(), why: shortened(&why) }
    }
}

/// One line of no more than [`MAX_WORDS`] characters.
fn shortened(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for bad in ["", "localhost:8545", "ftp://node.example", "http://", "/path"] {
            assert!(matches!(Rpc::new(bad), Err(AddressError::Form)), "{bad:?}");
        }
        assert!(matches!(Rpc::new("http://me:secret@node.example"), Err(AddressError::Password)));
        let rpc = Rpc::new("http://node.example:8545/v3/secret").unwrap();
        assert_eq!(format!("{rpc:?}"), "Rpc(node.example:8545)");
    }

    /// A node that takes the call and never answers.
    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_given_up_and_its_key_not_shown() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rpc = Rpc::new(&format!("http://{address}/v3/secret")).unwrap();
        let error = rpc.call::<Value>("eth_chainId", Value::Null).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the node {address} does not answer: nothing came within 10 s")
        );
        drop(listener);
        // A clock that stands goes to the end of the wait at once, before the refusal is here.
        tokio::time::resume();
        let error = rpc.call::<Value>("eth_chainId", Value::Null).await.unwrap_err().to_string();
        assert!(error.contains("refused") && !error.contains("secret"), "{error}");
    }
}
