//! Joint draws of everything that is open, from a seed.
//!
//! Each draw holds one value of every effect, so states and units err together in it; everything that is asked for is
//! summed within the draw. All numbers of votes in a draw are whole.

use nalgebra::DMatrix;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::cells::{Cell, Fitted, Linear};
use crate::field::Field;
use crate::fit::Posterior;
use crate::model::{Both, Model};

/// Degrees of freedom of the spread that all effects of a draw share: tails are heavy.
const FREEDOM: usize = 6;
/// Draws that are made together; they fit the cache of a core.
const BLOCK: usize = 256;
/// Normal numbers that all units' own deviations are taken from, each from its own place on.
const POOL: usize = 1 << 18;

/// The final votes of an area in each draw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AreaDraws {
    /// Two-party votes.
    pub votes: Vec<f64>,
    /// Votes of the first selection less those of the second.
    pub lead: Vec<f64>,
}

/// Votes of each selection of an area in each draw: a row a selection, in the order of the field.
pub(crate) type Rows = Vec<Vec<f64>>;

/// What all draws are made from.
pub(crate) struct Source<'a> {
    pub(crate) model: &'a Model,
    pub(crate) field: &'a Field<'a>,
    pub(crate) turnout: &'a Posterior,
    pub(crate) splits: &'a [Fitted],
    pub(crate) cells: &'a [Cell],
    pub(crate) seed: u64,
    pub(crate) draws: usize,
}

/// Effects of one quantity in a block of draws: a row an effect, a column a draw.
type Effects = Vec<Vec<f32>>;

impl Source<'_> {
    /// Adds what the cells bring to what is counted for certain in each area itself, and rolls everything up.
    pub(crate) fn draw(&self, certain: &[Vec<f64>]) -> Vec<Rows> {
        let fill = |votes: &Vec<f64>| votes.iter().map(|votes| vec![*votes; self.draws]).collect();
        let mut areas: Vec<Rows> = certain.iter().map(fill).collect();
        if !self.cells.is_empty() {
            let pool = self.pool();
            for (block, first) in (0..self.draws).step_by(BLOCK).enumerate() {
                self.block(block, first, &pool, &mut areas);
            }
        }
        for place in (1..areas.len()).rev() {
            if let Some(parent) = self.field.baseline.areas[place].parent {
                let (above, below) = areas.split_at_mut(place);
                above[parent].iter_mut().zip(&below[0]).for_each(|(into, from)| add(into, from));
            }
        }
        areas
    }

    fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        rng
    }

    fn pool(&self) -> Vec<f32> {
        let mut rng = self.rng(0);
        (0..POOL).map(|_| StandardNormal.sample(&mut rng)).collect()
    }

    fn block(&self, block: usize, first: usize, pool: &[f32], areas: &mut [Rows]) {
        let size = BLOCK.min(self.draws - first);
        let mut rng = self.rng(1 + block as u64);
        let spread: Vec<f32> = (0..size).map(|_| spread(&mut rng) * narrow(self.model.widening)).collect();
        let late = |part: fn(&Both) -> f64, scale: f64| {
            (part(&self.model.late) * scale, part(&self.model.late_local) * scale)
        };
        let mut effects = Vec::with_capacity(1 + self.splits.len());
        for Fitted { split, posterior } in self.splits {
            effects.push(self.effects(&mut rng, posterior, &spread, late(|both| both.margin, split.scale)));
        }
        let turnout = self.effects(&mut rng, self.turnout, &spread, late(|both| both.turnout, 1.0));
        let mut work = Work { all: vec![0.0; size], margin: vec![0.0; size], rest: vec![0.0; size] };
        for cell in self.cells {
            let noise = |which: u64| {
                let place = offset(self.seed, cell.unit, which) % (POOL - self.draws.min(POOL / 2));
                &pool[place..][first..][..size]
            };
            evaluate(&mut work.all, &cell.turnout, &turnout, noise(0));
            work.turn_out(cell);
            let (last, others) = split_last(&mut areas[cell.area]);
            let mut counted_rest: f64 = cell.counted.iter().sum();
            for (place, (into, effects)) in others.iter_mut().zip(&effects).enumerate() {
                evaluate(&mut work.margin, &cell.margins[place], effects, noise(1 + place as u64));
                counted_rest -= cell.counted[place];
                work.take(cell.counted[place], counted_rest, &mut into[first..][..size]);
            }
            last[first..][..size].iter_mut().zip(&work.rest).for_each(|(into, rest)| *into += rest);
        }
    }

    /// One row an effect, one column a draw; behind them what late units have in addition.
    fn effects(
        &self,
        rng: &mut ChaCha8Rng,
        of: &Posterior,
        spread: &[f32],
        (late, local): (f64, f64),
    ) -> Effects {
        let mut rows: Vec<Vec<f32>> = of.mean.iter().map(|_| normals(rng, spread.len())).collect();
        back_substitute(&of.factor, &mut rows);
        for (row, mean) in rows.iter_mut().zip(&of.mean) {
            row.iter_mut().zip(spread).for_each(|(value, s)| *value = narrow(*mean) + *value * s);
        }
        let baseline = self.field.baseline;
        let levels = baseline.local.map_or(0, |factor| baseline.factors[factor].levels);
        for sd in std::iter::once(late).chain(std::iter::repeat_n(local, levels)) {
            let row = normals(rng, spread.len());
            rows.push(row.iter().zip(spread).map(|(value, s)| value * s * narrow(sd)).collect());
        }
        rows
    }
}

/// Solves `Lᵀ x = e` for all draws at once, in place.
fn back_substitute(factor: &DMatrix<f64>, rows: &mut [Vec<f32>]) {
    let size = rows.len();
    for column in (0..size).rev() {
        let entries = &factor.as_slice()[column * size..][column..size];
        let (open, solved) = rows.split_at_mut(column + 1);
        let row = &mut open[column];
        let below = entries[1..].iter().zip(&*solved).filter(|(entry, _)| **entry != 0.0);
        add_rows(row, &below.map(|(entry, values)| (narrow(-entry), &values[..])).collect::<Vec<_>>());
        let divide = narrow(1.0 / entries[0]);
        row.iter_mut().for_each(|value| *value *= divide);
    }
}

fn evaluate(out: &mut [f32], linear: &Linear, effects: &[Vec<f32>], noise: &[f32]) {
    let (offset, sd) = (narrow(linear.offset), narrow(linear.sd));
    out.iter_mut().zip(noise).for_each(|(value, e)| *value = offset + sd * e);
    let terms = linear.entries.iter().map(|(column, entry)| (narrow(*entry), &effects[*column][..]));
    add_rows(out, &terms.collect::<Vec<_>>());
}

/// Adds rows, each times its factor. Four at a time: reading and writing the sum takes as long as all else.
fn add_rows(into: &mut [f32], terms: &[(f32, &[f32])]) {
    let (fours, rest) = terms.as_chunks::<4>();
    for [(a, first), (b, second), (c, third), (d, fourth)] in fours {
        let values = first.iter().zip(*second).zip(third.iter().zip(*fourth));
        for (sum, ((w, x), (y, z))) in into.iter_mut().zip(values) {
            *sum += (a * w + b * x) + (c * y + d * z);
        }
    }
    for (factor, values) in rest {
        into.iter_mut().zip(*values).for_each(|(sum, value)| *sum += factor * value);
    }
}

/// One cell in a block of draws.
struct Work {
    /// Logarithm of the turnout.
    all: Vec<f32>,
    margin: Vec<f32>,
    /// Votes that no selection has taken yet.
    rest: Vec<f64>,
}

impl Work {
    /// All votes of a cell, never fewer than are counted.
    fn turn_out(&mut self, cell: &Cell) {
        let counted: f64 = cell.counted.iter().sum();
        let each = self.rest.iter_mut().zip(&self.all);
        each.for_each(|(rest, turnout)| *rest = whole(cell.votes * f64::from(exp(*turnout))).max(counted));
    }

    /// What a selection takes of the rest: no less than it has already, and no vote that another has.
    fn take(&mut self, counted: f64, of_others: f64, into: &mut [f64]) {
        for ((rest, margin), into) in self.rest.iter_mut().zip(&self.margin).zip(into) {
            let share = 0.5 + 0.5 * f64::from(margin.clamp(-1.0, 1.0));
            let taken = whole(*rest * share).max(counted).min(*rest - of_others);
            *into += taken;
            *rest -= taken;
        }
    }
}

fn split_last(rows: &mut [Vec<f64>]) -> (&mut Vec<f64>, &mut [Vec<f64>]) {
    let Some((last, others)) = rows.split_last_mut() else { unreachable!("an area has a row a selection") };
    (last, others)
}

/// The nearest whole number, of a magnitude below 2⁵¹; ties go to the even one, so that it mirrors.
fn whole(value: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    (value + SHIFT) - SHIFT
}

/// The exponential function between -4 and 4, to five digits: only sums and products, so the same on every machine.
fn exp(value: f32) -> f32 {
    let x = value.clamp(-4.0, 4.0) * 0.0625;
    let series = 1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0)))));
    let square = series * series;
    let fourth = square * square;
    let eighth = fourth * fourth;
    eighth * eighth
}

#[expect(clippy::cast_possible_truncation, reason = "draws need seven digits")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn add(into: &mut [f64], from: &[f64]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
}

fn normals(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}

/// The root of ν over a χ² of ν degrees.
fn spread(rng: &mut ChaCha8Rng) -> f32 {
    let squares: f64 = (0..FREEDOM).map(|_| -> f64 { StandardNormal.sample(&mut *rng) }).map(|e| e * e).sum();
    narrow(libm::sqrt(FREEDOM as f64 / squares.max(1e-3)))
}

/// Where in the pool a unit's deviations of one quantity begin (splitmix64).
fn offset(seed: u64, unit: usize, which: u64) -> usize {
    let mut x = seed ^ (unit as u64 + 1 + (which << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((x ^ (x >> 31)) >> 1).unwrap_or(0)
}
