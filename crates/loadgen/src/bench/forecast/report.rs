//! What the benchmark found, as tables in Markdown and diagrams.

use std::collections::BTreeMap;
use std::fmt;

use canvass_protocol::time;

use super::diagram::{reliability, svg};
use super::{Case, Moment, Order, STAGES, Score, Update};

/// One election, by Canvass and by elex-model.
#[derive(Debug, Clone)]
pub struct PairReport {
    /// The year that was projected.
    pub year: u16,
    /// Updates of Canvass.
    pub ours: Vec<Update>,
    /// Those of elex-model; none where it was not asked.
    pub theirs: Vec<Update>,
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The elections.
    pub pairs: Vec<PairReport>,
    /// The night in North Carolina, snapshot by snapshot.
    pub moments: Vec<Moment>,
    /// Units, percent of them that are in, and seconds of one projection.
    pub speed: Vec<(usize, usize, f64)>,
}

/// A score of the states, one of the nation, and how long it took.
struct Side {
    name: &'static str,
    states: Score,
    nation: Score,
    called: f64,
    seconds: f64,
}

impl Side {
    fn of(name: &'static str, updates: &[Update]) -> Option<Self> {
        let mut seconds: Vec<f64> = updates.iter().map(|update| update.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let seconds = *seconds.get(seconds.len() / 2)?;
        Some(Side {
            name,
            states: states(updates, |_| true),
            nation: Score::of(updates.iter().map(|update| &update.nation)),
            called: called(updates),
            seconds,
        })
    }
}

fn states(updates: &[Update], takes: impl Fn(&Update) -> bool) -> Score {
    let cases = updates.iter().filter(|update| takes(update)).flat_map(|update| &update.states);
    Score::of(cases.map(|(_, case)| case))
}

/// The mean stage at which a state is first called rightly; 100 where it never is while it is open.
fn called(updates: &[Update]) -> f64 {
    let mut first: BTreeMap<(String, usize), f64> = BTreeMap::new();
    for update in updates {
        for (state, case) in &update.states {
            let stage = if case.call() == Some(true) { update.stage as f64 } else { 100.0 };
            let known = first.entry((update.order.name(), *state)).or_insert(100.0);
            *known = known.min(stage);
        }
    }
    first.values().sum::<f64>() / first.len().max(1) as f64
}

impl PairReport {
    fn sides(&self) -> Vec<Side> {
        [Side::of("Canvass", &self.ours), Side::of("elex-model", &self.theirs)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The reliability diagram, as SVG.
    pub fn diagram(&self) -> String {
        svg(self)
    }

    fn write_scores(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {} | cases | coverage | width | MAE | CRPS | IS90 | calls | wrong | first right call | s |",
            self.year
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for side in self.sides() {
            for (what, score, called) in [
                ("states", side.states, format!("{:.0} %", side.called)),
                ("nation", side.nation, String::new()),
            ] {
                let crps = if score.crps > 0.0 { format!("{:.2}", score.crps) } else { "–".to_owned() };
                let Score { cases, coverage, width, error, interval_score, calls, wrong, .. } = score;
                writeln!(
                    f,
                    "| {}, {what} | {cases} | {coverage:.3} | {width:.2} | {error:.2} | {crps} | {interval_score:.2} | {calls} | {wrong} | {called} | {:.3} |",
                    side.name, side.seconds
                )?;
            }
        }
        writeln!(f)
    }

    fn write_aims(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides = self.sides();
        let [ours, theirs] = &sides[..] else { return Ok(()) };
        let reached = |is: bool| if is { "reached" } else { "not reached" };
        let ratio = |a: Score, b: Score| a.interval_score / b.interval_score;
        let (of_states, of_nation) = (ratio(ours.states, theirs.states), ratio(ours.nation, theirs.nation));
        let wrong = ours.states.wrong + ours.nation.wrong;
        writeln!(f, "| {}, aim | figure | |", self.year)?;
        writeln!(f, "|---|---|---|")?;
        writeln!(
            f,
            "| states: IS90 at most 0.75 × elex-model's | {of_states:.2} × | {} |",
            reached(of_states <= 0.75)
        )?;
        let held = ours.states.coverage;
        writeln!(
            f,
            "| states: coverage from .88 to .95 | {held:.3} | {} |",
            reached((0.88..=0.95).contains(&held))
        )?;
        writeln!(
            f,
            "| nation: IS90 at most 0.5 × elex-model's | {of_nation:.2} × | {} |",
            reached(of_nation <= 0.5)
        )?;
        let held = ours.nation.coverage;
        writeln!(f, "| nation: coverage at least .85 | {held:.3} | {} |", reached(held >= 0.85))?;
        writeln!(f, "| no wrong call | {wrong} | {} |\n", reached(wrong == 0))
    }

    fn write_parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {}, states | coverage | IS90 | elex-model: coverage | IS90 |", self.year)?;
        writeln!(f, "|---|---|---|---|---|")?;
        let mut row = |name: String, takes: &dyn Fn(&Update) -> bool| {
            let ours = states(&self.ours, takes);
            let theirs = states(&self.theirs, takes);
            let of = |s: Score| {
                if s.cases > 0 {
                    format!("{:.3} | {:.2}", s.coverage, s.interval_score)
                } else {
                    "– | –".to_owned()
                }
            };
            writeln!(f, "| {name} | {} | {} |", of(ours), of(theirs))
        };
        for order in Order::ALL.into_iter().filter(|order| self.ours.iter().any(|u| u.order == *order)) {
            row(order.name(), &|update| update.order == order)?;
        }
        for stage in STAGES {
            row(format!("{stage} % in"), &|update| update.stage == stage)?;
        }
        writeln!(f)
    }

    fn write_reliability(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |updates: &[Update]| -> Vec<Case> {
            updates.iter().flat_map(|update| update.states.iter().map(|(_, case)| *case)).collect()
        };
        let (ours, theirs) = (of(&self.ours), of(&self.theirs));
        let cells = |cases: &[Case]| -> BTreeMap<String, f64> {
            reliability(cases.iter()).into_iter().map(|(level, held)| (percent(level), held)).collect()
        };
        let (ours, theirs) = (cells(&ours), cells(&theirs));
        writeln!(
            f,
            "| {}, states: claimed | {} |",
            self.year,
            ours.keys().cloned().collect::<Vec<_>>().join(" | ")
        )?;
        writeln!(f, "|---|{}", "---|".repeat(ours.len()))?;
        for (name, of) in [("Canvass", &ours), ("elex-model", &theirs)] {
            let held = |level| of.get(level).map_or("–".to_owned(), |held: &f64| percent(*held));
            writeln!(f, "| {name} | {} |", ours.keys().map(held).collect::<Vec<_>>().join(" | "))?;
        }
        writeln!(f)
    }
}

fn percent(share: f64) -> String {
    format!("{:2.0} %", share * 100.0)
}

/// Where this many points of a chance are reached, a call would be recommended.
const SURE: f64 = 0.995;
/// Rows of the table of the night.
const ROWS: usize = 16;

impl Report {
    fn write_night(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open: Vec<&Moment> = self.moments.iter().filter(|moment| moment.counted > 0.0).collect();
        let score = Score::of(open.iter().map(|moment| &moment.case));
        let sure = open.iter().find(|moment| moment.chance.max(1.0 - moment.chance) >= SURE);
        let findings: usize = open.iter().map(|moment| moment.findings.len()).sum();
        writeln!(
            f,
            "{} snapshots: coverage {:.3}, mean width {:.2}, MAE {:.2}, CRPS {:.2}, IS90 {:.2}; {} calls, {} of them wrong; a chance of {SURE} first {}; {findings} findings.\n",
            score.cases,
            score.coverage,
            score.width,
            score.error,
            score.crps,
            score.interval_score,
            score.calls,
            score.wrong,
            sure.map_or("never".to_owned(), |moment| format!("at {}", time::format(moment.time))),
        )?;
        writeln!(f, "| time (UTC) | counted | margin counted | projected | 90 % | chance of the first |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for moment in open.iter().step_by(open.len().div_ceil(ROWS).max(1)) {
            let Moment { time: at, counted, counted_margin, case, chance, .. } = moment;
            writeln!(
                f,
                "| {} | {:.1} % | {counted_margin:+.2} | {:+.2} | {:+.2} to {:+.2} | {chance:.3} |",
                time::format(*at).get(..16).unwrap_or_default().replace('T', " "),
                counted * 100.0,
                case.middle,
                case.inner.0,
                case.inner.1,
            )?;
        }
        writeln!(f)
    }
}

/// All tables, in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pair in &self.pairs {
            pair.write_scores(f)?;
            pair.write_aims(f)?;
            pair.write_parts(f)?;
            pair.write_reliability(f)?;
        }
        if !self.moments.is_empty() {
            self.write_night(f)?;
        }
        writeln!(f, "| one projection, 2,000 draws, one core | in | s |\n|---|---|---|")?;
        let mut rows = self.speed.iter();
        rows.try_for_each(|(units, stage, seconds)| {
            writeln!(f, "| {units} units | {stage} % | {seconds:.3} |")
        })
    }
}
