//! A table as it is printed.

use std::fmt;

use serde::Serialize;

/// What was measured in turn, and how it compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Which table of docs/BENCHMARKS.md.
    pub table: String,
    /// The machine: its processor, how many cores, the kernel.
    pub machine: String,
    /// What was measured.
    pub rows: Vec<Row>,
    /// How it compares, with what is aimed at.
    pub aims: Vec<Aim>,
    /// What else is to be known of it.
    pub notes: Vec<String>,
}

/// One thing that was measured some times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The unit of the figures.
    pub unit: String,
    /// The middle one of the trials.
    pub median: u64,
    /// Each trial, in the order they were made.
    pub trials: Vec<u64>,
    /// What else is to be known.
    pub note: String,
}

/// One figure against another, or a figure that was aimed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aim {
    /// What it is; `a / b` is the median of `a` over that of `b`, in hundredths.
    pub name: String,
    /// What was measured.
    pub figure: u64,
    /// The unit of both figures.
    pub unit: String,
    /// What is aimed at, if anything is.
    pub aim: Option<Bound>,
}

/// On which side of a figure another must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not below.
    AtLeast(u64),
    /// Not above.
    AtMost(u64),
}

impl Aim {
    /// Whether the figure is what it should be.
    pub fn is_reached(&self) -> bool {
        match self.aim {
            Some(Bound::AtLeast(least)) => self.figure >= least,
            Some(Bound::AtMost(most)) => self.figure <= most,
            None => true,
        }
    }
}

/// The unit of one median over another.
const HUNDREDTHS: &str = "hundredths";

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |n: u64| match self.unit.as_str() {
            HUNDREDTHS => format!("{}.{:02}", n / 100, n % 100),
            unit => format!("{} {unit}", grouped(n)),
        };
        write!(f, "{:<44} {:>10}", self.name, text(self.figure))?;
        let (word, bound) = match self.aim {
            Some(Bound::AtLeast(least)) => ("at least", least),
            Some(Bound::AtMost(most)) => ("at most", most),
            None => return Ok(()),
        };
        let verdict = if self.is_reached() { "reached" } else { "not reached" };
        write!(f, "  aim: {word} {}, {verdict}", text(bound))
    }
}

impl Row {
    pub(crate) fn new(name: &str, unit: &str, trials: Vec<u64>, note: String) -> Self {
        let mut sorted = trials.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        Row { name: name.to_owned(), unit: unit.to_owned(), median, trials, note }
    }
}

impl Table {
    pub(crate) fn new(table: &str, rows: Vec<Row>) -> Self {
        Table { table: table.to_owned(), machine: machine(), rows, aims: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row that was measured another way.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    fn median(&self, name: &str) -> Option<u64> {
        self.rows.iter().find(|row| row.name == name).map(|row| row.median)
    }

    /// Compares two rows, if both were measured; the aim, if there is one, is at least so many hundredths.
    pub(crate) fn compare(&mut self, subject: &str, reference: &str, at_least: Option<u64>) {
        let (Some(above), Some(below)) = (self.median(subject), self.median(reference)) else { return };
        let figure = above.saturating_mul(100).checked_div(below).unwrap_or(0);
        let (name, unit) = (format!("{subject} / {reference}"), HUNDREDTHS.to_owned());
        self.aims.push(Aim { name, figure, unit, aim: at_least.map(Bound::AtLeast) });
    }

    /// Holds the median of a row, if it was measured, against a figure in the row's unit.
    pub(crate) fn aim(&mut self, name: &str, aim: Bound) {
        let Some(row) = self.rows.iter().find(|row| row.name == name) else { return };
        self.aims.push(Aim {
            name: name.to_owned(),
            figure: row.median,
            unit: row.unit.clone(),
            aim: Some(aim),
        });
    }
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, {cores} cores, Linux {}", model.map_or("", |(_, model)| model), kernel.trim())
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.table, self.machine)?;
        for Row { name, unit, median, trials, note } in &self.rows {
            let trials: Vec<String> = trials.iter().map(|n| grouped(*n)).collect();
            let trials = trials.join(" ");
            writeln!(f, "  {name:<28} {:>12} {unit:<12} [{trials}] {note}", grouped(*median))?;
        }
        self.aims.iter().try_for_each(|aim| writeln!(f, "  {aim}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        write!(f, "  every answer and every total was as expected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared() {
        let row = |name, trials| Row::new(name, "votes/s", trials, String::new());
        let mut table =
            Table::new("t", vec![row("a", vec![90, 1_234_567, 70]), row("b", vec![200, 100, 180])]);
        table.compare("a", "b", Some(50));
        table.compare("a", "c", None);
        table.aim("b", Bound::AtMost(170));
        let figures: Vec<_> = table.aims.iter().map(|aim| (aim.figure, aim.is_reached())).collect();
        assert_eq!(figures, [(50, true), (180, false)]);
        let text = table.to_string();
        assert!(text.contains("1,234,567") && text.contains("0.50  aim: at least 0.50, reached"), "{text}");
    }
}
