//! What a verifier has to say.

use std::fmt;

use canvass_election::ids::RecordId;
use serde::Serialize;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// Which log, file or document.
    pub(crate) place: String,
    /// The first record that is not as it must be, where one can be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<RecordId>,
    /// What is wrong, in a sentence.
    pub(crate) what: String,
}

impl Difference {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Difference { place: place.into(), record: None, what: what.into() }
    }

    pub(crate) fn at(self, record: Option<RecordId>) -> Self {
        Difference { record, ..self }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        self.record.map_or(Ok(()), |record| write!(f, " (first bad record: {record})"))
    }
}

/// Why a check cannot go on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Something could not be read; that is nothing that the log says.
    Unreadable(String),
    /// Something is wrong, and what comes behind it cannot be judged.
    Wrong(Difference),
}

impl From<String> for Halt {
    fn from(message: String) -> Self {
        Halt::Unreadable(message)
    }
}

impl From<Difference> for Halt {
    fn from(difference: Difference) -> Self {
        Halt::Wrong(difference)
    }
}
