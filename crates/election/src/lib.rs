//! The domain of Canvass: what an election is, what can happen to it, and how the events add up.
//!
//! Everything here is a pure function of its arguments. Nothing fails, waits, reads a clock, draws a random
//! number or depends on the order of a hash map: the same records give the same [`Tally`] and the same
//! [`Digest`], today and in an audit years from now.

pub mod definition;
pub mod event;
pub mod ids;
pub mod results;
pub mod tally;

pub use definition::Definition;
pub use event::{Event, Record};
pub use results::{Merge, Results};
pub use tally::{Digest, Outcome, Tally};
