//! The night of 2020 in North Carolina, projected at each snapshot from the county results of 2016.

use std::collections::BTreeMap;

use canvass_election::definition::CountItemType;
use canvass_election::ids::{Timestamp, UnitId};
use canvass_forecast::{Baseline, Finding, Model, Past, Seen, project, screen};
use canvass_protocol::interchange::nc::Feed;

use super::counties::County;
use super::{Case, Fault, setting};

/// The state, as the table of counties writes it.
const STATE: &str = "NC";
/// A county that has counted early and absentee votes, and the day's votes of so many of its precincts, is taken to be
/// all but complete: late mail and provisional ballots come days later.
const COMPLETE: f64 = 0.95;
/// What share of its vote that is.
const ALL_BUT: f64 = 0.975;

/// The night as counties, and what is known before it.
#[derive(Debug, Clone)]
pub struct Night {
    /// The counties of the state, with 2016.
    pub baseline: Baseline,
    /// Elections before, in all states, to learn from.
    pub past: Vec<Past>,
    /// Names of the counties.
    pub names: Vec<String>,
    /// Each snapshot: its time, and what was seen of each county.
    pub snapshots: Vec<(Timestamp, Vec<Seen>)>,
}

/// A projection at a snapshot.
#[derive(Debug, Clone)]
pub struct Moment {
    /// When.
    pub time: Timestamp,
    /// Two-party votes that are counted, as a share of those in the last snapshot.
    pub counted: f64,
    /// The two-party margin that is counted, in points.
    pub counted_margin: f64,
    /// How it was projected to end.
    pub case: Case,
    /// How likely the first selection ends ahead.
    pub chance: f64,
    /// Counties that need a look.
    pub findings: Vec<Finding>,
}

impl Night {
    /// From the feed and the table of counties.
    ///
    /// # Errors
    /// A county of one is not in the other.
    pub fn new(feed: &Feed, counties: &[County]) -> Result<Self, Fault> {
        let of_state: Vec<County> = counties.iter().filter(|county| county.st == STATE).cloned().collect();
        let plain = |name: &str| name.to_lowercase().replace(" county", "");
        let places: BTreeMap<String, usize> =
            of_state.iter().enumerate().map(|(place, county)| (plain(&county.county_name), place)).collect();
        let units = &feed.definition.units;
        let mut county_of: BTreeMap<UnitId, usize> = BTreeMap::new();
        let mut precincts = vec![0_usize; of_state.len()];
        for unit in units.iter().filter(|unit| unit.kind == "county") {
            let place = *places.get(&plain(&unit.name)).ok_or_else(|| {
                Fault(format!("county {} of the night is not in the table of counties", unit.name))
            })?;
            let Some(id) = feed.definition.unit_by_id(&unit.id) else { continue };
            for child in feed.definition.children(id) {
                county_of.insert(*child, place);
                precincts[place] += 1;
            }
        }
        let mut count = Count {
            votes: vec![[0, 0]; of_state.len()],
            with_day: vec![BTreeMap::new(); of_state.len()],
            with_early: vec![false; of_state.len()],
            with_mail: vec![false; of_state.len()],
        };
        let mut snapshots = Vec::new();
        for snapshot in &feed.snapshots {
            for change in &snapshot.changes {
                let Some(place) = county_of.get(&change.cell.unit) else { continue };
                let (before, now) = (&change.before.votes, &change.now.votes);
                for (side, sum) in count.votes[*place].iter_mut().enumerate() {
                    *sum = (*sum + now[side]).saturating_sub(before[side]);
                }
                let all = now.iter().sum::<u64>();
                match change.cell.count_type {
                    CountItemType::ElectionDay => {
                        count.with_day[*place].insert(change.cell.unit, all > 0);
                    }
                    CountItemType::Early => count.with_early[*place] |= all > 0,
                    CountItemType::Absentee => count.with_mail[*place] |= all > 0,
                    _ => {}
                }
            }
            snapshots.push((snapshot.time, count.seen(&precincts)));
        }
        let names = of_state.iter().map(|county| county.county_name.clone()).collect();
        let baseline = setting::baseline(&of_state, 2016, Some(2012));
        Ok(Night { baseline, past: setting::past(counties, 3), names, snapshots })
    }

    /// What the last snapshot has, as final.
    pub fn finals(&self) -> Vec<Seen> {
        let last = self.snapshots.last().map_or(&[][..], |(_, seen)| seen);
        last.iter().map(|seen| Seen::Final(seen.votes())).collect()
    }

    /// The margin and the votes at the end.
    fn end(&self) -> (f64, f64) {
        margin(&self.finals())
    }

    /// A projection at each snapshot; what needs a look is left out of it.
    ///
    /// # Errors
    /// The baseline is none.
    pub fn moments(&self, model: &Model, draws: usize) -> Result<Vec<Moment>, Fault> {
        let (truth, all) = self.end();
        let moment = |(time, seen): &(Timestamp, Vec<Seen>)| {
            let fault = |e: canvass_forecast::ProjectError| Fault(e.to_string());
            let screened = screen(model, &self.baseline, seen).map_err(fault)?;
            let projection = project(model, &self.baseline, &screened.believed, 1, draws).map_err(fault)?;
            let (counted_margin, counted) = margin(seen);
            Ok(Moment {
                time: *time,
                counted: counted / all,
                counted_margin: counted_margin * 100.0,
                case: Case::of(projection.areas[0].margins(), truth),
                chance: projection.summary(0).chance,
                findings: screened.findings,
            })
        };
        self.snapshots.iter().map(moment).collect()
    }
}

/// Margin from -1 to 1, and votes.
fn margin(seen: &[Seen]) -> (f64, f64) {
    let sum = seen.iter().map(Seen::votes).fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
    let [first, second] = sum.map(|votes| votes as f64);
    ((first - second) / (first + second).max(1.0), first + second)
}

/// The state of the count, county by county.
struct Count {
    votes: Vec<[u64; 2]>,
    /// Precincts of which votes of the day itself are in.
    with_day: Vec<BTreeMap<UnitId, bool>>,
    with_early: Vec<bool>,
    with_mail: Vec<bool>,
}

impl Count {
    fn seen(&self, precincts: &[usize]) -> Vec<Seen> {
        let seen = |place: usize| {
            let are_in = self.with_day[place].values().filter(|is_in| **is_in).count();
            let complete = self.with_early[place]
                && self.with_mail[place]
                && are_in as f64 >= COMPLETE * precincts[place] as f64;
            match self.votes[place] {
                [0, 0] => Seen::Nothing,
                votes => Seen::Part { votes, fraction: complete.then_some(ALL_BUT) },
            }
        };
        (0..precincts.len()).map(seen).collect()
    }
}
