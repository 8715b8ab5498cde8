//! `canvass bench forecast`: projections of past elections beside elex-model's, and of the night in North Carolina.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use canvass_loadgen::bench::forecast::{self, Elex, Input, PACKAGE, Progress, counties};
use canvass_protocol::interchange::nc;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{Outcome, say, tools};

/// The tables, in their folder.
const TABLES: &str = "forecast.md";

#[derive(Args)]
pub(crate) struct ForecastArgs {
    /// Table of counties with four presidential elections and their covariates (CSV, may be packed)
    #[arg(long, value_name = "FILE")]
    counties: PathBuf,
    /// Feed of precincts of North Carolina's night in 2020, to rehearse it (CSV, may be packed)
    #[arg(long, value_name = "FILE")]
    night: Option<PathBuf>,
    /// Run elex-model beside, from PyPI, in this folder; what it said is kept there, so that a run goes on where it
    /// stopped. An update takes it 3 to 60 s
    #[arg(long, value_name = "DIR")]
    elex: Option<PathBuf>,
    /// Seeds of each order by chance
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=2))]
    seeds: u64,
    /// Write the tables and the diagrams into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &ForecastArgs) -> Outcome {
    let named = |path: &Path, e: String| format!("{}: {e}", path.display());
    let table = counties::read(tools::open(&args.counties)?);
    let counties = table.map_err(|e| named(&args.counties, e.to_string()))?;
    let feed = |path: &PathBuf| nc::read(tools::open(path)?).map_err(|e| named(path, e.to_string()));
    let feed = args.night.as_ref().map(feed).transpose()?;
    let bar = bar();
    let install = |folder: &Path| {
        tell(&bar, &Progress { done: 0, of: 1, what: format!("installing {PACKAGE}, once") });
        Elex::install(folder).map_err(|e| e.to_string())
    };
    let elex = args.elex.as_deref().map(install).transpose()?;
    let input = Input { counties, feed, elex, seeds: args.seeds };
    let report = forecast::run(&input, &mut |progress| tell(&bar, progress)).map_err(|e| e.to_string())?;
    bar.finish_and_clear();
    if let Some(folder) = &args.out {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|e| named(&path, e.to_string()))
        };
        fs::create_dir_all(folder).map_err(|e| named(folder, e.to_string()))?;
        write(TABLES, &report.to_string())?;
        for pair in &report.pairs {
            write(&format!("reliability-{}.svg", pair.year), &pair.diagram())?;
        }
    }
    say(&report);
    Ok(())
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// A bar on a terminal, a line of JSON for each step elsewhere.
fn tell(bar: &ProgressBar, progress: &Progress) {
    bar.set_length(progress.of as u64);
    bar.set_position(progress.done as u64);
    bar.set_message(progress.what.clone());
    if bar.is_hidden() {
        let line = serde_json::to_string(progress).unwrap_or_default();
        // Whoever reads the progress may go away; the benchmark goes on.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
