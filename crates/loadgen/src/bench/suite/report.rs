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
    pub ratios: Vec<Ratio>,
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

/// One figure against another, in hundredths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ratio {
    /// What is compared with what.
    pub name: String,
    /// Median over median, in hundredths.
    pub hundredths: u64,
    /// What is aimed at, in hundredths.
    pub at_least: u64,
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
        Table { table: table.to_owned(), machine: machine(), rows, ratios: Vec::new() }
    }

    fn median(&self, name: &str) -> Option<u64> {
        self.rows.iter().find(|row| row.name == name).map(|row| row.median)
    }

    /// Compares two rows, if both were measured.
    pub(crate) fn compare(&mut self, subject: &str, reference: &str, at_least: u64) {
        let (Some(above), Some(below)) = (self.median(subject), self.median(reference)) else { return };
        let hundredths = above.saturating_mul(100).checked_div(below).unwrap_or(0);
        self.ratios.push(Ratio { name: format!("{subject} / {reference}"), hundredths, at_least });
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
        for Ratio { name, hundredths, at_least } in &self.ratios {
            let two = |n: &u64| format!("{}.{:02}", n / 100, n % 100);
            let verdict = if hundredths >= at_least { "reached" } else { "not reached" };
            writeln!(f, "  {name:<44} {:>6}  aim {} {verdict}", two(hundredths), two(at_least))?;
        }
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
        table.compare("a", "b", 50);
        table.compare("a", "c", 50);
        let ratio = Ratio { name: "a / b".to_owned(), hundredths: 50, at_least: 50 };
        assert_eq!(table.ratios, [ratio]);
        let text = table.to_string();
        assert!(text.contains("1,234,567") && text.contains("0.50  aim 0.50 reached"), "{text}");
    }
}
