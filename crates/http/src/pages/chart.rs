//! The step chart of votes over time, drawn as SVG by the server.
//!
//! Places are percentages of the drawing, and only the lines are stretched: so the chart fits any width and
//! its text keeps its size. Lines are told apart by dash, sign and name; colour only helps.

use std::fmt::Write;

use canvass_election::event::Counts;
use canvass_election::ids::{Timestamp, UnitId};
use canvass_engine::{Published, TimelinePoint, TimelineQuery};

use super::format::{Integer, Moment};
use super::view::View;
use crate::App;

/// Most lines; more could not be told apart.
const MAX_LINES: usize = 6;
/// Points of a line, about.
const POINTS: u64 = 180;
/// Rows of the table that says the same in numbers, about.
const TABLE_ROWS: usize = 12;
/// Where the lines lie in the drawing, in tenths of a percent of its height.
const TOP: u64 = 60;
const HEIGHT: u64 = 840;
/// Width of the lines' part, in percent.
const WIDTH: u64 = 76;
/// Least distance of two names, in tenths of a percent of the height.
const NAME_GAP: u64 = 68;
/// Longest name beside a line, in characters.
const MAX_NAME: usize = 18;
/// Signs at the ends of the lines.
const SIGNS: [&str; MAX_LINES] = ["●", "■", "▲", "◆", "★", "✚"];

/// Distances of points that fall on round moments, in milliseconds.
const STEPS: [u64; 20] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000,
    1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000,
];

/// One selection's line.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) color: &'a str,
    pub(super) sign: &'static str,
    /// Number of the dash pattern.
    pub(super) dash: usize,
    pub(super) path: String,
    pub(super) votes: Integer,
    /// Where its sign and name stand, in percent from the top.
    pub(super) label: String,
}

impl Line<'_> {
    /// The name as far as there is room for it; the legend has all of it.
    pub(super) fn label_text(&self) -> String {
        if self.name.chars().count() <= MAX_NAME {
            return self.name.to_owned();
        }
        let start: String = self.name.chars().take(MAX_NAME - 1).collect();
        format!("{}…", start.trim_end())
    }
}

/// A line of the grid, in percent from the top, and its number.
pub(super) struct Grid {
    pub(super) y: String,
    pub(super) votes: Integer,
}

/// A moment on the axis, in percent from the left.
pub(super) struct Tick {
    pub(super) x: u64,
    pub(super) anchor: &'static str,
    pub(super) text: String,
}

/// One row of the table.
pub(super) struct Moments {
    pub(super) time: Moment,
    pub(super) votes: Vec<Integer>,
}

/// The chart; without lines where there is nothing to draw.
pub(super) struct Chart<'a> {
    pub(super) lines: Vec<Line<'a>>,
    pub(super) grid: Vec<Grid>,
    pub(super) ticks: Vec<Tick>,
    pub(super) table: Vec<Moments>,
    pub(super) left_out: usize,
    pub(super) width: u64,
    /// What the chart shows, in a sentence.
    pub(super) summary: String,
}

impl<'a> Chart<'a> {
    pub(super) fn new(app: &App, published: &Published, view: &'a View<'_>) -> Self {
        let points = points(app, published, view);
        let mut chart = Chart {
            lines: Vec::new(),
            grid: Vec::new(),
            ticks: Vec::new(),
            table: Vec::new(),
            left_out: 0,
            width: WIDTH,
            summary: String::new(),
        };
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return chart };
        if points.len() < 2 {
            return chart;
        }
        let mut shown: Vec<(usize, &super::view::Row<'_>)> = view
            .rows
            .iter()
            .filter_map(|row| Some((view.contest.selection_by_id(row.id)?.index(), row)))
            .collect();
        shown.sort_by_key(|(i, _)| std::cmp::Reverse(last.counts.votes[*i]));
        chart.left_out = shown.len().saturating_sub(MAX_LINES);
        shown.truncate(MAX_LINES);
        let most = points.iter().flat_map(|p| &p.counts.votes).copied().max().unwrap_or(0);
        let (top, gap) = scale(most);
        let ends = shown.iter().map(|(i, _)| TOP + HEIGHT - part(last.counts.votes[*i], top, HEIGHT));
        let labels = spread(ends.collect());
        chart.lines = shown
            .iter()
            .enumerate()
            .map(|(n, (i, row))| {
                let votes = last.counts.votes[*i];
                let path = path(&points, *i, top);
                let label = tenths(labels[n]);
                let (name, color) = (row.name, row.color.as_str());
                Line { name, color, sign: SIGNS[n], dash: n, path, votes: Integer(votes), label }
            })
            .collect();
        let lines = (0..).map(|k| k * gap).take_while(|votes| *votes <= top);
        chart.grid = lines
            .map(|votes| Grid { y: tenths(TOP + HEIGHT - part(votes, top, HEIGHT)), votes: Integer(votes) })
            .collect();
        chart.ticks = ticks(first.time, last.time);
        chart.table = table(&points, &shown.iter().map(|(i, _)| *i).collect::<Vec<_>>());
        let (from, to) = (Moment(first.time), Moment(last.time));
        chart.summary =
            format!("Votes of each selection from {from} to {to}; the table below says the same.");
        chart
    }
}

/// Sums at round moments, from before the first change to the contest's last.
fn points(app: &App, published: &Published, view: &View<'_>) -> Vec<TimelinePoint> {
    let definition = app.definition();
    let place = view.place;
    let inside = |unit: UnitId| definition.is_within(unit, place.unit);
    let ask = |step: u64, to: Option<Timestamp>, limit: usize| {
        app.engine.timeline(&TimelineQuery {
            contest: place.contest,
            selections: view.contest.selections.len(),
            inside: &inside,
            step,
            from: None,
            to,
            limit,
        })
    };
    let Some(first) = ask(1, None, 1).first().map(|p| p.time.0) else { return Vec::new() };
    let last = published.contests[place.contest.index()].stamp.time.0;
    let least = last.saturating_sub(first) / POINTS;
    let step = STEPS.into_iter().find(|step| *step >= least).unwrap_or(least);
    let to = Timestamp(last.div_ceil(step).saturating_mul(step));
    let mut points = ask(step, Some(to), 400);
    // The lines rise from nothing: so the first change is a step, too.
    if let Some(start) = points.first().map(|p| Timestamp(p.time.0.saturating_sub(step))) {
        let counts = Counts::zero(view.contest.selections.len());
        points.insert(0, TimelinePoint { time: start, counts });
    }
    points
}

/// `votes` of `top` as a part of `size`.
fn part(votes: u64, top: u64, size: u64) -> u64 {
    let scaled = u128::from(votes) * u128::from(size) / u128::from(top.max(1));
    u64::try_from(scaled).unwrap_or(size).min(size)
}

fn tenths(n: u64) -> String {
    format!("{}.{}", n / 10, n % 10)
}

/// The top of the scale and the distance of its lines: two to five steps of 1, 2 or 5 and zeros.
fn scale(most: u64) -> (u64, u64) {
    let mut gap = 1_u64;
    for factor in [2, 5, 10].into_iter().cycle() {
        if most.div_ceil(gap) <= 4 {
            break;
        }
        // 1, 2, 5, 10: each from the power of ten it belongs to.
        gap = match factor {
            2 => gap.saturating_mul(2),
            5 => (gap / 2).saturating_mul(5),
            _ => (gap / 5).saturating_mul(10),
        };
    }
    (most.div_ceil(gap).max(1).saturating_mul(gap), gap)
}

/// The line of selection `i` in a square of 1000 by 1000: across, then up.
fn path(points: &[TimelinePoint], i: usize, top: u64) -> String {
    let (first, last) = (points[0].time.0, points[points.len() - 1].time.0);
    let mut path = String::new();
    let mut before = None;
    for (n, point) in points.iter().enumerate() {
        let x = part(point.time.0 - first, last - first, 1000);
        let y = 1000 - part(point.counts.votes[i], top, 1000);
        // Writing to a text cannot fail.
        if before.is_none() {
            let _ = write!(path, "M{x} {y}");
        } else if before != Some(y) {
            let _ = write!(path, "H{x}V{y}");
        } else if n == points.len() - 1 {
            let _ = write!(path, "H{x}");
        }
        before = Some(y);
    }
    path
}

/// Moves the places of names, which come from top to bottom, as far apart as they need.
fn spread(mut places: Vec<u64>) -> Vec<u64> {
    for i in 1..places.len() {
        places[i] = places[i].max(places[i - 1] + NAME_GAP);
    }
    let mut below = TOP + HEIGHT + NAME_GAP;
    for place in places.iter_mut().rev() {
        *place = (*place).min(below - NAME_GAP);
        below = *place;
    }
    places
}

fn ticks(first: Timestamp, last: Timestamp) -> Vec<Tick> {
    let middle = Timestamp(first.0 + (last.0 - first.0) / 2);
    let days = Moment(first).day() != Moment(last).day();
    let text = |time: Timestamp| {
        let (day, clock) = (Moment(time).day(), Moment(time).clock());
        let seconds = last.0 - first.0 < 600_000;
        let clock = if seconds { clock.as_str() } else { clock.get(..5).unwrap_or(&clock) };
        if days { format!("{} {clock}", day.get(5..).unwrap_or(&day)) } else { clock.to_owned() }
    };
    [(0, "start", first), (WIDTH / 2, "middle", middle), (WIDTH, "end", last)]
        .into_iter()
        .map(|(x, anchor, time)| Tick { x, anchor, text: text(time) })
        .collect()
}

fn table(points: &[TimelinePoint], shown: &[usize]) -> Vec<Moments> {
    let every = points.len().div_ceil(TABLE_ROWS).max(1);
    let last = points.len() - 1;
    let row = |(_, point): (usize, &TimelinePoint)| Moments {
        time: Moment(point.time),
        votes: shown.iter().map(|i| Integer(point.counts.votes[*i])).collect(),
    };
    points.iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_hold_the_most() {
        for (most, expected) in
            [(0, (1, 1)), (1, (1, 1)), (4, (4, 1)), (5, (6, 2)), (9, (10, 5)), (401, (500, 200))]
        {
            let (top, gap) = scale(most);
            assert!(top >= most && top / gap <= 5, "{most}: {top} by {gap}");
            if most != 401 {
                assert_eq!((top, gap), expected, "{most}");
            }
        }
        assert!(scale(u64::MAX / 2).0 >= u64::MAX / 2);
    }

    #[test]
    fn lines_step_across_then_up_and_reach_the_end() {
        let point = |time, votes| {
            let counts = Counts { votes: vec![votes], ..Counts::default() };
            TimelinePoint { time: Timestamp(time), counts }
        };
        let points = [point(0, 0), point(10, 5), point(20, 5), point(40, 5)];
        assert_eq!(path(&points, 0, 10), "M0 1000H250V500H1000");
    }

    #[test]
    fn names_keep_their_distance() {
        for wished in [vec![900; 6], vec![60; 6], vec![60, 400, 410, 880, 890, 900], vec![500]] {
            let places = spread(wished.clone());
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= NAME_GAP), "{wished:?}: {places:?}");
            assert!(places.iter().all(|y| *y <= TOP + HEIGHT), "{wished:?}: {places:?}");
        }
        assert_eq!(spread(vec![60, 900]), [60, 900], "who has room stays");
    }
}
