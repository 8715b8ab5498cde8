//! The precinct feed of North Carolina, as a CSV table of its snapshots.
//!
//! The table has a row for each snapshot, reporting unit and vote type:
//! `state,county,precinct,fips,timestamp,vote_type,votes,votes_NAME…,margin`. Counts are cumulative. County
//! `STATE` and precinct `COUNTY` are sums of other rows. Precinct `county`, in lower case, is a real unit: it
//! holds a county's ballots that are not assigned to a precinct yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use canvass_election::Definition;
use canvass_election::definition::{
    Contest, ContestKind, CountItemType, Counting, Partitions, Parts, Party, Selection, Unit,
};
use canvass_election::event::{Cell, Counts};
use canvass_election::ids::{ContestId, Timestamp, UnitId};

use crate::time;

/// Text id of the election.
pub const ELECTION: &str = "nc-2020-president";
/// Text id of the one contest.
pub const CONTEST: &str = "president";

const CANDIDATES: usize = 4;
const TYPES: usize = 4;
/// Count types in the order of a snapshot's changes, with the feed's words for them.
const COUNT_TYPES: [(&str, CountItemType); TYPES] = [
    ("absentee", CountItemType::Absentee),
    ("early", CountItemType::Early),
    ("electionday", CountItemType::ElectionDay),
    ("provisional", CountItemType::Provisional),
];
const TOTAL: &str = "total";
/// Column, text id, name and party of each selection.
const SELECTIONS: [(&str, &str, &str, Option<u16>); CANDIDATES] = [
    ("votes_biden", "biden", "Joe Biden", Some(0)),
    ("votes_trump", "trump", "Donald Trump", Some(1)),
    ("votes_jorgensen", "jorgensen", "Jo Jorgensen", Some(2)),
    ("votes_other", "other", "All others", None),
];
const PARTIES: [(&str, &str, &str); 3] = [
    ("democratic", "Democratic Party", "#2f6db5"),
    ("republican", "Republican Party", "#c0392b"),
    ("libertarian", "Libertarian Party", "#b8860b"),
];
const STATE_ROW: &str = "STATE";
const COUNTY_ROW: &str = "COUNTY";
/// The real unit of ballots without a precinct.
const UNASSIGNED: &str = "county";
/// Longest text id before a number that tells it from another one.
const MAX_ID: usize = 56;

/// The feed as an election and what became known of it, snapshot by snapshot.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The election: the state, its counties and their precincts; one contest.
    pub definition: Definition,
    /// Snapshots in the order of their times.
    pub snapshots: Vec<Snapshot>,
}

/// One look at the count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it was taken.
    pub time: Timestamp,
    /// What changed since the snapshot before it, in the definition's order of units.
    pub changes: Vec<Change>,
    /// The state's sums as the feed itself states them: an oracle for the count.
    pub state: BTreeMap<CountItemType, Counts>,
}

/// A cell whose counts changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The cell.
    pub cell: Cell,
    /// Its counts in the snapshot before; zero at the first.
    pub before: Counts,
    /// Its counts now.
    pub now: Counts,
}

impl Change {
    /// Whether a number is lower than before: then it corrects what was said.
    pub fn is_fall(&self) -> bool {
        self.now.falls_below(&self.before)
    }
}

/// Why a feed cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The bytes are no table.
    #[error("the feed is not a readable table: {0}")]
    Table(#[from] csv::Error),
    /// A column is missing.
    #[error("the feed has no column `{0}`")]
    Column(&'static str),
    /// A row says something that cannot be.
    #[error("line {line}: {message}")]
    Row {
        /// The line in the file, from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// The table has no rows, or none of the state.
    #[error("the feed has no row of the state")]
    Empty,
}

fn fault(line: u64, message: impl Into<String>) -> FeedError {
    FeedError::Row { line, message: message.into() }
}

/// Reads the feed and checks every row of it.
pub fn read(feed: impl Read) -> Result<Feed, FeedError> {
    let mut table = Table::read(feed)?;
    // By place and time, the four types and then the total.
    table.rows.sort_unstable_by_key(|row| (row.place, row.time, row.slot));
    let places: Vec<(String, String)> = table.places.into_sorted();
    let times = table.times.into_sorted();
    let (units, unit_of) = units(table.state.as_deref().ok_or(FeedError::Empty)?, &places);
    let mut snapshots: Vec<Snapshot> = times
        .iter()
        .map(|time| Snapshot { time: *time, changes: Vec::new(), state: BTreeMap::new() })
        .collect();
    let mut before = ([[0; CANDIDATES]; TYPES], None);
    for rows in table.rows.chunk_by(|a, b| (a.place, a.time) == (b.place, b.time)) {
        let now = by_type(rows)?;
        let place = rows[0].place;
        if before.1 != Some(place) {
            before = ([[0; CANDIDATES]; TYPES], Some(place));
        }
        let Some(snapshot) = snapshots.get_mut(rows[0].time as usize) else { continue };
        match unit_of.get(place as usize).copied().flatten() {
            Some(unit) => snapshot.push(unit, &before.0, &now),
            None if places.get(place as usize).is_some_and(|p| p.0 == STATE_ROW) => {
                snapshot.state = COUNT_TYPES.iter().map(|t| t.1).zip(now.iter().map(counts)).collect();
            }
            None => {}
        }
        before.0 = now;
    }
    if snapshots.iter().any(|s| s.state.is_empty()) {
        return Err(FeedError::Empty);
    }
    for snapshot in &mut snapshots {
        snapshot.changes.sort_by_key(|change| change.cell);
    }
    Ok(Feed { definition: Definition::from(parts(units)), snapshots })
}

impl Snapshot {
    fn push(&mut self, unit: UnitId, before: &ByType, now: &ByType) {
        for ((_, count_type), (before, now)) in COUNT_TYPES.iter().zip(before.iter().zip(now)) {
            if before != now {
                let cell = Cell { contest: ContestId(0), unit, count_type: *count_type };
                self.changes.push(Change { cell, before: counts(before), now: counts(now) });
            }
        }
    }
}

type ByType = [[u64; CANDIDATES]; TYPES];

fn counts(votes: &[u64; CANDIDATES]) -> Counts {
    Counts { votes: votes.to_vec(), ..Counts::default() }
}

/// The four types of one place at one time, checked against the total beside them.
fn by_type(rows: &[Row]) -> Result<ByType, FeedError> {
    let [types @ .., total] = rows else { return Ok(ByType::default()) };
    if let Some(twice) = rows.windows(2).find(|pair| pair[0].slot == pair[1].slot) {
        return Err(fault(twice[1].line, format!("says again what line {} says", twice[0].line)));
    }
    if rows.len() != TYPES + 1 {
        let message = format!("the place has {} vote types at this time, not {}", rows.len(), TYPES + 1);
        return Err(fault(total.line, message));
    }
    let mut now = ByType::default();
    let mut sum = [0u64; CANDIDATES];
    for (now, row) in now.iter_mut().zip(types) {
        *now = row.votes;
        sum.iter_mut().zip(row.votes).for_each(|(sum, n)| *sum = sum.saturating_add(n));
    }
    if sum != total.votes {
        let message = format!("the total {:?} is not the sum of its four vote types, {:?}", total.votes, sum);
        return Err(fault(total.line, message));
    }
    Ok(now)
}

/// One row, with its words as numbers.
struct Row {
    place: u32,
    time: u32,
    /// Position in [`COUNT_TYPES`], or the one after it for the total.
    slot: u8,
    line: u64,
    votes: [u64; CANDIDATES],
}

/// Gives each distinct key a number; the numbers follow the keys' order once the table is read.
struct Numbers<K>(BTreeMap<K, u32>);

impl<K: Ord> Numbers<K> {
    fn of(&mut self, key: K) -> u32 {
        // There are fewer keys than rows, and fewer rows than 2^32.
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(key).or_insert(next)
    }

    /// For each number given so far, the place of its key among the sorted keys.
    fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.0.len()];
        for (rank, number) in (0u32..).zip(self.0.values()) {
            if let Some(slot) = ranks.get_mut(*number as usize) {
                *slot = rank;
            }
        }
        ranks
    }

    fn into_sorted(self) -> Vec<K> {
        self.0.into_keys().collect()
    }
}

struct Table {
    rows: Vec<Row>,
    places: Numbers<(String, String)>,
    times: Numbers<Timestamp>,
    state: Option<String>,
}

struct Columns {
    state: usize,
    county: usize,
    precinct: usize,
    timestamp: usize,
    vote_type: usize,
    votes: usize,
    candidates: [usize; CANDIDATES],
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Self, FeedError> {
        let find = |name: &'static str| header.iter().position(|h| h == name).ok_or(FeedError::Column(name));
        let mut candidates = [0; CANDIDATES];
        for (at, (column, ..)) in candidates.iter_mut().zip(SELECTIONS) {
            *at = find(column)?;
        }
        Ok(Columns {
            state: find("state")?,
            county: find("county")?,
            precinct: find("precinct")?,
            timestamp: find("timestamp")?,
            vote_type: find("vote_type")?,
            votes: find("votes")?,
            candidates,
        })
    }
}

impl Table {
    fn read(feed: impl Read) -> Result<Self, FeedError> {
        let mut reader = csv::Reader::from_reader(feed);
        let columns = Columns::find(reader.headers()?)?;
        let (places, times) = (Numbers(BTreeMap::new()), Numbers(BTreeMap::new()));
        let mut table = Table { rows: Vec::new(), places, times, state: None };
        let mut record = csv::StringRecord::new();
        // The feed is written place by place: the last place's number answers most look-ups.
        let mut last = (String::new(), String::new(), 0);
        while reader.read_record(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            table.push(&columns, &record, line, &mut last)?;
        }
        let (places, times) = (table.places.ranks(), table.times.ranks());
        for row in &mut table.rows {
            row.place = places.get(row.place as usize).copied().unwrap_or_default();
            row.time = times.get(row.time as usize).copied().unwrap_or_default();
        }
        Ok(table)
    }

    fn push(
        &mut self,
        columns: &Columns,
        record: &csv::StringRecord,
        line: u64,
        last: &mut (String, String, u32),
    ) -> Result<(), FeedError> {
        let text = |column: usize| record.get(column).unwrap_or_default();
        let number = |column: usize| {
            let word = text(column);
            word.parse::<u64>().map_err(|_| fault(line, format!("`{word}` is not a whole number of votes")))
        };
        let state = text(columns.state);
        match &self.state {
            None => self.state = Some(state.to_owned()),
            Some(known) if known == state => {}
            Some(known) => return Err(fault(line, format!("state `{state}` in the feed of `{known}`"))),
        }
        let time = time::parse(&format!("{}Z", text(columns.timestamp)))
            .ok_or_else(|| fault(line, format!("`{}` is no moment", text(columns.timestamp))))?;
        let word = text(columns.vote_type);
        let words = COUNT_TYPES.iter().map(|t| t.0).chain([TOTAL]);
        let slot = (0u8..).zip(words).find(|(_, w)| *w == word).map(|(slot, _)| slot);
        let slot = slot.ok_or_else(|| fault(line, format!("`{word}` is no vote type")))?;
        let mut votes = [0; CANDIDATES];
        for (n, column) in votes.iter_mut().zip(columns.candidates) {
            *n = number(column)?;
        }
        let sum = votes.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let stated = number(columns.votes)?;
        if sum != stated {
            return Err(fault(line, format!("{stated} votes are not the sum of the candidates' {sum}")));
        }
        let (county, precinct) = (text(columns.county), text(columns.precinct));
        if self.rows.is_empty() || (last.0.as_str(), last.1.as_str()) != (county, precinct) {
            let place = self.places.of((county.to_owned(), precinct.to_owned()));
            *last = (county.to_owned(), precinct.to_owned(), place);
        }
        self.rows.push(Row { place: last.2, time: self.times.of(time), slot, line, votes });
        Ok(())
    }
}

/// The tree of units, and for each place the unit it is; a roll-up is none.
fn units(state: &str, places: &[(String, String)]) -> (Vec<Unit>, Vec<Option<UnitId>>) {
    let real = |place: &(String, String)| place.0 != STATE_ROW && place.1 != COUNTY_ROW;
    let mut ids = Ids::default();
    let root = ids.unique(&plain(state));
    let unit = |id, name, kind: &str, parent| Unit { id, name, kind: kind.into(), parent, registered: None };
    let mut units = vec![unit(root.clone(), "North Carolina".to_owned(), "state", None)];
    let mut counties: BTreeMap<&str, UnitId> = BTreeMap::new();
    for (county, _) in places.iter().filter(|p| real(p)) {
        if !counties.contains_key(county.as_str()) {
            counties.insert(county, position(&units));
            let id = ids.unique(&format!("{root}-{}", plain(county)));
            units.push(unit(id, format!("{} County", title(county)), "county", Some(UnitId(0))));
        }
    }
    let mut unit_of = vec![None; places.len()];
    for (place, slot) in places.iter().zip(&mut unit_of).filter(|(place, _)| real(place)) {
        let (county, precinct) = place;
        let parent = counties.get(county.as_str()).copied();
        let id = ids.unique(&format!("{root}-{}-{}", plain(county), plain(precinct)));
        let (name, kind) = match precinct.as_str() {
            UNASSIGNED => (format!("{} ballots not assigned to a precinct", title(county)), "unassigned"),
            precinct => (format!("{} {}", title(county), precinct.to_uppercase()), "precinct"),
        };
        *slot = Some(position(&units));
        units.push(unit(id, name, kind, parent));
    }
    (units, unit_of)
}

/// The id of the unit that is pushed next.
fn position(units: &[Unit]) -> UnitId {
    UnitId(u32::try_from(units.len()).unwrap_or(u32::MAX))
}

/// Text ids that are taken.
#[derive(Default)]
struct Ids(BTreeSet<String>);

impl Ids {
    /// The id, or with the first free number behind it where another unit has it.
    fn unique(&mut self, id: &str) -> String {
        let id: String = id.chars().take(MAX_ID).collect();
        let numbered = (2u32..).map(|n| format!("{id}-{n}"));
        let free = std::iter::once(id.clone()).chain(numbered).find(|id| !self.0.contains(id));
        let free = free.unwrap_or(id);
        self.0.insert(free.clone());
        free
    }
}

/// Lower case, and `-` for what may not stand in an id.
fn plain(word: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
    word.to_ascii_lowercase().chars().map(allowed).collect()
}

/// `New Hanover` for `new-hanover`.
fn title(word: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>())
    };
    word.split('-').filter_map(capital).collect::<Vec<_>>().join(" ")
}

fn parts(units: Vec<Unit>) -> Parts {
    let text = |word: &str| word.to_owned();
    let party = |(id, name, color): (&str, &str, &str)| Party {
        id: text(id),
        name: text(name),
        color: Some(text(color)),
    };
    let selections = SELECTIONS.iter().map(|(_, id, name, party)| Selection {
        id: text(id),
        name: text(name),
        party: *party,
    });
    let contest = Contest {
        id: text(CONTEST),
        name: text("President of the United States"),
        kind: ContestKind::SingleChoice,
        unit: UnitId(0),
        selections: selections.collect(),
        counting: Counting::Returns {
            count_types: CountItemType::ALL.into_iter().filter(|t| *t != CountItemType::Total).collect(),
        },
        baseline: None,
    };
    Parts {
        id: text(ELECTION),
        name: text("North Carolina, President, 2020 (rehearsal)"),
        is_test: true,
        partitions: Partitions::default(),
        parties: PARTIES.into_iter().map(party).collect(),
        units,
        contests: vec![contest],
    }
}

#[cfg(test)]
mod tests;
