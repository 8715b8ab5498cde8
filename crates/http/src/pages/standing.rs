//! What the numbers of a page stand on, in words: the checkpoint that has their records, and who has cosigned it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canvass_election::ids::{ContestId, Timestamp};
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
    /// How long before the page that was, in words.
    pub(super) age: String,
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
            age: age(shown.published),
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
            (1, asked) => format!("1 of {asked} has signed this checkpoint"),
            (some, asked) => format!("{some} of {asked} have signed this checkpoint"),
        };
        let names = self.cosigners.join(", ");
        let names = if names.is_empty() { names } else { format!(": {names}") };
        let wanted =
            if self.quorum == 1 { "one is wanted".to_owned() } else { format!("{} are wanted", self.quorum) };
        let enough =
            if self.cosigners.len() >= self.quorum { "this is enough" } else { "this is not enough yet" };
        format!("{signed}{names}; {wanted}, so {enough}")
    }
}

/// How long ago a moment was, by the server's own clock.
fn age(moment: Timestamp) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.saturating_sub(Duration::from_millis(moment.0)).as_secs();
    match seconds {
        0 | 1 => "a second before".to_owned(),
        2..120 => format!("{seconds} seconds before"),
        120..7_200 => format!("{} minutes before", seconds / 60),
        seconds => format!("{} hours before", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(cosigners: &[&str], witnesses: usize, quorum: usize) -> String {
        let standing = Standing {
            log: "count.example".to_owned(),
            checkpoint: Integer(7),
            published: Moment(Timestamp(0)),
            age: age(Timestamp(0)),
            has_all: true,
            cosigners: cosigners.iter().map(|name| (*name).to_owned()).collect(),
            witnesses,
            quorum,
        };
        standing.cosigned()
    }

    #[test]
    fn cosigners_are_told_in_words() {
        for (cosigners, witnesses, quorum, said) in [
            (
                &[][..],
                2,
                1,
                "None of them has signed this checkpoint yet; one is wanted, so this is not enough yet",
            ),
            (&["a"], 2, 1, "1 of 2 has signed this checkpoint: a; one is wanted, so this is enough"),
            (&["a"], 3, 2, "1 of 3 has signed this checkpoint: a; 2 are wanted, so this is not enough yet"),
            (&["a", "b"], 3, 2, "2 of 3 have signed this checkpoint: a, b; 2 are wanted, so this is enough"),
            (
                &["a", "b"],
                2,
                2,
                "All of them have signed this checkpoint: a, b; 2 are wanted, so this is enough",
            ),
        ] {
            assert_eq!(standing(cosigners, witnesses, quorum), said);
        }
    }
}
