//! Projects how contests will end while only some of their units are in, and not a random part.
//!
//! Pure: no clock, no I/O, no hidden state. The same baseline, observations, model and seed give the same draws, byte
//! for byte.
//!
//! A [`Baseline`] says how each unit voted last time and what it is like. [`Model::learn`] learns from past pairs of
//! elections how far things move. [`project`] takes what was [`Seen`] of each unit and gives joint draws of every area:
//! within a draw, units add up to areas and areas to the whole, so all intervals agree with each other. [`project_each`]
//! does the same for contests with any number of selections.
//!
//! # Numbers that need a look
//!
//! None of these says why a number is odd, and none is proof of anything but that somebody should look. [`screen`]
//! compares every unit with what the others say of it and gives back what may be believed: pass [`Screened::believed`]
//! to [`project`], so that the fit does not learn from what may be a slip. [`against_peers`] is for shares that should be
//! alike (of undervotes among ballots, of a count type among votes), [`fell`] for a selection that lost votes while others
//! gained, [`longest_silence`] for a source that says nothing; [`benjamini_hochberg`] keeps the number of false alarms of
//! one look in proportion to the true ones.

mod anomaly;
mod baseline;
mod cells;
mod design;
mod draws;
mod each;
mod field;
mod fit;
mod learn;
mod model;
mod night;
mod peers;
mod project;
mod summary;

pub use anomaly::{Finding, Kind, Screened, screen};
pub use baseline::{
    Area, Baseline, BaselineError, Factor, MAX_AREAS, MAX_COLUMNS, MAX_UNITS, MAX_VOTES, Seen, Unit,
};
pub use cells::MAX_CELLS;
pub use design::groups;
pub use draws::AreaDraws;
pub use each::{Each, EachSummary, MAX_SELECTIONS, project_each};
pub use learn::Past;
pub use model::{Both, LEAST, Model, ORDER, ORDER_LOCAL, PART, UnitVariance};
pub use peers::{against_peers, benjamini_hochberg, fell, longest_silence};
pub use project::{DRAWS, MAX_DRAWS, MIN_DRAWS, ProjectError, Projection, project};
pub use summary::{LEAST_CHANCE, Range, Summary};
