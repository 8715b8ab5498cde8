//! Asks witnesses to cosign checkpoints, as C2SP's tlog-witness says. Each has a task of its own: one that is dead
//! or slow holds nobody up, neither the other witnesses nor the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use canvass_outward::{AddressError, Client, causes};
use canvass_tlog::witness::{self, Cosignature};
use canvass_tlog::{PublicKey, SignedCheckpoint};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri};
use tokio::sync::watch;

use super::Audit;

/// A witness that has not answered after this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two requests to a witness, and to one that failed at first; it doubles with each failure.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
/// The longest such time.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How often in a row a witness may say that it has seen another size.
const SIZE_TRIES: usize = 3;

/// A witness to ask.
#[derive(Debug, Clone)]
pub struct WitnessOptions {
    /// The key it cosigns with.
    pub key: PublicKey,
    /// Its address, to which `/add-checkpoint` is added.
    pub url: String,
}

/// A witness, and the way to it.
pub(crate) struct Witness {
    key: PublicKey,
    address: Uri,
    client: Client<Full<Bytes>>,
}

impl Witness {
    pub(super) fn new(options: &WitnessOptions) -> Result<Self, String> {
        let WitnessOptions { key, url } = options;
        let fault = |what: String| format!("the witness {}: {what}", key.name());
        if !key.is_witness() {
            return Err(fault("its key signs logs; a witness's key is of the kind that cosigns".to_owned()));
        }
        let address = format!("{}/add-checkpoint", url.trim_end_matches('/'));
        let address: Uri = address.parse().map_err(|_| fault(AddressError::Form.to_string()))?;
        let client = canvass_outward::client(&address).map_err(|e| fault(e.to_string()))?;
        Ok(Witness { key: key.clone(), address, client })
    }

    pub(super) fn name(&self) -> &str {
        self.key.name()
    }

    /// Has each new checkpoint cosigned, until told to stop.
    pub(crate) async fn run(self, audit: Arc<Audit>, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.follow(&audit) => {}
        }
        Ok(())
    }

    async fn follow(&self, audit: &Audit) {
        let mut changes = audit.changes();
        let (mut seen, mut asked) = (0, None);
        let (mut failures, mut said) = (0_u32, String::new());
        loop {
            let Some(checkpoint) = audit.newest().filter(|checkpoint| asked != Some(checkpoint.size()))
            else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let within = tokio::time::timeout(PATIENCE, self.cosign(audit, &mut seen, &checkpoint));
            match within.await.unwrap_or_else(|_| Err(format!("nothing came within {PATIENCE:?}"))) {
                Ok(cosignatures) => {
                    if std::mem::take(&mut failures) > 0 {
                        tracing::info!(witness = self.name(), "the witness cosigns again");
                        said.clear();
                    }
                    asked = Some(checkpoint.size());
                    audit.cosigned(&checkpoint, cosignatures);
                }
                Err(why) => {
                    // Said once for each reason: a dead witness is asked thousands of times.
                    if why != said {
                        tracing::warn!(
                            witness = self.name(),
                            why,
                            "the witness does not cosign; it is asked again"
                        );
                    }
                    failures = failures.saturating_add(1);
                    said = why;
                }
            }
            let pause = PAUSE.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
            tokio::time::sleep(pause.min(MAX_PAUSE)).await;
        }
    }

    /// Asks for a cosignature. `seen` is the size of the checkpoint that the witness saw last.
    async fn cosign(
        &self,
        audit: &Audit,
        seen: &mut u64,
        checkpoint: &SignedCheckpoint,
    ) -> Result<Vec<Cosignature>, String> {
        for _ in 0..SIZE_TRIES {
            let growth = match *seen {
                size if size == checkpoint.size() => Some(Vec::new()),
                size => {
                    audit.meta().tiles().prove_growth(size, checkpoint.size()).map_err(|e| e.to_string())?
                }
            };
            let growth = growth.ok_or_else(|| {
                format!(
                    "it has seen a checkpoint of {seen} leaves, and the log has {}: this log was put back to an \
                     older state, or there is another of its name",
                    checkpoint.size()
                )
            })?;
            let (status, answer) = self.post(witness::add_checkpoint(*seen, &growth, checkpoint)).await?;
            match status {
                StatusCode::OK => {
                    *seen = checkpoint.size();
                    let known = std::slice::from_ref(&self.key);
                    let read = witness::read_answer(&answer, checkpoint, known).map_err(|e| e.to_string())?;
                    let none = || "its answer has no signature by its key".to_owned();
                    return Some(read).filter(|read| !read.is_empty()).ok_or_else(none);
                }
                StatusCode::CONFLICT => {
                    *seen = witness::last_size(&answer).ok_or("it says 409 without a size")?;
                }
                status => return Err(format!("{status} {}", words(&answer))),
            }
        }
        Err("it says that it has seen another size again and again".to_owned())
    }

    async fn post(&self, body: String) -> Result<(StatusCode, String), String> {
        let request = Request::post(&self.address).body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| e.to_string())?;
        let response = self.client.request(request).await.map_err(|e| causes(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|e| e.to_string())?;
        Ok((head.status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}

/// The beginning of what a witness says, in one line.
fn words(answer: &str) -> String {
    answer.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
