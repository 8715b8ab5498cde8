//! What the numbers of a page stand on, in words: the checkpoint that has their records, and who has cosigned it.

use canvass_election::ids::ContestId;
use canvass_engine::{Audit, Published};

use super::format::{Integer, Moment};
use crate::App;

/// The checkpoint that a contest's numbers stand on.
pub(super) struct Standing {
    /// The log's name.
    pub(super) log: String,
    /// Its last checkpoint, by its size.
    pub(super) checkpoint: Integer,
    pub(super) published: Moment,
    /// Whether it has every record that the numbers are made of.
    pub(super) has_all: bool,
    /// Who has cosigned it.
    pub(super) cosigners: Vec<String>,
    /// How many are asked, and how many are wanted.
    pub(super) witnesses: usize,
    pub(super) quorum: usize,
}

impl Standing {
    /// None where the log is not published, or not yet.
    pub(super) fn new(app: &App, published: &Published, contest: ContestId) -> Option<Self> {
        let audit: &Audit = app.engine.audit()?;
        let shown = audit.checkpoint()?;
        let stamp = &published.contests.get(contest.index())?.stamp;
        Some(Standing {
            log: shown.checkpoint.origin().to_owned(),
            checkpoint: Integer(shown.checkpoint.size()),
            published: Moment(shown.published),
            has_all: shown.has(&stamp.watermark),
            cosigners: shown.cosignatures.iter().map(|c| c.witness().to_owned()).collect(),
            witnesses: audit.witnesses().len(),
            quorum: audit.quorum(),
        })
    }

    /// How many witnesses have cosigned, in words.
    pub(super) fn cosigned(&self) -> String {
        let signed = match (self.cosigners.len(), self.witnesses) {
            (0, _) => "None of them has signed this checkpoint yet".to_owned(),
            (all, asked) if all == asked => "All of them have signed this checkpoint".to_owned(),
            (some, asked) => format!("{some} of {asked} have signed this checkpoint"),
        };
        let names = self.cosigners.join(", ");
        let names = if names.is_empty() { names } else { format!(": {names}") };
        let wanted = if self.cosigners.len() >= self.quorum { "as many as" } else { "fewer than" };
        format!("{signed}{names}; that is {wanted} the {} that are wanted", self.quorum)
    }
}
