//! Counties of the United States with four presidential elections and ten covariates, as a CSV table.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::Fault;

/// A row of the table: votes for President of a county, and what it is like.
#[derive(Debug, Clone, Deserialize)]
pub struct County {
    /// The county's number, five digits.
    pub fips: String,
    /// The state's two letters.
    pub st: String,
    /// What it is called.
    pub county_name: String,
    dem08: u64,
    gop08: u64,
    dem12: u64,
    gop12: u64,
    dem16: u64,
    gop16: u64,
    dem20: u64,
    gop20: u64,
    white_pct: f64,
    black_pct: f64,
    hispanic_pct: f64,
    foreignborn_pct: f64,
    age29andunder_pct: f64,
    age65andolder_pct: f64,
    median_hh_inc: f64,
    lesscollege_pct: f64,
    rural_pct: f64,
    /// The urban class of the Department of Agriculture, 1 (a metropolis) to 9.
    pub ruralurban_cc: usize,
}

/// Names of the covariates, in the order of [`County::covariates`].
pub const COVARIATES: [&str; 9] = [
    "white_pct",
    "black_pct",
    "hispanic_pct",
    "foreignborn_pct",
    "age29andunder_pct",
    "age65andolder_pct",
    "median_hh_inc",
    "lesscollege_pct",
    "rural_pct",
];

impl County {
    /// Two-party votes for President of a year, Democratic first.
    pub fn votes(&self, year: u16) -> [u64; 2] {
        match year {
            2008 => [self.dem08, self.gop08],
            2012 => [self.dem12, self.gop12],
            2016 => [self.dem16, self.gop16],
            2020 => [self.dem20, self.gop20],
            _ => [0, 0],
        }
    }

    /// In the order of [`COVARIATES`]; income in thousands of dollars, all others in percent of the people.
    pub fn covariates(&self) -> Vec<f64> {
        vec![
            self.white_pct,
            self.black_pct,
            self.hispanic_pct,
            self.foreignborn_pct,
            self.age29andunder_pct,
            self.age65andolder_pct,
            self.median_hh_inc / 1_000.0,
            self.lesscollege_pct,
            self.rural_pct,
        ]
    }
}

/// Reads the table, sorted by the counties' numbers.
///
/// # Errors
/// A row that lacks a column or has one that is no number, or whose state is not known.
pub fn read(table: impl Read) -> Result<Vec<County>, Fault> {
    let mut counties = Vec::new();
    for row in csv::Reader::from_reader(table).deserialize() {
        let county: County = row.map_err(|e| Fault(format!("the table of counties: {e}")))?;
        if state(&county.st).is_none() || !(1..=9).contains(&county.ruralurban_cc) {
            return Err(Fault(format!("county {}: its state or its urban class is not known", county.fips)));
        }
        counties.push(county);
    }
    counties.sort_by(|a, b| a.fips.cmp(&b.fips));
    if counties.is_empty() {
        return Err(Fault("the table of counties is empty".to_owned()));
    }
    Ok(counties)
}

/// What the table does not say of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Its two letters.
    pub code: &'static str,
    /// Its region, as the Census Bureau has it: 0 northeast, 1 midwest, 2 south, 3 west.
    pub region: usize,
    /// When its last polls close, in half hours after noon in New York.
    pub close: u32,
}

const fn s(code: &'static str, region: usize, close: u32) -> State {
    State { code, region, close }
}

/// Regions of the Census Bureau, and the closing times that the states' election offices announced for 2020.
const STATES: [State; 51] = [
    s("AK", 3, 26),
    s("AL", 2, 16),
    s("AR", 2, 17),
    s("AZ", 3, 18),
    s("CA", 3, 22),
    s("CO", 3, 18),
    s("CT", 0, 16),
    s("DC", 2, 16),
    s("DE", 2, 16),
    s("FL", 2, 16),
    s("GA", 2, 14),
    s("HI", 3, 24),
    s("IA", 1, 20),
    s("ID", 3, 22),
    s("IL", 1, 16),
    s("IN", 1, 14),
    s("KS", 1, 18),
    s("KY", 2, 14),
    s("LA", 2, 18),
    s("MA", 0, 16),
    s("MD", 2, 16),
    s("ME", 0, 16),
    s("MI", 1, 18),
    s("MN", 1, 18),
    s("MO", 1, 16),
    s("MS", 2, 16),
    s("MT", 3, 20),
    s("NC", 2, 15),
    s("ND", 1, 18),
    s("NE", 1, 18),
    s("NH", 0, 16),
    s("NJ", 0, 16),
    s("NM", 3, 18),
    s("NV", 3, 20),
    s("NY", 0, 18),
    s("OH", 1, 15),
    s("OK", 2, 16),
    s("OR", 3, 22),
    s("PA", 0, 16),
    s("RI", 0, 16),
    s("SC", 2, 14),
    s("SD", 1, 18),
    s("TN", 2, 16),
    s("TX", 2, 18),
    s("UT", 3, 20),
    s("VA", 2, 14),
    s("VT", 0, 14),
    s("WA", 3, 22),
    s("WI", 1, 18),
    s("WV", 2, 15),
    s("WY", 3, 18),
];

/// A state by its two letters.
pub fn state(code: &str) -> Option<State> {
    STATES.iter().find(|state| state.code == code).copied()
}

/// The states of some counties, each with a number, in the order of their letters.
pub fn numbered(counties: &[County]) -> BTreeMap<&str, usize> {
    let mut states: BTreeMap<&str, usize> = counties.iter().map(|county| (county.st.as_str(), 0)).collect();
    states.values_mut().enumerate().for_each(|(number, place)| *place = number);
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "fips,st,county_name,dem08,gop08,dem12,gop12,dem16,gop16,dem20,gop20,white_pct,black_pct,\
        hispanic_pct,foreignborn_pct,age29andunder_pct,age65andolder_pct,median_hh_inc,lesscollege_pct,rural_pct,\
        ruralurban_cc";

    #[test]
    fn counties_are_sorted_and_a_row_that_is_none_is_named() {
        let row = |fips: &str, st: &str, class: &str| {
            format!("\n{fips},{st},A County,1,2,3,4,5,6,7,8,1,2,3,4,5,6,50000,8,9,{class}")
        };
        let read = |rows: &[String]| read(format!("{HEADER}{}", rows.concat()).as_bytes());
        let counties = read(&[row("02", "NC", "9"), row("01", "VA", "1")]).unwrap_or_default();
        let fips: Vec<&str> = counties.iter().map(|county| county.fips.as_str()).collect();
        assert_eq!(fips, ["01", "02"]);
        assert_eq!((counties[0].votes(2012), counties[0].votes(1999)), ([3, 4], [0, 0]));
        let fault = |rows: &[String]| read(rows).err().map(|fault| fault.0).unwrap_or_default();
        assert!(fault(&[row("01", "XX", "1")]).contains("county 01"));
        assert!(fault(&[row("01", "NC", "0")]).contains("urban class"));
        assert!(fault(&[row("01", "NC", "much")]).contains("line: 2"));
        assert!(fault(&[]).contains("empty"));
    }
}
