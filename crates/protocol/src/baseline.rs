//! Baseline files: how each unit voted at the last comparable election, and what it is like.
//!
//! CSV with a header. `unit` holds text ids of units of the contest's district, counties or precincts or a mixture, of
//! which none lies within another. `votes:SELECTION` are the votes of at least two of the contest's selections, or of
//! those that stood in their place; `before:SELECTION`, for the same selections or none, those of the election before.
//! `covariate:NAME` is a number that is like it in like units, `group:NAME` a word that units which move together share,
//! and `local:NAME`, once at most, a group within which errors and the order of counting are alike.

use std::collections::{BTreeMap, BTreeSet};

use canvass_election::Definition;
use canvass_election::ids::{ContestId, SelectionId, UnitId};

use crate::definition::{Fault, did_you_mean};

/// Most votes of one selection in one unit.
pub const MAX_VOTES: u64 = 10_000_000_000;
/// Most columns of a file.
pub const MAX_COLUMNS: usize = 200;
/// Most faults that are told at once.
const MAX_FAULTS: usize = 20;

/// A unit of a baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineUnit {
    /// The unit of the definition.
    pub unit: UnitId,
    /// Votes of each projected selection.
    pub votes: Vec<u64>,
    /// The same at the election before, where the file has it.
    pub before: Option<Vec<u64>>,
    /// A number for each covariate.
    pub covariates: Vec<f64>,
    /// For each group the place of its word, in the order of their first appearance.
    pub levels: Vec<usize>,
}

/// A baseline that fits its contest.
#[derive(Debug, Clone, PartialEq)]
pub struct ContestBaseline {
    /// The projected selections, in the contest's order.
    pub selections: Vec<SelectionId>,
    /// The units, in the definition's order.
    pub units: Vec<BaselineUnit>,
    /// Names of the covariates.
    pub covariates: Vec<String>,
    /// Names of the groups and the number of their words.
    pub groups: Vec<(String, usize)>,
    /// The group that is local, by its place.
    pub local: Option<usize>,
}

#[derive(Default)]
struct Columns {
    unit: Option<usize>,
    votes: BTreeMap<SelectionId, usize>,
    before: BTreeMap<SelectionId, usize>,
    covariates: Vec<(String, usize)>,
    groups: Vec<(String, usize)>,
    local: Option<usize>,
}

struct Reader<'a> {
    definition: &'a Definition,
    contest: ContestId,
    faults: Vec<Fault>,
}

/// Reads the baseline of a contest; all faults at once, to a limit.
pub fn parse(text: &str, definition: &Definition, contest: ContestId) -> Result<ContestBaseline, Vec<Fault>> {
    let mut reader = Reader { definition, contest, faults: Vec::new() };
    let read = reader.read(text);
    match read {
        Some(baseline) if reader.faults.is_empty() => Ok(baseline),
        _ => Err(reader.faults),
    }
}

impl Reader<'_> {
    fn fault(&mut self, place: impl Into<String>, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { place: place.into(), message: message.into() });
        }
    }

    fn read(&mut self, text: &str) -> Option<ContestBaseline> {
        let mut csv = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let header: Vec<String> = match csv.headers() {
            Ok(header) => header.iter().map(str::to_owned).collect(),
            Err(error) => {
                self.fault("line 1", format!("not CSV: {error}"));
                return None;
            }
        };
        let columns = self.columns(&header);
        let unit_column = columns.unit?;
        let selections: Vec<SelectionId> = columns.votes.keys().copied().collect();
        let mut words: Vec<BTreeMap<String, usize>> = vec![BTreeMap::new(); columns.groups.len()];
        let mut units: BTreeMap<UnitId, BaselineUnit> = BTreeMap::new();
        for row in csv.records() {
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    self.fault("a row", format!("not CSV: {error}"));
                    return None;
                }
            };
            let line = row.position().map_or(0, csv::Position::line);
            let Some(unit) = self.unit(line, &row[unit_column]) else { continue };
            let votes = self.numbers(line, &row, &header, columns.votes.values());
            let before = self.numbers(line, &row, &header, columns.before.values());
            let covariates = self.covariates(line, &row, &columns);
            let levels = columns.groups.iter().zip(&mut words).map(|((_, column), words)| {
                let next = words.len();
                *words.entry(row[*column].to_owned()).or_insert(next)
            });
            let levels = levels.collect();
            let before = (!columns.before.is_empty()).then_some(before);
            if units.insert(unit, BaselineUnit { unit, votes, before, covariates, levels }).is_some() {
                self.fault(
                    format!("line {line}, unit"),
                    format!("`{}` stands here twice", &row[unit_column]),
                );
            }
        }
        self.whole(&units);
        let counts = columns.groups.iter().zip(&words).map(|((name, _), words)| (name.clone(), words.len()));
        Some(ContestBaseline {
            selections,
            units: units.into_values().collect(),
            covariates: columns.covariates.into_iter().map(|(name, _)| name).collect(),
            groups: counts.collect(),
            local: columns.local,
        })
    }

    fn columns(&mut self, header: &[String]) -> Columns {
        let mut columns = Columns::default();
        if header.len() > MAX_COLUMNS {
            self.fault("line 1", format!("{} columns are more than {MAX_COLUMNS}", header.len()));
            return columns;
        }
        let mut seen = BTreeSet::new();
        for (place, name) in header.iter().enumerate() {
            if !seen.insert(name) {
                self.fault("line 1", format!("the column `{name}` stands there twice"));
            }
            match name.split_once(':') {
                None if name == "unit" => columns.unit = Some(place),
                Some(("votes", id)) => self.selection(id).map_or((), |s| _ = columns.votes.insert(s, place)),
                Some(("before", id)) => {
                    self.selection(id).map_or((), |s| _ = columns.before.insert(s, place))
                }
                Some(("covariate", what)) => columns.covariates.push((what.to_owned(), place)),
                Some(("group", what)) => columns.groups.push((what.to_owned(), place)),
                Some(("local", what)) => {
                    if columns.local.replace(columns.groups.len()).is_some() {
                        self.fault("line 1", "one column can be `local:`; make the others `group:`");
                    }
                    columns.groups.push((what.to_owned(), place));
                }
                _ => {
                    let known = [
                        "unit",
                        "votes:SELECTION",
                        "before:SELECTION",
                        "covariate:NAME",
                        "group:NAME",
                        "local:NAME",
                    ];
                    let expected = known.join(", ");
                    self.fault(
                        "line 1",
                        format!("`{name}` is no column of a baseline; there are {expected}"),
                    );
                }
            }
        }
        if columns.unit.is_none() {
            self.fault("line 1", "a column `unit` with the text ids of units is missing");
        }
        if columns.votes.len() < 2 {
            self.fault("line 1", "a baseline needs `votes:SELECTION` for two selections or more");
        }
        if !columns.before.is_empty() && !columns.before.keys().eq(columns.votes.keys()) {
            self.fault("line 1", "`before:` names other selections than `votes:`; name the same, or none");
        }
        columns
    }

    fn selection(&mut self, id: &str) -> Option<SelectionId> {
        let contest = &self.definition.contests[self.contest.index()];
        let found = contest.selection_by_id(id);
        if found.is_none() {
            let hint = did_you_mean(id, contest.selections.iter().map(|s| s.id.as_str()));
            let message = format!("the contest `{}` has no selection `{id}`{hint}", contest.id);
            self.fault("line 1", message);
        }
        found
    }

    fn unit(&mut self, line: u64, id: &str) -> Option<UnitId> {
        let place = format!("line {line}, unit");
        let district = self.definition.contests[self.contest.index()].unit;
        let Some(unit) = self.definition.unit_by_id(id) else {
            let hint = did_you_mean(id, self.definition.units.iter().map(|u| u.id.as_str()));
            self.fault(place, format!("there is no unit `{id}`{hint}"));
            return None;
        };
        if !self.definition.is_within(unit, district) {
            let district = &self.definition.units[district.index()].id;
            self.fault(place, format!("`{id}` is not in the contest's district `{district}`"));
            return None;
        }
        Some(unit)
    }

    fn numbers<'c>(
        &mut self,
        line: u64,
        row: &csv::StringRecord,
        header: &[String],
        columns: impl Iterator<Item = &'c usize>,
    ) -> Vec<u64> {
        let mut numbers = Vec::new();
        for column in columns {
            let text = &row[*column];
            let number = text.parse().ok().filter(|n| *n <= MAX_VOTES);
            if number.is_none() {
                let what =
                    format!("`{text}` is no number of votes; expected a whole number up to {MAX_VOTES}");
                self.fault(format!("line {line}, {}", header[*column]), what);
            }
            numbers.push(number.unwrap_or(0));
        }
        numbers
    }

    fn covariates(&mut self, line: u64, row: &csv::StringRecord, columns: &Columns) -> Vec<f64> {
        let mut numbers = Vec::new();
        for (name, column) in &columns.covariates {
            let text = &row[*column];
            let number: Option<f64> = text.parse().ok().filter(|n: &f64| n.is_finite());
            if number.is_none() {
                let what = format!("`{text}` is no number");
                self.fault(format!("line {line}, covariate:{name}"), what);
            }
            numbers.push(number.unwrap_or(0.0));
        }
        numbers
    }

    /// What only all rows together show.
    fn whole(&mut self, units: &BTreeMap<UnitId, BaselineUnit>) {
        if units.is_empty() {
            self.fault("", "a baseline needs a row for each unit that is to be projected");
        }
        let definition = self.definition;
        for unit in units.keys() {
            let above = definition.ancestry(*unit).skip(1).find(|above| units.contains_key(above));
            if let Some(above) = above {
                let (id, above) = (&definition.units[unit.index()].id, &definition.units[above.index()].id);
                let message =
                    format!("it lies within `{above}`, which has a row of its own: keep one of the two");
                self.fault(format!("unit `{id}`"), message);
            }
        }
        if !units.is_empty() && units.values().all(|unit| unit.votes.iter().all(|votes| *votes == 0)) {
            self.fault("", "no unit has any votes");
        }
    }
}

#[cfg(test)]
mod tests;
