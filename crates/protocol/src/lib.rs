//! The bytes and JSON of Canvass, and nothing that moves them.

pub mod anchors;
pub mod api;
pub mod baseline;
pub mod definition;
pub mod document;
pub mod interchange;
pub mod patch;
pub mod problem;
pub mod projection;
pub mod record;
pub mod stream;
pub mod time;
