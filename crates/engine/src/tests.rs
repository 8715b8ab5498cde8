//! The engine as a whole, on logs that work and on logs that do not.

mod faulty;
mod life;
mod past;
mod publishing;
mod taking;
pub(crate) mod world;
