//! Numbers and moments as people read them. The module `web/static/live.js` writes the same forms.

use std::fmt;

use canvass_election::ids::Timestamp;
use canvass_election::results::share;
use canvass_protocol::time;

/// Stands where there is no number.
pub(super) const NONE: &str = "–";

/// A whole number, its thousands apart: `1,234,567`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Integer(pub(super) u64);

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A share in percent with one decimal: `48.6 %`. It says 0 and 100 only of none and of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) part: u64,
    pub(super) whole: u64,
}

impl Share {
    /// The same as a number from 0 to 100 with two decimals, for the width of a bar.
    pub(super) fn width(self) -> String {
        let hundredths = share(self.part, self.whole).unwrap_or(0);
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, whole) = (u128::from(self.part), u128::from(self.whole));
        // Rounded once, from the votes: rounding rounded hundredths again could go the wrong way.
        let Some(tenths) = (part * 2_000 + whole).checked_div(whole * 2) else { return f.write_str(NONE) };
        match tenths {
            0 if part > 0 => f.write_str("<0.1\u{202f}%"),
            1_000 if part < whole => f.write_str(">99.9\u{202f}%"),
            _ => write!(f, "{}.{}\u{202f}%", tenths / 10, tenths % 10),
        }
    }
}

/// A moment in UTC: `2026-11-03 20:15:03 UTC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

impl Moment {
    /// The machine's form, for `datetime` attributes.
    pub(super) fn iso(self) -> String {
        time::format(self.0)
    }

    /// The time of day, with seconds.
    pub(super) fn clock(self) -> String {
        self.iso().get(11..19).unwrap_or(NONE).to_owned()
    }

    /// The day: `2026-11-03`.
    pub(super) fn day(self) -> String {
        self.iso().get(..10).unwrap_or(NONE).to_owned()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Timestamp(0) {
            return f.write_str(NONE);
        }
        write!(f, "{} {} UTC", self.day(), self.clock())
    }
}

/// Names in a sentence: `A`, `A and B`, `A, B and C`.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        let rows = [(0, "0"), (12, "12"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in rows {
            assert_eq!(Integer(number).to_string(), text);
        }
    }

    #[test]
    fn shares_are_rounded_once_and_never_claim_none_or_all() {
        let rows = [
            (0, 0, "–"),
            (0, 7, "0.0\u{202f}%"),
            (7, 7, "100.0\u{202f}%"),
            (1, 100_000, "<0.1\u{202f}%"),
            (99_999, 100_000, ">99.9\u{202f}%"),
            (1, 3, "33.3\u{202f}%"),
            (2, 3, "66.7\u{202f}%"),
            (48_649, 100_000, "48.6\u{202f}%"),
            (u64::MAX, u64::MAX, "100.0\u{202f}%"),
        ];
        for (part, whole, text) in rows {
            assert_eq!(Share { part, whole }.to_string(), text, "{part} of {whole}");
        }
    }

    #[test]
    fn moments_and_lists_read_well() {
        assert_eq!(Moment(Timestamp(1_604_452_819_239)).to_string(), "2020-11-04 01:20:19 UTC");
        assert_eq!(Moment(Timestamp(0)).to_string(), "–");
        assert_eq!(list(["Ash"]), "Ash");
        assert_eq!(list(["Ash", "Birch", "Cedar"]), "Ash, Birch and Cedar");
    }
}
