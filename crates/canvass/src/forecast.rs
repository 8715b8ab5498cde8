//! `canvass forecast`: computes a projection again, from the log of a data folder and its baseline alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::Definition;
use canvass_election::ids::ContestId;
use canvass_engine::{At, Engine, Options, stored_definition};
use canvass_log::{FileLog, Log};
use canvass_protocol::stream::Seq;
use clap::Args;

use crate::keys::Folder;
use crate::{Outcome, baselines, say};

#[derive(Args)]
pub(crate) struct ForecastArgs {
    /// The data folder of a server that is not running, or a copy of one
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    data: PathBuf,
    /// Text id of the contest; needed where several have a baseline
    #[arg(long, value_name = "ID")]
    contest: Option<String>,
    /// Text id of the unit; the contest's district where none is named
    #[arg(long, value_name = "ID")]
    unit: Option<String>,
    /// The number of a publication that showed the projection
    #[arg(long, value_name = "EPOCH:SEQ")]
    at: String,
}

/// The contest that is meant.
fn contest(definition: &Definition, named: Option<&str>) -> Result<ContestId, String> {
    if let Some(id) = named {
        return definition.contest_by_id(id).ok_or_else(|| format!("the election has no contest `{id}`"));
    }
    let mut with = definition.contest_ids().filter(|(_, contest)| contest.baseline.is_some());
    match (with.next(), with.next()) {
        (Some((id, _)), None) => Ok(id),
        (None, _) => Err("no contest of the election names a baseline, so nothing is projected".to_owned()),
        (Some(_), Some(_)) => Err("several contests have a baseline: name one with --contest".to_owned()),
    }
}

/// Prints the projection as the documents of that number have it.
pub(crate) async fn run(args: ForecastArgs) -> Outcome {
    let seq: Seq =
        args.at.parse().map_err(|()| format!("`{}` is no number such as 1795419136:7", args.at))?;
    let folder = Folder(args.data);
    let journal = folder.journal();
    if !journal.is_dir() {
        return Err(format!("{} is no data folder: it holds no journal", folder.0.display()));
    }
    let (log, _) = FileLog::open(&journal).map_err(|e| e.to_string())?;
    let log = Arc::new(log);
    let definition = stored_definition(&*log).await.map_err(|e| e.to_string())?;
    let definition = definition.ok_or("the log is empty")?;
    let id = contest(&definition, args.contest.as_deref())?;
    let contest = &definition.contests[id.index()];
    let unit = match &args.unit {
        None => contest.unit,
        Some(unit) => {
            definition.unit_by_id(unit).ok_or_else(|| format!("the election has no unit `{unit}`"))?
        }
    };
    let options = Options {
        baselines: baselines::of_folder(&folder, &definition),
        folder: Some(folder.0),
        tick: Duration::from_secs(60),
        audit: None,
        secret: None,
        only_read: true,
    };
    let engine = Engine::start(Arc::clone(&log), None, options).await.map_err(|e| e.to_string())?;
    let published = engine.results_at(At::Seq(seq));
    engine.stop().await;
    log.close().await;
    let published = published.ok_or_else(|| format!("nothing was published under {seq}"))?;
    let projection = published.contests[id.index()].projection.as_ref();
    let value = projection.and_then(|projection| projection.value(contest, unit));
    say(value.ok_or_else(|| {
        format!("{seq} showed no projection of that, or one from another baseline or model")
    })?);
    Ok(())
}
