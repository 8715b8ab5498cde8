//! `canvass digest`: folds a whole log and prints what it adds up to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canvass_engine::{Engine, Options};
use canvass_log::{FileLog, Log};
use clap::Args;

use crate::kafka::KafkaArgs;
use crate::keys::Folder;
use crate::{Outcome, say};

#[derive(Args)]
pub(crate) struct DigestArgs {
    /// The data folder of a server that is not running
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    data: PathBuf,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Prints one line a partition: its name, and the digest of its state after every record, without snapshots.
pub(crate) async fn run(args: DigestArgs) -> Outcome {
    if let Some(log) = args.kafka.open(None).await? {
        return print(log).await;
    }
    let journal = Folder(args.data).journal();
    if !journal.is_dir() {
        return Err(format!("{} is no data folder: it holds no journal", journal.display()));
    }
    let (log, _) = FileLog::open(&journal).map_err(|e| e.to_string())?;
    print(log).await
}

async fn print<L: Log>(log: L) -> Outcome {
    let log = Arc::new(log);
    let options = Options {
        folder: None,
        tick: Duration::from_secs(60),
        audit: None,
        secret: None,
        only_read: true,
        baselines: BTreeMap::new(),
    };
    let engine = Engine::start(Arc::clone(&log), None, options).await.map_err(|e| e.to_string())?;
    for (partition, digest) in engine.digests() {
        say(format_args!("{partition} {digest}"));
    }
    engine.stop().await;
    log.close().await;
    Ok(())
}
