//! Everything that speaks HTTP: the gateway that takes events in, the edge that shows results, and the pages.

pub mod auth;
mod body;
mod calls;
pub mod changes;
mod confirmation;
mod desk;
mod edge;
mod gateway;
mod lane;
mod limit;
mod metrics;
mod pages;
mod proof;
mod reads;
mod reply;
pub mod server;
mod stream;
mod vote;

use std::sync::Arc;

use canvass_election::Definition;
use canvass_engine::{Engine, Secret};
use canvass_protocol::anchors::Anchors;

pub use edge::{Body, DocumentKey, Edge};
pub use limit::Limits;
pub use metrics::Metrics;

/// Tells how far the log's anchors are.
pub type Anchored = Arc<dyn Fn() -> Anchors + Send + Sync>;

/// What every handler can reach.
pub struct App {
    /// The election as it is counted.
    pub engine: Arc<Engine>,
    /// Turns voters into pseudonyms.
    pub secret: Secret,
    /// API keys of sources, collectors and the desk.
    pub keys: auth::Keys,
    /// Checks voters' tokens.
    pub tokens: auth::Tokens,
    /// Prepared answers.
    pub edge: Edge,
    /// Limits of rate and number.
    pub limits: Limits,
    /// The log's anchors, where it is anchored.
    pub anchors: Option<Anchored>,
    /// What is counted for operators.
    pub metrics: Metrics,
}

impl App {
    /// The election that is counted.
    pub fn definition(&self) -> &Arc<Definition> {
        self.engine.definition()
    }
}
