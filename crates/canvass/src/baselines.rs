//! Baseline files: named by a definition, kept in the data folder, so that a later start needs no more than that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use canvass_election::Definition;
use canvass_protocol::baseline;

use crate::keys::Folder;
use crate::listed;

/// Texts of baseline files, by the contests' text ids.
pub(crate) type Baselines = BTreeMap<String, String>;

/// Reads what a definition in this file names, beside it, and checks that it fits.
pub(crate) fn beside(file: &Path, definition: &Definition) -> Result<Baselines, String> {
    let mut baselines = Baselines::new();
    for (id, contest) in definition.contest_ids() {
        let Some(name) = &contest.baseline else { continue };
        let path = file.parent().unwrap_or(Path::new("")).join(name);
        let text = std::fs::read_to_string(&path).map_err(|e| {
            format!("the baseline of the contest `{}`, {}, cannot be read: {e}", contest.id, path.display())
        })?;
        baseline::parse(&text, definition, id).map_err(|faults| listed(&path, &faults))?;
        baselines.insert(contest.id.clone(), text);
    }
    Ok(baselines)
}

fn kept(folder: &Folder, contest: &str) -> PathBuf {
    folder.0.join("baselines").join(format!("{contest}.csv"))
}

/// Keeps baselines in the data folder.
pub(crate) fn keep(folder: &Folder, baselines: &Baselines) -> Result<(), String> {
    for (contest, text) in baselines {
        let path = kept(folder, contest);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(&path, text));
        written.map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
    }
    Ok(())
}

/// Those that the data folder keeps. One that is missing costs the projections of its contest, and nothing else.
pub(crate) fn of_folder(folder: &Folder, definition: &Definition) -> Baselines {
    let mut baselines = Baselines::new();
    for contest in definition.contests.iter().filter(|contest| contest.baseline.is_some()) {
        let path = kept(folder, &contest.id);
        match std::fs::read_to_string(&path) {
            Ok(text) => _ = baselines.insert(contest.id.clone(), text),
            Err(error) => tracing::warn!(
                contest = contest.id,
                path = %path.display(),
                %error,
                "the contest has no projection without its baseline; start with --election to read it again"
            ),
        }
    }
    baselines
}
