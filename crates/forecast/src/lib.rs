//! Projects how contests will end while only some of their units are in, and not a random part.
//!
//! Pure: no clock, no I/O, no hidden state. The same baseline, observations, model and seed give the same draws, byte
//! for byte.
//!
//! A [`Baseline`] says how each unit voted last time and what it is like. [`Model::learn`] learns from past pairs of
//! elections how far things move. [`project`] takes what was [`Seen`] of each unit and gives joint draws of every area:
//! within a draw, units add up to areas and areas to the whole, so all intervals agree with each other. [`project_each`]
//! does the same for contests with any number of selections.

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
mod project;
mod summary;

pub use baseline::{
    Area, Baseline, BaselineError, Factor, MAX_AREAS, MAX_COLUMNS, MAX_UNITS, MAX_VOTES, Seen, Unit,
};
pub use cells::MAX_CELLS;
pub use design::groups;
pub use draws::AreaDraws;
pub use each::{Each, EachSummary, MAX_SELECTIONS, project_each};
pub use learn::Past;
pub use model::{Both, LEAST, Model, ORDER, ORDER_LOCAL, PART, UnitVariance};
pub use project::{DRAWS, MAX_DRAWS, MIN_DRAWS, ProjectError, Projection, project};
pub use summary::{LEAST_CHANCE, Range, Summary};
