//! Names of things: small integers inside the system, text at its edges.
//!
//! A definition lists its contests, selections and units in order; the position in that list is the
//! thing's id everywhere behind the gateway. The text ids of the definition are used on the wire only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Position of a contest in the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContestId(pub u16);

/// Position of a selection within its contest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SelectionId(pub u16);

/// Position of a reporting unit in the definition; the root is 0 and a parent stands before its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(pub u32);

macro_rules! index {
    ($($name:ident),*) => {$(
        impl $name {
            /// The id as an index into the definition's list.
            pub fn index(self) -> usize { self.0 as usize }
        }
    )*};
}
index!(ContestId, SelectionId, UnitId);

/// Which stream of the log a partition belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// Returns of reporting units and every event of the desk.
    Returns,
    /// Votes of single voters.
    Votes,
}

/// One ordered sequence of the log, written `votes/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The stream.
    pub topic: Topic,
    /// The partition's number within the stream, from 0.
    pub index: u16,
}

impl PartitionId {
    /// The partition that carries the desk's events; its fold decides a contest's state.
    pub const CONTROL: PartitionId = PartitionId::returns(0);

    /// Partition `index` of the votes.
    pub const fn votes(index: u16) -> Self {
        PartitionId { topic: Topic::Votes, index }
    }

    /// Partition `index` of the returns.
    pub const fn returns(index: u16) -> Self {
        PartitionId { topic: Topic::Returns, index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = match self.topic {
            Topic::Returns => "returns",
            Topic::Votes => "votes",
        };
        write!(f, "{topic}/{}", self.index)
    }
}

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not {1}")]
pub struct ParseIdError(String, &'static str);

impl FromStr for PartitionId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let fault = || ParseIdError(s.to_owned(), "a partition such as votes/0");
        let (topic, index) = s.split_once('/').ok_or_else(fault)?;
        let index = index.parse().map_err(|_| fault())?;
        match topic {
            "returns" => Ok(Self::returns(index)),
            "votes" => Ok(Self::votes(index)),
            _ => Err(fault()),
        }
    }
}

/// Place of a batch within its partition: 0, 1, 2 … without gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Offset(self.0.saturating_add(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Place of a record in the log, written `returns-0-17-3` (it is used in paths, so it holds no slash).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The partition.
    pub partition: PartitionId,
    /// The batch within the partition.
    pub offset: Offset,
    /// The record within the batch, from 0.
    pub position: u32,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = match self.partition.topic {
            Topic::Returns => "returns",
            Topic::Votes => "votes",
        };
        write!(f, "{topic}-{}-{}-{}", self.partition.index, self.offset, self.position)
    }
}

impl FromStr for RecordId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let fault = || ParseIdError(s.to_owned(), "a record such as returns-0-17-3");
        let mut parts = s.split('-');
        let mut next = || parts.next().ok_or_else(fault);
        let topic = match next()? {
            "returns" => Topic::Returns,
            "votes" => Topic::Votes,
            _ => return Err(fault()),
        };
        let index = next()?.parse().map_err(|_| fault())?;
        let offset = Offset(next()?.parse().map_err(|_| fault())?);
        let position = next()?.parse().map_err(|_| fault())?;
        match parts.next() {
            None => Ok(RecordId { partition: PartitionId { topic, index }, offset, position }),
            Some(_) => Err(fault()),
        }
    }
}

/// Serialises an id as the text it displays.
macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(PartitionId, RecordId);

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// What makes a retry recognisable: a keyed hash of who asks and of their `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub [u8; 16]);

/// A voter's pseudonym within one contest: a keyed hash of (contest, subject).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nullifier(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_display() {
        for text in ["returns-0-17-3", "votes-65535-18446744073709551615-4294967295"] {
            assert_eq!(text.parse::<RecordId>().unwrap().to_string(), text);
        }
        for text in ["returns/0", "votes/7"] {
            assert_eq!(text.parse::<PartitionId>().unwrap().to_string(), text);
        }
        for text in ["", "votes", "votes-1", "votes-1-2", "votes-1-2-3-4", "ballots-1-2-3", "votes-x-2-3"] {
            assert!(text.parse::<RecordId>().is_err(), "{text}");
        }
    }
}
