//! One vote: from the bytes of a request to a draft, and from the fold's verdict to an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use canvass_election::definition::{Contest, Eligibility, VotePolicy, Voting};
use canvass_election::event::{Choices, Event, Vote};
use canvass_election::ids::{ContestId, Nullifier, PartitionId, RecordId, RequestId, Timestamp};
use canvass_election::tally::{HoldReason, Outcome, Reason};
use canvass_engine::{IngestError, Published, Verdict};
use canvass_protocol::api::{Accepted, Receipt, VoteRequest};
use canvass_protocol::problem::{Code, Problem};

use crate::App;
use crate::auth::{KEY_PREFIX, Role};
use crate::body::check_key;
use crate::desk::held_because;

/// Longest name of a voter, in bytes.
const VOTER_LIMIT: usize = 256;

/// How a voter is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Voter<'a> {
    /// By a signed token.
    Token(&'a str),
    /// By the name they or a trusted collector give.
    Named(&'a str),
}

/// What was recorded, and whether it was recorded before this request.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) record: RecordId,
    pub(crate) time: Timestamp,
    /// Whether it is known what it did.
    pub(crate) known: bool,
    /// The rule it broke, if it waits for the desk.
    pub(crate) held: Option<HoldReason>,
    pub(crate) replayed: bool,
    /// Those of its batch, of which it has one.
    pub(crate) receipts: Receipts,
}

/// The receipts of a batch, where the log is published.
pub(crate) type Receipts = Option<Arc<canvass_engine::Receipts>>;

impl Recorded {
    pub(crate) fn status(&self) -> u16 {
        match (self.known, self.replayed) {
            (false, _) => 202,
            (true, false) => 201,
            (true, true) => 200,
        }
    }

    /// What is said of it, with its receipt whole.
    pub(crate) fn accepted(&self) -> Accepted {
        let Recorded { record, time, known, held, .. } = *self;
        let outcome = match held {
            None if !known => "recorded",
            None => "counted",
            Some(_) => "held",
        };
        let promise = self.receipts.as_ref().and_then(|receipts| receipts.get()?.text(record.position));
        Accepted {
            receipt: Receipt { record, time, promise },
            outcome: outcome.into(),
            held_because: held.as_ref().map(held_because),
        }
    }
}

/// A vote that is ready to be recorded.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) partition: PartitionId,
    pub(crate) request: RequestId,
    pub(crate) vote: Vote,
}

/// What is the same for all votes that are looked at together.
pub(crate) struct Moment {
    now: Timestamp,
    published: Arc<Published>,
}

impl Moment {
    /// The present.
    pub(crate) fn new(app: &App) -> Self {
        Moment { now: app.engine.clock().now(), published: app.edge.published() }
    }
}

/// Who sends votes: the key of a collector, whose word is taken for the voter's name, or anybody else. `n` votes
/// are taken off what they may send in a second.
pub(crate) fn is_collector(
    app: &App,
    credential: Option<&str>,
    peer: SocketAddr,
    n: usize,
) -> Result<bool, Problem> {
    if credential.is_some_and(|key| key.starts_with(KEY_PREFIX)) {
        let key = app.keys.require(credential, &[Role::Collector])?;
        app.limits.key(&key.name, n)?;
        return Ok(true);
    }
    app.limits.address(peer.ip(), n)?;
    Ok(false)
}

/// Makes the vote of a request ready. `credential` is that of its headers, `key` the idempotency key, and `trusted`
/// is for collectors.
pub(crate) fn prepare_request(
    app: &App,
    moment: &Moment,
    request: &VoteRequest<'_>,
    credential: Option<&str>,
    key: Option<&str>,
    trusted: bool,
) -> Result<Prepared, Problem> {
    let contest = contest_in_body(app, &request.contest)?;
    let token = request.token.as_deref().or(credential.filter(|b| !b.starts_with(KEY_PREFIX)));
    let voter = match (token, request.voter.as_deref()) {
        (Some(token), _) => Voter::Token(token),
        (None, Some(name)) => Voter::Named(name),
        (None, None) => {
            return Err(Problem::new(Code::TokenMissing).detail("name a voter, or send a token"));
        }
    };
    let selections = request.selections.iter().map(|text| &**text);
    prepare(app, moment, contest, voter, selections, key, trusted)
}

/// The contest that a body names.
pub(crate) fn contest_in_body(app: &App, id: &str) -> Result<ContestId, Problem> {
    app.definition().contest_by_id(id).ok_or_else(|| {
        Problem::new(Code::UnknownContest).field("/contest", format!("there is no contest `{id}`"))
    })
}

/// Makes a vote ready. `trusted` is for collectors, who name voters even where a token is needed.
pub(crate) fn prepare<'a>(
    app: &App,
    moment: &Moment,
    id: ContestId,
    voter: Voter<'_>,
    selections: impl ExactSizeIterator<Item = &'a str>,
    key: Option<&str>,
    trusted: bool,
) -> Result<Prepared, Problem> {
    let contest = app.definition().contest(id).ok_or(Code::UnknownContest)?;
    let voting = contest.voting().ok_or_else(|| {
        Problem::new(Code::WrongCounting).detail("units report returns here; there is nothing to vote on")
    })?;
    let subject = |subject: &str| app.secret.nullifier(&contest.id, subject);
    let nullifier = match (voter, voting.eligibility) {
        (Voter::Token(token), _) => app.tokens.voter(token, &contest.id, subject)?,
        (Voter::Named(_), Eligibility::Token) if !trusted => return Err(Code::TokenMissing.into()),
        (Voter::Named(name), _) if name.is_empty() || name.len() > VOTER_LIMIT => {
            let detail = format!("a voter's name has 1 to {VOTER_LIMIT} bytes");
            return Err(Problem::new(Code::BadBody).field("/voter", detail));
        }
        (Voter::Named(name), _) => subject(name),
    };
    let choices = choices(contest, selections)?;
    let request = match key {
        Some(key) => {
            check_key(key)?;
            app.secret.request(&nullifier.0, key)
        }
        // One vote a voter: the same choices again can only be a retry.
        None if voting.policy == VotePolicy::One => app.secret.request_of_choices(&nullifier, &choices),
        None => return Err(Code::IdempotencyKeyRequired.into()),
    };
    refuse_outside_window(app, moment, id, voting, &nullifier)?;
    let vote = Vote { contest: id, nullifier, choices };
    Ok(Prepared { partition: app.engine.votes_partition(&nullifier), request, vote })
}

/// Turns away who comes too early or too late, before the log is troubled. Who has voted may be retrying, and
/// gets the answer of the fold, where this process knows of it.
fn refuse_outside_window(
    app: &App,
    moment: &Moment,
    id: ContestId,
    voting: &Voting,
    nullifier: &Nullifier,
) -> Result<(), Problem> {
    let closed = moment.published.contests[id.index()].results.state.closed.is_some();
    let code = if voting.opens.is_some_and(|opens| moment.now < opens) {
        Code::NotOpen
    } else if closed || voting.closes.is_some_and(|closes| moment.now >= closes) {
        Code::Closed
    } else {
        return Ok(());
    };
    if app.engine.cast(nullifier).is_ok_and(|cast| cast.is_some()) { Ok(()) } else { Err(code.into()) }
}

fn choices<'a>(
    contest: &Contest,
    selections: impl ExactSizeIterator<Item = &'a str>,
) -> Result<Choices, Problem> {
    let most = usize::from(contest.max_choices());
    if selections.len() == 0 || selections.len() > most {
        let detail = format!("{} selections; the contest takes 1 to {most}", selections.len());
        return Err(Problem::new(Code::BadChoices).field("/selections", detail));
    }
    let mut choices = Choices::new();
    for (i, id) in selections.enumerate() {
        let unknown = || {
            let detail = format!("the contest has no selection `{id}`");
            Problem::new(Code::UnknownSelection).field(format!("/selections/{i}"), detail)
        };
        choices.push(contest.selection_by_id(id).ok_or_else(unknown)?);
    }
    choices.sort_unstable();
    if choices.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::new(Code::BadChoices).field("/selections", "a selection is named twice"));
    }
    Ok(choices)
}

/// Turns the fold's verdict into an answer. A duplicate is compared with the record that counts, which is read from
/// the log.
pub(crate) async fn settle(
    app: &App,
    (verdict, receipts): (&Verdict, &Receipts),
    vote: &Vote,
) -> Result<Recorded, Problem> {
    let (record, time) = (verdict.record, verdict.time);
    let Some(outcome) = &verdict.outcome else {
        return Ok(Recorded { record, time, known: false, held: None, replayed: false, receipts: None });
    };
    match outcome {
        Outcome::Counted(_) => {
            let receipts = receipts.clone();
            Ok(Recorded { record, time, known: true, held: None, replayed: false, receipts })
        }
        Outcome::Duplicate { first } => {
            let record = app.engine.record(*first).await.map_err(internal)?.ok_or(Code::Internal)?;
            match &record.event {
                Event::VoteCast(before) if before == vote => {
                    let (record, time) = (record.id, record.time);
                    let receipts = receipts_again(app, record).await?;
                    Ok(Recorded { record, time, known: true, held: None, replayed: true, receipts })
                }
                _ => Err(Problem::new(Code::KeyReused).record(first)),
            }
        }
        Outcome::Rejected(reason) => Err(refusal_of(*reason)),
        Outcome::Held(_) => Err(Code::Internal.into()),
    }
}

/// The receipts of a record that was in the log before.
pub(crate) async fn receipts_again(app: &App, record: RecordId) -> Result<Receipts, Problem> {
    let Some(audit) = app.engine.audit() else { return Ok(None) };
    audit.receipts(record.partition, record.offset).await.map_err(internal)
}

pub(crate) fn internal(detail: impl ToString) -> Problem {
    tracing::error!(detail = detail.to_string(), "the engine failed");
    Code::Internal.into()
}

/// Nothing was recorded, or nobody knows.
pub(crate) fn unrecorded(error: IngestError) -> Problem {
    match error {
        IngestError::Overloaded => Code::Overloaded.into(),
        IngestError::NoGateway => {
            Problem::new(Code::NotHere).detail("nothing is taken in here; send it to a gateway")
        }
        IngestError::Log(_) => Code::LogUnavailable.into(),
        IngestError::Stopping => {
            Problem::new(Code::Overloaded).detail("the service is stopping; try again with the same key")
        }
    }
}

/// The problem that stands for a reason of the fold.
pub(crate) fn refusal_of(reason: Reason) -> Problem {
    let code = match reason {
        Reason::AlreadyVoted { first } => return Problem::new(Code::AlreadyVoted).record(first),
        Reason::VotesUsedUp { last } => return Problem::new(Code::VotesUsedUp).record(last),
        Reason::UnknownContest => Code::UnknownContest,
        Reason::UnknownSelection => Code::UnknownSelection,
        Reason::UnknownUnit => Code::UnknownUnit,
        Reason::UnknownCountType => Code::UnknownCountType,
        Reason::BadChoices => Code::BadChoices,
        Reason::BadCounts => Code::BadCounts,
        Reason::NotOpen => Code::NotOpen,
        Reason::Closed => Code::Closed,
        Reason::NotStanding => Code::NotStanding,
        Reason::NotHeld => Code::NotHeld,
        Reason::Superseded => Code::Superseded,
        Reason::Certified => Code::Certified,
        Reason::NotCalled => Code::NotCalled,
        Reason::AlreadyCalled => Code::AlreadyCalled,
        Reason::HoldOpen { held } => return Problem::new(Code::HoldOpen).record(held),
        Reason::ProposalOpen { proposal } => return Problem::new(Code::ProposalOpen).record(proposal),
        Reason::NoSuchProposal => Code::NoSuchProposal,
        Reason::SamePerson => Code::SamePerson,
        Reason::NoSuchRecount => Code::NoSuchRecount,
        Reason::RecountOpen => Code::RecountOpen,
        Reason::OutsideRecount => Code::OutsideRecount,
        Reason::AlreadyClosed => Code::AlreadyClosed,
        _ => Code::Internal,
    };
    code.into()
}
