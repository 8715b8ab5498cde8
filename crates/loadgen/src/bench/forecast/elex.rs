//! elex-model (The Washington Post) on the same baseline, covariates and counties, in a Python of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use canvass_forecast::Baseline;
use serde::Deserialize;

use super::counties::{COVARIATES, County};
use super::{Case, Fault, Pair, Update};

/// What is installed; its estimates differ from version to version.
pub const PACKAGE: &str = "elex-model==2.2.5";
const SCRIPT: &str = include_str!("elex.py");
/// Covariates that follow from the votes, as Canvass makes them too.
const OF_VOTES: [&str; 2] = ["previous_swing", "log_size"];
/// Standardised covariates are cut off here, as in the projection.
const CLIP: f64 = 3.0;

/// A Python with elex-model, and a folder that keeps what it said.
#[derive(Debug, Clone)]
pub struct Elex {
    python: PathBuf,
    cache: PathBuf,
}

/// What elex-model said of one update, in votes for the margin of states, and from -1 to 1 for that of the nation.
#[derive(Debug, Deserialize)]
struct Answer {
    seconds: f64,
    nation: Estimate,
    states: BTreeMap<String, Estimate>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Estimate {
    middle: f64,
    #[serde(rename = "0.9")]
    inner: (f64, f64),
    #[serde(rename = "0.99")]
    outer: (f64, f64),
}

impl Estimate {
    fn case(self, truth: f64) -> Case {
        let points = |(low, high): (f64, f64)| (low * 100.0, high * 100.0);
        let (inner, outer) = (points(self.inner), points(self.outer));
        Case { middle: self.middle * 100.0, inner, outer, crps: None, rank: None, truth }
    }
}

impl Elex {
    /// Installs elex-model into `folder`, unless it is there, and keeps its answers beside it.
    ///
    /// # Errors
    /// There is no Python with `venv`, or the package cannot be installed.
    pub fn install(folder: &Path) -> Result<Self, Fault> {
        let (venv, cache) = (folder.join("venv"), folder.join("cells"));
        fs::create_dir_all(&cache).map_err(|e| Fault(format!("{}: {e}", cache.display())))?;
        let python = venv.join("bin/python");
        let ready = venv.join("installed");
        if fs::read_to_string(&ready).ok().as_deref() != Some(PACKAGE) {
            let mut create = Command::new("python3");
            done(
                create.args(["-m", "venv", "--clear"]).arg(&venv),
                "python3 -m venv (needs Python 3.11 or later)",
            )?;
            let mut install = Command::new(&python);
            done(install.args(["-m", "pip", "install", "--quiet", PACKAGE]), "pip install elex-model")?;
            fs::write(&ready, PACKAGE).map_err(|e| Fault(format!("{}: {e}", ready.display())))?;
        }
        Ok(Elex { python, cache })
    }

    /// What elex-model says where Canvass said `update`, of the same areas; kept for the next time.
    ///
    /// # Errors
    /// elex-model failed, or said nothing of an area.
    pub fn update(&self, counties: &[County], pair: &Pair, update: &Update) -> Result<Update, Fault> {
        let table = table(counties, pair, update)?;
        let fingerprint = crc32c::crc32c_append(crc32c::crc32c(SCRIPT.as_bytes()), &table);
        let name = format!(
            "{}-{}-{:02}-{fingerprint:08x}.json",
            pair.now,
            update.order.name().replace(' ', "-"),
            update.stage
        );
        let path = self.cache.join(name);
        let said = match fs::read(&path) {
            Ok(said) => said,
            Err(_) => {
                let said = self.ask(&table)?;
                let aside = path.with_extension("part");
                let kept = fs::write(&aside, &said).and_then(|()| fs::rename(&aside, &path));
                kept.map_err(|e| Fault(format!("{}: {e}", path.display())))?;
                said
            }
        };
        let answer: Answer =
            serde_json::from_slice(&said).map_err(|e| Fault(format!("{}: {e}", path.display())))?;
        let codes: BTreeMap<usize, &str> =
            super::counties::numbered(counties).into_iter().map(|(code, number)| (number, code)).collect();
        let of = |(number, case): &(usize, Case)| {
            let code = codes[number];
            let said =
                answer.states.get(code).ok_or_else(|| Fault(format!("elex-model is silent on {code}")))?;
            Ok((*number, said.case(case.truth)))
        };
        let states = update.states.iter().map(of).collect::<Result<_, Fault>>()?;
        let nation = answer.nation.case(update.nation.truth);
        Ok(Update { seconds: answer.seconds, nation, states, ..*update })
    }

    fn ask(&self, table: &[u8]) -> Result<Vec<u8>, Fault> {
        let features: Vec<&str> = OF_VOTES.iter().chain(&COVARIATES).copied().collect();
        let features = serde_json::to_string(&features).map_err(|e| Fault(e.to_string()))?;
        let mut command = Command::new(&self.python);
        command
            .args(["-c", SCRIPT, &features])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for threads in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
            command.env(threads, "1");
        }
        let fault = |e: std::io::Error| Fault(format!("elex-model: {e}"));
        let mut child = command.spawn().map_err(fault)?;
        let mut input = child.stdin.take();
        if let Some(input) = &mut input {
            input.write_all(table).map_err(fault)?;
        }
        drop(input);
        let output = child.wait_with_output().map_err(fault)?;
        let last_line = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).lines().last().unwrap_or("it said nothing").to_owned()
        };
        if !output.status.success() {
            return Err(Fault(format!("elex-model: {}", last_line(&output.stderr))));
        }
        Ok(last_line(&output.stdout).into_bytes())
    }
}

fn done(command: &mut Command, what: &str) -> Result<(), Fault> {
    let output = command.output().map_err(|e| Fault(format!("{what}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault(format!("{what}: {}", said.lines().last().unwrap_or("it failed"))))
}

/// The table of units that `elex.py` reads.
fn table(counties: &[County], pair: &Pair, update: &Update) -> Result<Vec<u8>, Fault> {
    let places = update.order.places(counties, pair.before);
    let mut is_in = vec![false; counties.len()];
    places[..places.len() * update.stage / 100].iter().for_each(|place| is_in[*place] = true);
    let columns = features(&pair.baseline);
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fixed = ["geographic_unit_fips", "county_fips", "postal_code", "county_classification", "region"];
    let votes = ["baseline_dem", "baseline_gop", "baseline_turnout", "results_dem", "results_gop"];
    let rest = ["results_turnout", "is_in"];
    let header = fixed.iter().chain(&votes).chain(&rest).chain(&OF_VOTES).chain(&COVARIATES);
    let fault = |e: csv::Error| Fault(e.to_string());
    writer.write_record(header).map_err(fault)?;
    for (place, county) in counties.iter().enumerate() {
        let levels = &pair.baseline.units[place].levels;
        let ([dem, gop], [now_dem, now_gop]) = (pair.baseline.units[place].votes, pair.finals[place]);
        let counts = [dem, gop, dem + gop, now_dem, now_gop, now_dem + now_gop, u64::from(is_in[place])];
        let words = [&county.fips, &county.fips, &county.st].map(Clone::clone).into_iter();
        let codes = [format!("class {}", levels[2]), format!("region {}", levels[0])];
        let numbers = columns.iter().map(|column| format!("{:?}", column[place]));
        let row = words.chain(codes).chain(counts.map(|count| count.to_string())).chain(numbers);
        writer.write_record(row).map_err(fault)?;
    }
    writer.into_inner().map_err(|e| Fault(e.to_string()))
}

/// Covariates, each over all units, standardised and clipped as in the projection: elex-model does not do so itself.
fn features(baseline: &Baseline) -> Vec<Vec<f64>> {
    let total = |votes: [u64; 2]| (votes[0] + votes[1]).max(1) as f64;
    let margin = |votes: [u64; 2]| (votes[0] as f64 - votes[1] as f64) / total(votes);
    let units = &baseline.units;
    let swing =
        units.iter().map(|unit| unit.before.map_or(0.0, |before| margin(unit.votes) - margin(before)));
    let size = units.iter().map(|unit| total(unit.votes).ln());
    let mut all: Vec<Vec<f64>> = vec![swing.collect(), size.collect()];
    all.extend((0..COVARIATES.len()).map(|place| units.iter().map(|unit| unit.covariates[place]).collect()));
    for values in &mut all {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let sd = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count).sqrt();
        values
            .iter_mut()
            .for_each(|v| *v = if sd > 0.0 { ((*v - mean) / sd).clamp(-CLIP, CLIP) } else { 0.0 });
    }
    all
}
