//! Moments on the wire: RFC 3339 in UTC with milliseconds.

use canvass_election::ids::Timestamp;

/// `2026-11-03T20:15:00.000Z`.
pub fn format(time: Timestamp) -> String {
    match i64::try_from(time.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        Some(moment) => format!("{moment:.3}"),
        None => format!("{}", time.0),
    }
}

/// Reads RFC 3339 with any offset; none for another form or a moment before 1970.
pub fn parse(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok().map(Timestamp)
}

/// Serde form of [`Timestamp`] as RFC 3339 text, for `#[serde(with = "…")]`.
pub mod rfc3339 {
    use canvass_election::ids::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the moment as text.
    pub fn serialize<S: Serializer>(time: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format(*time))
    }

    /// Reads the moment from text.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(d)?;
        super::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("expected a moment such as 2026-11-03T20:15:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_back() {
        let moment = Timestamp(1_604_452_819_239);
        assert_eq!(format(moment), "2020-11-04T01:20:19.239Z");
        assert_eq!(parse(&format(moment)), Some(moment));
        assert_eq!(parse("2020-11-03T20:20:19.239-05:00"), Some(moment));
        for bad in ["", "yesterday", "2020-11-03", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
