//! The file of witnesses.

use std::path::Path;

use canvass_engine::{AuditOptions, WitnessOptions};
use canvass_tlog::{PublicKey, SecretKey};
use serde::Deserialize;

use crate::serve::Proof;

/// Who is asked to cosign checkpoints, and how many of them make one good.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Witnesses {
    quorum: usize,
    #[serde(rename = "witness")]
    witnesses: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    url: String,
}

/// Reads the file, with every key.
pub(crate) fn read(path: &Path) -> Result<Witnesses, String> {
    let fault = |what: String| format!("the witnesses in {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
    let read: Witnesses = toml::from_str(&text).map_err(|e| fault(e.message().to_owned()))?;
    for (n, entry) in read.witnesses.iter().enumerate() {
        entry.key().map_err(&fault)?;
        if read.witnesses[..n].iter().any(|other| other.key == entry.key) {
            return Err(fault(format!("the key {} stands there twice", entry.key)));
        }
    }
    if read.quorum == 0 || read.quorum > read.witnesses.len() {
        return Err(fault(format!("the quorum is one of 1 to {}, their number", read.witnesses.len())));
    }
    Ok(read)
}

impl Entry {
    fn key(&self) -> Result<PublicKey, String> {
        self.key.parse().map_err(|e| format!("`{}`: {e}", self.key))
    }
}

impl Witnesses {
    /// The options of a log that has this key.
    pub(crate) fn options(&self, key: SecretKey, proof: Proof) -> AuditOptions {
        let witness = |entry: &Entry| Some(WitnessOptions { key: entry.key().ok()?, url: entry.url.clone() });
        AuditOptions {
            key,
            promises: proof == Proof::Whole,
            witnesses: self.witnesses.iter().filter_map(witness).collect(),
            quorum: self.quorum,
        }
    }
}
