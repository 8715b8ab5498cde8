//! What the numbers of a page stand on, in words: the checkpoint that has their records, who has cosigned it, and
//! how far it is anchored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canvass_election::ids::{ContestId, Timestamp};
use canvass_engine::{Audit, Published};
use canvass_protocol::anchors::{Anchors, Stage};

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
    /// Where the log is anchored.
    pub(super) anchored: Option<Anchored>,
}

/// How far the anchors of a log are.
pub(super) struct Anchored {
    pub(super) contract: String,
    /// The chain's number, or nothing where no node has said it yet.
    pub(super) chain: String,
    /// What stands there, a sentence each.
    pub(super) said: Vec<String>,
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
            anchored: app.anchors.as_ref().map(|anchors| Anchored::new(anchors())),
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

impl Anchored {
    fn new(anchors: Anchors) -> Self {
        let newest = |stage| anchors.heads.iter().rev().find(|head| head.stage == stage);
        let stages = [Stage::Finalised, Stage::Included, Stage::Pending].map(|stage| (stage, newest(stage)));
        let mut said: Vec<String> = stages
            .into_iter()
            .filter_map(|(stage, head)| Some((stage, head?)))
            .map(|(stage, head)| {
                let size = Integer(head.size);
                let block =
                    head.block.map_or_else(String::new, |block| format!(" in block {}", Integer(block)));
                match stage {
                    Stage::Finalised => format!("Checkpoint {size} stands there for good{block}."),
                    Stage::Included => {
                        format!("Checkpoint {size} stands there{block}, which the chain may still take back.")
                    }
                    Stage::Pending => format!("Checkpoint {size} is on its way there."),
                }
            })
            .collect();
        if said.is_empty() {
            said.push("No checkpoint stands there yet.".to_owned());
        }
        said.extend(
            anchors.trouble.map(|trouble| format!("Nothing new is anchored just now: {}.", cause(trouble))),
        );
        let chain = anchors.chain.map_or_else(String::new, |number| number.to_string());
        Anchored { contract: anchors.contract, chain, said }
    }
}

/// Why nothing is anchored, in words for readers; the operator's are in docs/operate.md.
fn cause(trouble: &str) -> &'static str {
    match trouble {
        "fork" => "another history of this log stands on the chain, and one of the two is not true",
        "rolled-back" => "a longer log than this one stands on the chain",
        "node" => "the chain cannot be reached",
        "funds" => "the address that pays for it has too little money",
        "contract" => "the contract is not the one that was agreed on",
        _ => "this server cannot read or write its files",
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
    use canvass_protocol::anchors::AnchoredHead;

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
            anchored: None,
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

    /// One row: the anchors as `size stage`, the trouble, and what is said of them.
    #[test]
    fn anchors_are_told_in_words() {
        for (heads, trouble, said) in [
            (&[][..], None, "No checkpoint stands there yet."),
            (&[(7, Stage::Pending)], None, "Checkpoint 7 is on its way there."),
            (
                &[(7, Stage::Included)],
                Some("node"),
                "Checkpoint 7 stands there in block 12, which the chain may still take back. Nothing new is \
                 anchored just now: the chain cannot be reached.",
            ),
            (
                &[
                    (5, Stage::Finalised),
                    (7, Stage::Finalised),
                    (1_234, Stage::Included),
                    (1_300, Stage::Included),
                    (1_400, Stage::Pending),
                ],
                None,
                "Checkpoint 7 stands there for good in block 12. Checkpoint 1,300 stands there in block 12, which \
                 the chain may still take back. Checkpoint 1,400 is on its way there.",
            ),
        ] {
            let heads = heads.iter().map(|(size, stage)| AnchoredHead {
                size: *size,
                root: String::new(),
                stage: *stage,
                block: (*stage != Stage::Pending).then_some(12),
                transaction: None,
            });
            let (contract, publisher) = ("0xc".to_owned(), "0xp".to_owned());
            let anchors = Anchors { chain: Some(1), contract, publisher, heads: heads.collect(), trouble };
            assert_eq!(Anchored::new(anchors).said.join(" "), said);
        }
    }

    #[test]
    fn every_trouble_has_words_of_its_own() {
        let words = ["node", "funds", "contract", "fork", "rolled-back", "disk"].map(cause);
        let distinct: std::collections::BTreeSet<_> = words.iter().collect();
        assert_eq!(distinct.len(), words.len());
    }
}
