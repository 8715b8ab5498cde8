//! Frames of the live streams, the same over WebSocket and SSE.

use serde::Serialize;
use serde_json::Value;

/// A place in the sequence of publications, written `7:120`.
///
/// The epoch grows each time a board starts; within an epoch, the sequence grows by one a publication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq {
    /// The run of the board.
    pub epoch: u64,
    /// The publication within it, from 1; 0 is the empty state before the first.
    pub seq: u64,
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl std::str::FromStr for Seq {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let (epoch, seq) = s.split_once(':').ok_or(())?;
        Ok(Seq { epoch: epoch.parse().map_err(drop)?, seq: seq.parse().map_err(drop)? })
    }
}

/// Why a client must forget what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetReason {
    /// The board was started anew since.
    Epoch,
    /// The client fell behind, or named a number that was never published.
    Gap,
}

/// One frame of a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Frame<'a> {
    /// The first frame: where the server is.
    Hello {
        /// The board's run.
        epoch: u64,
        /// Its latest publication.
        seq: u64,
    },
    /// The document as a whole.
    Snapshot {
        /// The board's run.
        epoch: u64,
        /// The document's sequence number.
        seq: u64,
        /// The document.
        data: &'a Value,
    },
    /// What has changed, as a JSON Merge Patch (RFC 7396) of the document at `from`.
    Delta {
        /// The board's run.
        epoch: u64,
        /// The sequence number the client must have.
        from: u64,
        /// The sequence number it has then.
        to: u64,
        /// The merge patch.
        patch: &'a Value,
    },
    /// Forget the document; a snapshot follows.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The board's run.
        epoch: u64,
    },
}

impl Frame<'_> {
    /// The frame as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("frames hold nothing that JSON cannot")
    }

    /// The SSE event name.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Hello { .. } => "hello",
            Frame::Snapshot { .. } => "snapshot",
            Frame::Delta { .. } => "delta",
            Frame::Reset { .. } => "reset",
        }
    }
}
