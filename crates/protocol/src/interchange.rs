//! Formats of others, turned into definitions and returns.

pub mod nc;
