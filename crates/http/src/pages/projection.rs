//! What is projected of a contest: in a sentence, as intervals drawn by the server, and as a table.
//!
//! The intervals have soft ends: 50 of 100 cases dark, 90 of 100 light. There is no single needle.

use canvass_engine::Published;
use canvass_protocol::projection::{AreaProjection, NotYet, Projection, Range};

use super::format::{Integer, Moment, list};
use super::view::{Place, View};
use super::words;
use crate::App;

/// Height of a selection's row in the drawing, and where its parts lie, in pixels.
const ROW: usize = 46;
const BAND_TOP: usize = 22;
/// Below the rows, for the axis.
const AXIS: usize = 26;
/// The axis ends at multiples of this, in hundredths of a percent.
const STEP: i64 = 500;
/// Most selections that are drawn; the table has all.
const MAX_DRAWN: usize = 6;

/// A band of the drawing, in percent of its width.
pub(super) struct Band {
    pub(super) x: String,
    pub(super) width: String,
}

/// One selection.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) color: String,
    pub(super) chance: String,
    pub(super) words: &'static str,
    pub(super) middle: String,
    pub(super) half: String,
    pub(super) most: String,
    pub(super) bands: [Band; 2],
    pub(super) text_y: usize,
    pub(super) band_y: usize,
}

/// A mark on the axis.
pub(super) struct Mark {
    pub(super) x: String,
    pub(super) anchor: &'static str,
    pub(super) text: String,
}

/// A projection to be shown.
pub(super) struct Shown<'a> {
    pub(super) lead: String,
    pub(super) margin: String,
    pub(super) votes: String,
    pub(super) lines: Vec<Line<'a>>,
    drawn: usize,
    pub(super) marks: Vec<Mark>,
    pub(super) height: usize,
    pub(super) axis_y: usize,
    pub(super) snapshot: String,
    pub(super) as_of: Moment,
    pub(super) model: String,
    pub(super) seed: u64,
}

impl<'a> Shown<'a> {
    /// Those that are drawn; the table has all.
    pub(super) fn drawn(&self) -> &[Line<'a>] {
        &self.lines[..self.drawn]
    }
}

/// The projection's part of a page.
pub(super) enum Part<'a> {
    /// The contest is none that is projected: live votes, or several seats.
    Nothing,
    /// There is no projection, and why.
    NotYet(String),
    /// There is one.
    Shown(Box<Shown<'a>>),
}

impl<'a> Part<'a> {
    pub(super) fn new(app: &App, published: &Published, view: &'a View<'_>) -> Self {
        let contest = view.contest;
        if contest.voting().is_some() || contest.max_choices() > 1 {
            return Part::Nothing;
        }
        let of = &published.contests[view.place.contest.index()];
        let Some(projection) = &of.projection else { return not_yet(app, view) };
        match &projection.areas {
            Err(NotYet::TooLittle) => Part::NotYet(
                "There is no projection yet: too little is counted to say how the rest will turn out."
                    .to_owned(),
            ),
            Err(NotYet::Complete) => {
                Part::NotYet("Everything is counted; there is nothing left to project.".to_owned())
            }
            Ok(areas) => match areas.get(&view.place.unit) {
                None => Part::NotYet(
                    "This unit by itself is not projected; the contest as a whole is.".to_owned(),
                ),
                Some(area) => Part::Shown(Box::new(shown(view, projection, area, Moment(of.stamp.time)))),
            },
        }
    }
}

fn not_yet<'a>(app: &App, view: &View<'_>) -> Part<'a> {
    let Place { contest, .. } = view.place;
    if app.engine.is_projected(contest) {
        return Part::NotYet("There is no projection yet: the first one is being made.".to_owned());
    }
    Part::NotYet(
        "There is no projection: without the numbers of an earlier election nothing says how the units that are \
         out differ from those that are in."
            .to_owned(),
    )
}

fn shown<'a>(view: &'a View<'_>, projection: &Projection, area: &AreaProjection, as_of: Moment) -> Shown<'a> {
    let contest = view.contest;
    let name = |s: canvass_election::ids::SelectionId| contest.selections[s.index()].name.as_str();
    let likeliest = area.selections.iter().max_by_key(|s| (s.chance, std::cmp::Reverse(s.selection)));
    let lead = likeliest.map_or_else(String::new, |s| {
        format!("{}: {}, {} of 1,000 draws.", name(s.selection), words::chance(s.chance), s.chance)
    });
    let [first, second] = area.ahead.map(name);
    let Range { middle, half, most } = area.margin;
    let margin = format!(
        "{first} ends {} points ahead of {second}; in half of the cases {} to {}, in 90 of 100 cases {} to {} points.",
        points(middle),
        points(half[0]),
        points(half[1]),
        points(most[0]),
        points(most[1]),
    );
    let whole = |n: i64| Integer(u64::try_from(n).unwrap_or(0));
    let names = list(area.selections.iter().map(|s| name(s.selection)).collect::<Vec<_>>());
    let votes = format!(
        "{} of about {} expected votes for {names} are counted; in 90 of 100 cases it will be {} to {}.",
        Integer(area.counted),
        whole(area.votes.middle),
        whole(area.votes.most[0]),
        whole(area.votes.most[1]),
    );
    let scale = Scale::new(area);
    let mut order: Vec<_> = area.selections.iter().collect();
    order.sort_by_key(|s| (std::cmp::Reverse(s.share.middle), s.selection));
    let lines = order.iter().enumerate().map(|(row, s)| {
        let color = view.rows.iter().find(|r| r.id == contest.selections[s.selection.index()].id);
        Line {
            name: name(s.selection),
            color: color.map_or_else(String::new, |row| row.color.clone()),
            chance: per_thousand(s.chance),
            words: words::chance(s.chance),
            middle: percent(s.share.middle),
            half: format!("{} to {}", percent(s.share.half[0]), percent(s.share.half[1])),
            most: format!("{} to {}", percent(s.share.most[0]), percent(s.share.most[1])),
            bands: [scale.band(s.share.most), scale.band(s.share.half)],
            text_y: row * ROW + BAND_TOP - 6,
            band_y: row * ROW + BAND_TOP,
        }
    });
    let lines: Vec<_> = lines.collect();
    let drawn = lines.len().min(MAX_DRAWN);
    Shown {
        lead,
        margin,
        votes,
        lines,
        drawn,
        marks: scale.marks(),
        height: drawn * ROW + AXIS,
        axis_y: drawn * ROW + AXIS - 8,
        snapshot: projection.snapshot.to_string(),
        as_of,
        model: projection.model.clone(),
        seed: projection.seed,
    }
}

/// From shares to places in the drawing.
struct Scale {
    low: i64,
    high: i64,
}

impl Scale {
    fn new(area: &AreaProjection) -> Self {
        let ends = area.selections.iter().flat_map(|s| s.share.most);
        let (low, high) = ends.fold((10_000, 0), |(low, high), n| (low.min(n), high.max(n)));
        let low = (low - STEP / 2).max(0) / STEP * STEP;
        let high = ((high + STEP / 2).div_euclid(STEP) + 1) * STEP;
        Scale { low, high: high.min(10_000).max(low + STEP) }
    }

    /// In hundredths of a percent of the width, as text.
    fn x(&self, share: i64) -> String {
        let x = (share.clamp(self.low, self.high) - self.low) * 10_000 / (self.high - self.low);
        format!("{}.{:02}", x / 100, x % 100)
    }

    fn band(&self, [from, to]: [i64; 2]) -> Band {
        let width = (to.min(self.high) - from.max(self.low)).max(0) * 10_000 / (self.high - self.low);
        // A band that is all but closed can still be seen.
        let width = width.max(40);
        Band { x: self.x(from), width: format!("{}.{:02}", width / 100, width % 100) }
    }

    fn marks(&self) -> Vec<Mark> {
        let middle = (self.low + self.high) / 2;
        let at = [(self.low, "start"), (middle, "middle"), (self.high, "end")];
        at.map(|(share, anchor)| Mark { x: self.x(share), anchor, text: percent(share) }).into()
    }
}

/// Hundredths of a percent: `48.6 %`.
fn percent(hundredths: i64) -> String {
    let tenths = (hundredths + 5) / 10;
    match tenths {
        0 if hundredths > 0 => "<0.1\u{202f}%".to_owned(),
        1_000 if hundredths < 10_000 => ">99.9\u{202f}%".to_owned(),
        _ => format!("{}.{}\u{202f}%", tenths / 10, tenths % 10),
    }
}

/// Hundredths of a percent as points with their sign: `+3.2`, `−0.4`.
fn points(hundredths: i64) -> String {
    let tenths = (hundredths.unsigned_abs() + 5) / 10;
    let sign = match (hundredths, tenths) {
        (_, 0) => "",
        (..0, _) => "−",
        _ => "+",
    };
    format!("{sign}{}.{}", tenths / 10, tenths % 10)
}

/// Thousandths: `99.9 %`.
fn per_thousand(chance: u16) -> String {
    format!("{}.{}\u{202f}%", chance / 10, chance % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_rounds_to_none_or_all_that_is_not() {
        assert_eq!(percent(1), "<0.1\u{202f}%");
        assert_eq!(percent(9_999), ">99.9\u{202f}%");
        assert_eq!(percent(4_855), "48.6\u{202f}%");
        assert_eq!((percent(0), percent(10_000)), ("0.0\u{202f}%".into(), "100.0\u{202f}%".into()));
        assert_eq!((points(324), points(-41), points(-3)), ("+3.2".into(), "−0.4".into(), "0.0".into()));
        assert_eq!((per_thousand(1), per_thousand(999)), ("0.1\u{202f}%".into(), "99.9\u{202f}%".into()));
    }
}
