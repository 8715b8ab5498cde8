//! Drives a running Canvass from outside, through its public API alone.
//!
//! [`replay`] sends a recorded night, [`night`] plays a fictional one for the demo, and [`bench`] measures a
//! server while it knows exactly what must have been counted at the end.

pub mod batch;
pub mod bench;
pub mod client;
pub mod night;
pub mod pace;
pub mod replay;

pub use client::{Client, Error};
pub use pace::{Pace, Stop};
