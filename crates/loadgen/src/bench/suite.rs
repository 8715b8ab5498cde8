//! The tables of docs/BENCHMARKS.md, one command each.
//!
//! A table starts its servers itself, pins them to one core and the load to another, lets the subject and what
//! it is compared with run in turn, and checks every count to the last vote.

mod bare;
mod canvass;
mod crowd;
mod drive;
mod fold;
mod http;
mod ingest;
mod latency;
mod legs;
mod nginx;
mod night;
mod overload;
mod peers;
mod proof;
mod read;
mod report;
mod screen;
mod stage;
mod stream;
mod timed;
mod votes;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

pub use bare::serve as serve_bare;
pub use fold::Options as FoldOptions;
pub use latency::Options as TimeOptions;
pub use legs::Options as LegOptions;
pub use report::{Aim, Bound, Row, Table};
pub use stage::Stage;
pub use stream::Options as StreamOptions;

use super::ingest::Signer;
use crate::client::Error;

/// The core that servers run on.
const SERVER_CORE: usize = 0;
/// The core that loads run on.
const LOAD_CORE: usize = 1;

/// Why a table could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault(error.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault(error.to_string())
    }
}

/// What the suite needs from the binary it is part of.
pub struct Setup {
    /// The binary itself, which is started as server.
    pub binary: PathBuf,
    /// Makes a signer of voters' tokens from the secret of a data folder and the id of an election.
    pub signer: fn(&Path, &str) -> Result<Signer, String>,
}

/// What all tables share.
pub struct Suite {
    stage: Arc<Stage>,
    setup: Setup,
    runtime: Runtime,
}

impl Suite {
    /// Pins this process to the load's core, and takes as many descriptors as it may.
    pub fn new(stage: Arc<Stage>, setup: Setup) -> Result<Self, Fault> {
        stage::pin_this_process(LOAD_CORE)?;
        stage::raise_descriptors()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Suite { stage, setup, runtime })
    }
}
