//! Errors on the wire: RFC 9457 problem details with a stable code.

use serde::Serialize;

/// Builds [`Code`] from one table, so that each code has its word, status and title in one place.
macro_rules! codes {
    ($($variant:ident $word:literal $status:literal $title:literal;)*) => {
        /// What went wrong, in a word that does not change between releases.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $title] $variant),* }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str { match self { $(Code::$variant => $word),* } }

            /// The HTTP status.
            pub fn status(self) -> u16 { match self { $(Code::$variant => $status),* } }

            /// One sentence for a person.
            pub fn title(self) -> &'static str { match self { $(Code::$variant => $title),* } }
        }
    };
}

codes! {
    BadJson "bad-json" 400 "The body is not JSON.";
    BadBody "bad-body" 422 "The body does not have the right form.";
    BadParameter "bad-parameter" 400 "A parameter of the address is not valid.";
    BadHeader "bad-header" 400 "A header is not valid.";
    IdempotencyKeyRequired "idempotency-key-required" 400 "This request needs an Idempotency-Key header.";
    UnsupportedMediaType "unsupported-media-type" 415 "The body has a media type that is not taken here.";
    BodyTooLarge "body-too-large" 413 "The body is too large.";
    NotFound "not-found" 404 "There is nothing at this address.";
    MethodNotAllowed "method-not-allowed" 405 "This address does not take this method.";
    UnknownContest "unknown-contest" 404 "The election has no such contest.";
    UnknownSelection "unknown-selection" 422 "The contest has no such selection.";
    UnknownUnit "unknown-unit" 404 "The election has no such reporting unit, or it reports nothing here.";
    UnknownCountType "unknown-count-type" 422 "The contest does not use this count type.";
    UnknownRecord "unknown-record" 404 "The log has no such record, or it has no counts that stand.";
    NotPublished "not-published" 404 "No checkpoint has the record yet; ask again in a second.";
    UnknownSnapshot "unknown-snapshot" 404 "Nothing was published under this number.";
    WrongCounting "wrong-counting" 422 "The contest does not count this way.";
    BadChoices "bad-choices" 422 "The number of choices is not one the contest takes.";
    BadCounts "bad-counts" 422 "The counts do not fit the contest.";
    TokenMissing "token-missing" 401 "This contest takes votes with a voter's token only.";
    TokenInvalid "token-invalid" 401 "The token is not one that this election's authority signed.";
    TokenExpired "token-expired" 401 "The token has expired.";
    TokenForeign "token-foreign" 403 "The token is for another election or another contest.";
    KeyMissing "key-missing" 401 "This request needs an API key.";
    KeyInvalid "key-invalid" 401 "The API key is not known.";
    Forbidden "forbidden" 403 "This key may not do that.";
    NotOpen "not-open" 409 "Voting has not begun.";
    Closed "closed" 409 "Voting is over.";
    AlreadyVoted "already-voted" 409 "This voter has voted in this contest.";
    VotesUsedUp "votes-used-up" 409 "This voter has cast as many votes as the contest takes.";
    KeyReused "key-reused" 422 "This Idempotency-Key was used for another body.";
    NotStanding "not-standing" 409 "The record's counts do not stand any more; correct the record that does.";
    NotHeld "not-held" 409 "The record is not held.";
    Superseded "superseded" 409 "The unit reported again since, and that return counts.";
    Certified "certified" 409 "The contest is certified; only a correction can change it.";
    NotCalled "not-called" 409 "The contest is not called.";
    AlreadyCalled "already-called" 409 "The contest is called; take the call back first.";
    HoldOpen "hold-open" 409 "A return of the contest waits for the desk; release or reject it first.";
    ProposalOpen "proposal-open" 409 "Another proposal for the contest waits for its answer.";
    NoSuchProposal "no-such-proposal" 409 "The record is no proposal that waits for an answer.";
    SamePerson "same-person" 403 "Whoever proposed it cannot confirm it; that takes another person's key.";
    NoSuchRecount "no-such-recount" 409 "No such recount is open.";
    RecountOpen "recount-open" 409 "A recount is open that covers this.";
    OutsideRecount "outside-recount" 422 "The unit is outside the recount.";
    AlreadyClosed "already-closed" 409 "The contest is closed.";
    NotARehearsal "not-a-rehearsal" 409 "Only a rehearsal's clock can be set.";
    NotHere "not-here" 421 "Another process of this cluster does that.";
    RateLimited "rate-limited" 429 "Too many requests; wait and try again.";
    Overloaded "overloaded" 503 "The service has more to do than it can; try again.";
    LogUnavailable "log-unavailable" 503 "The log cannot be written at the moment; nothing was recorded. Try again.";
    TooManyConnections "too-many-connections" 503 "Too many connections are open.";
    Internal "internal" 500 "Something went wrong on our side.";
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// One bad field of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// The body of an error answer, `application/problem+json`. It lies elsewhere, so that what can fail is as small as
/// what succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Details>);

/// The members of a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Details {
    /// `urn:canvass:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence, the same for every problem of this code.
    pub title: &'static str,
    /// The HTTP status again.
    pub status: u16,
    /// The stable word.
    pub code: Code,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldFault>,
    /// The record that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Finds this request in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl std::ops::Deref for Problem {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl Problem {
    /// A problem with nothing but its code.
    pub fn new(code: Code) -> Self {
        Problem(Box::new(Details {
            kind: format!("urn:canvass:problem:{}", code.as_str()),
            title: code.title(),
            status: code.status(),
            code,
            detail: None,
            errors: Vec::new(),
            record: None,
            trace_id: None,
        }))
    }

    /// Says what happened this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Names a bad field.
    #[must_use]
    pub fn field(self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.fields([FieldFault { pointer: pointer.into(), detail: detail.into() }])
    }

    /// Names bad fields.
    #[must_use]
    pub fn fields(mut self, faults: impl IntoIterator<Item = FieldFault>) -> Self {
        self.0.errors.extend(faults);
        self
    }

    /// Names the record that stands in the way.
    #[must_use]
    pub fn record(mut self, record: impl ToString) -> Self {
        self.0.record = Some(record.to_string());
        self
    }

    /// Says what finds the request in the server's log.
    #[must_use]
    pub fn trace_id(mut self, trace: String) -> Self {
        self.0.trace_id = Some(trace);
        self
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Problem::new(code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_words_with_error_statuses() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{}", code.as_str());
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
    }
}
