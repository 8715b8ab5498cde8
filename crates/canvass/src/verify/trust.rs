//! What a verifier believes without the server: the log's key, witnesses, a checkpoint that was kept, anchors.

use std::collections::BTreeSet;
use std::path::PathBuf;

use canvass_anchor::{Anchored, ReadError};
use canvass_tlog::witness::cosignatures;
use canvass_tlog::{Hash, PublicKey, SignedCheckpoint};
use clap::Args;
use tokio::runtime::Handle;

use super::difference::{Difference, Halt};
use super::source::Source;
use crate::anchor::ChainArgs;

/// Where a server says its key.
pub(crate) const KEY_PATH: &str = "/api/v1/proof";

const CHAIN: &str = "the chain";

/// The log's key and those who vouch for its checkpoints.
#[derive(Args, Default)]
pub(crate) struct TrustArgs {
    /// The log's public key, `name+id+key`, or a file that holds it; without it the server's own word is taken
    #[arg(long, value_name = "KEY", env = "CANVASS_LOG_KEY")]
    pub(crate) key: Option<String>,
    /// A witness's public key, or a file that holds some, one a line; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) witness: Vec<String>,
    /// How many of the witnesses must have cosigned; all of them where not given
    #[arg(long, value_name = "COUNT", requires = "witness")]
    pub(crate) quorum: Option<usize>,
}

/// What everything is checked against.
pub(crate) struct Trust {
    pub(crate) key: PublicKey,
    /// The key is nobody's word but the server's.
    pub(crate) on_first_use: bool,
    witnesses: Vec<PublicKey>,
    quorum: usize,
}

/// A tree of the meta-log as somebody outside knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

impl TrustArgs {
    /// Reads keys; asks the source for the log's key where none is pinned.
    pub(crate) fn read(&self, source: &Source) -> Result<Trust, String> {
        let key = match &self.key {
            Some(key) => text_or_file(key)?,
            None => served_key(source)?,
        };
        let key: PublicKey = key.trim().parse().map_err(|e| format!("the log's key: {e}"))?;
        let mut witnesses = Vec::new();
        for given in &self.witness {
            for line in text_or_file(given)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let witness: PublicKey = line.parse().map_err(|e| format!("witness `{line}`: {e}"))?;
                if !witness.is_witness() {
                    return Err(format!("`{line}` is no witness's key: its kind must be 4"));
                }
                witnesses.push(witness);
            }
        }
        let quorum = self.quorum.unwrap_or(witnesses.len());
        if quorum > witnesses.len() {
            return Err(format!("a quorum of {quorum} is more than the {} witnesses given", witnesses.len()));
        }
        Ok(Trust { key, on_first_use: self.key.is_none(), witnesses, quorum })
    }
}

/// The key that the source names as its own.
fn served_key(source: &Source) -> Result<String, String> {
    #[derive(serde::Deserialize)]
    struct Proof {
        key: String,
    }
    let bytes = source.require(KEY_PATH)?;
    let proof: Proof = serde_json::from_slice(&bytes).map_err(|e| format!("{KEY_PATH}: {e}"))?;
    Ok(proof.key)
}

/// A key as it was given, or the content of the file that was named instead.
fn text_or_file(given: &str) -> Result<String, String> {
    if given.parse::<PublicKey>().is_ok() {
        return Ok(given.to_owned());
    }
    std::fs::read_to_string(given)
        .map_err(|e| format!("`{given}` is no key of the form name+id+key and no file that can be read: {e}"))
}

impl Trust {
    /// Opens a checkpoint of the meta-log.
    pub(crate) fn open(&self, note: &[u8]) -> Result<SignedCheckpoint, Difference> {
        SignedCheckpoint::open(note, &self.key).map_err(|e| Difference::new("/checkpoint", e.to_string()))
    }

    /// Who of the witnesses has cosigned a checkpoint, and a difference where they are too few.
    pub(crate) fn cosigners(&self, checkpoint: &SignedCheckpoint) -> (Vec<String>, Option<Difference>) {
        let wrong = |what: String| Some(Difference::new("/checkpoint", what));
        match cosignatures(checkpoint, &self.witnesses) {
            Err(error) => (Vec::new(), wrong(error.to_string())),
            Ok(found) => {
                // A witness that signs twice is one witness.
                let names: BTreeSet<String> = found.iter().map(|c| c.witness().to_owned()).collect();
                let few = (names.len() < self.quorum).then(|| {
                    let (has, wanted) = (names.len(), self.quorum);
                    wrong(format!("{has} of the witnesses given have cosigned it; {wanted} must"))
                });
                (names.into_iter().collect(), few.flatten())
            }
        }
    }
}

/// What somebody outside knows of the meta-log's past.
#[derive(Args, Default)]
pub(crate) struct PastArgs {
    /// An older checkpoint that somebody kept: the log must begin as it says
    #[arg(long, value_name = "FILE")]
    pub(crate) since: Option<PathBuf>,
    /// Heads of the meta-log that were anchored elsewhere, a line of `SIZE ROOT` each (the root in hex or Base64)
    #[arg(long, value_name = "FILE")]
    pub(crate) anchors: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

impl PastArgs {
    /// The checkpoint that was kept.
    pub(crate) fn since(&self, trust: &Trust) -> Result<Option<Head>, String> {
        let Some(file) = &self.since else { return Ok(None) };
        let note = std::fs::read(file).map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
        let opened = SignedCheckpoint::open(&note, &trust.key);
        let checkpoint = opened.map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(Some(Head { size: checkpoint.size(), root: checkpoint.root() }))
    }

    /// The heads that were anchored.
    pub(crate) fn anchors(&self) -> Result<Vec<Head>, String> {
        let Some(file) = &self.anchors else { return Ok(Vec::new()) };
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
        let fault = |line: &str| format!("{}: `{line}` is not of the form SIZE ROOT", file.display());
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| head(line).ok_or_else(|| fault(line))).collect()
    }

    /// The heads that a chain has, oldest first; `None` where no chain was named. Must not be called on the runtime.
    pub(crate) fn chained(&self, trust: &Trust) -> Result<Option<Vec<Anchored>>, Halt> {
        let Some((rpc, contract)) = self.chain.open()? else { return Ok(None) };
        let read = canvass_anchor::read(&rpc, contract, trust.key.name());
        let anchored = match Handle::current().block_on(read) {
            Ok(anchored) => anchored,
            Err(error @ ReadError::Rpc(_)) => return Err(error.to_string().into()),
            Err(error) => return Err(Difference::new(CHAIN, error.to_string()).into()),
        };
        if anchored.is_empty() {
            let what = format!("the contract {contract} has no head of `{}`", trust.key.name());
            return Err(Difference::new(CHAIN, what).into());
        }
        Ok(Some(anchored))
    }
}

fn head(line: &str) -> Option<Head> {
    let (size, root) = line.split_once(char::is_whitespace)?;
    let root = root.trim();
    let root = match root.strip_prefix("0x").unwrap_or(root) {
        hex if hex.len() == 64 => hash_of_hex(hex)?,
        _ => Hash::parse_hash(root).ok()?,
    };
    Some(Head { size: size.parse().ok()?, root })
}

fn hash_of_hex(hex: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    for (byte, digits) in hash.0.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_read_in_hex_and_in_base64() {
        let root = canvass_tlog::leaf_hash(b"a");
        let hex: String = root.0.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [format!("7 {hex}"), format!("7\t0x{hex}"), format!("7  {root}")] {
            assert_eq!(head(&text), Some(Head { size: 7, root }), "{text}");
        }
        for text in ["7", "7 ", "seven AAAA", &format!("7 {}", &hex[1..]), &format!("-7 {hex}")] {
            assert_eq!(head(text), None, "{text}");
        }
    }
}
