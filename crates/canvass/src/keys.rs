//! `canvass key` and `canvass token`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use canvass_http::auth::{self, Role, Signer};
use canvass_tlog::SecretKey;
use clap::{Args, Subcommand, ValueEnum};

use crate::{Outcome, say};

/// The data folder's files.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn make(&self) -> Result<(), String> {
        std::fs::create_dir_all(&self.0)
            .map_err(|e| format!("the data folder {} cannot be made: {e}", self.0.display()))
    }

    /// Keeps other processes out of the folder as long as what it returns is held.
    pub(crate) fn lock(&self) -> Result<File, String> {
        let path = self.0.join("lock");
        let file = File::create(&path).map_err(|e| format!("{} cannot be made: {e}", path.display()))?;
        let in_use = || {
            format!("{} is in use by another process: stop it, or choose another folder", self.0.display())
        };
        file.try_lock().map_err(|_| in_use())?;
        Ok(file)
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys.toml")
    }

    /// Where the key is that pays for anchors, unless another is named.
    pub(crate) fn anchor_key(&self) -> PathBuf {
        self.0.join("anchor.secret")
    }

    /// The secret behind voters' pseudonyms.
    pub(crate) fn voter_secret(&self) -> Result<[u8; 32], String> {
        secret(&self.0.join("voters.secret"))
    }

    /// The secret that signs voters' tokens.
    pub(crate) fn token_secret(&self) -> Result<[u8; 32], String> {
        secret(&self.0.join("tokens.secret"))
    }

    /// The key that signs the log, made with this name where there is none.
    pub(crate) fn log_key(&self, name: &str) -> Result<SecretKey, String> {
        let path = self.0.join("log.secret");
        let make = || SecretKey::generate(name).map(|key| key.to_secret_text()).map_err(io::Error::other);
        let key = auth::private_file(&path, make).map_err(|e| e.to_string());
        let key = key.and_then(|text| text.parse::<SecretKey>().map_err(|e| e.to_string()));
        key.map_err(|e| format!("the key of the log, {}: {e}", path.display()))
    }
}

fn secret(path: &Path) -> Result<[u8; 32], String> {
    auth::secret_file(path).map_err(|e| format!("the secret file {}: {e}", path.display()))
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Casts votes for voters it names
    Collector,
    /// Sends returns, recount returns and corrections
    Source,
    /// Corrects, releases, rejects, recounts, calls, closes, certifies
    Desk,
    /// Looks up any voter's vote
    Auditor,
    /// Reads /metrics
    Monitor,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, print it once, and keep its hash
    Add(AddArgs),
    /// Print the public key that signs the log: whoever verifies it must have this from somewhere else than the server
    Log(LogArgs),
}

#[derive(Args)]
pub(crate) struct LogArgs {
    /// The data folder of the server
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    data: PathBuf,
    /// Make the key, before the server's first start, with this name for the log, such as count.example/spring
    #[arg(long)]
    name: Option<String>,
}

/// Prints the public key of the log, which is made only where it gets a name.
fn log_key(args: &LogArgs) -> Outcome {
    let folder = Folder(args.data.clone());
    let path = folder.0.join("log.secret");
    let key = match (&args.name, path.exists()) {
        (None, false) => {
            let advice = "it is made when the server first starts, or with --name";
            return Err(format!("there is no key of the log in {}: {advice}", folder.0.display()));
        }
        (Some(name), false) => {
            folder.make()?;
            folder.log_key(name)?
        }
        (name, true) => {
            let key = folder.log_key("")?;
            if name.as_ref().is_some_and(|name| name != key.name()) {
                return Err(format!("the log has a name, `{}`, and keeps it", key.name()));
            }
            key
        }
    };
    say(key.public());
    Ok(())
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// The data folder of the server
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    data: PathBuf,
    /// The name under which the key's acts stand in the public log
    #[arg(long)]
    name: String,
    /// What the key may do; may be given several times
    #[arg(long, required = true, value_name = "ROLE")]
    role: Vec<RoleArg>,
}

pub(crate) fn key(command: &KeyCommand) -> Outcome {
    let args = match command {
        KeyCommand::Log(args) => return log_key(args),
        KeyCommand::Add(args) => args,
    };
    let name = args.name.trim();
    if name.is_empty() || name.len() > 100 {
        return Err("a key's name has 1 to 100 bytes".to_owned());
    }
    let folder = Folder(args.data.clone());
    folder.make()?;
    let roles: Vec<Role> = args
        .role
        .iter()
        .map(|role| match role {
            RoleArg::Collector => Role::Collector,
            RoleArg::Source => Role::Source,
            RoleArg::Desk => Role::Desk,
            RoleArg::Auditor => Role::Auditor,
            RoleArg::Monitor => Role::Monitor,
        })
        .collect();
    let key = auth::add_key(&folder.keys(), name, &roles).map_err(|e| e.to_string())?;
    say(key);
    Ok(())
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Sign a voter's token and print it
    Issue(IssueArgs),
}

#[derive(Args)]
pub(crate) struct IssueArgs {
    /// The data folder of the server
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    data: PathBuf,
    /// The election's id, as its definition gives it
    #[arg(long, value_name = "ID")]
    audience: String,
    /// The voter, by any name that stays the same
    #[arg(long)]
    voter: String,
    /// A contest that the token is good for; may be given several times; all contests where not given
    #[arg(long)]
    contest: Vec<String>,
    /// Sign with this Ed25519 private key (PEM), for servers that have its public one, not with the folder's secret
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// How long the token is good for
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    hours: u64,
}

pub(crate) fn token(command: &TokenCommand) -> Outcome {
    let TokenCommand::Issue(args) = command;
    let contests = (!args.contest.is_empty()).then(|| args.contest.clone());
    let lifetime = Duration::from_secs(args.hours.saturating_mul(3_600));
    let issue = |signer| auth::issue_token(signer, &args.audience, &args.voter, contests, lifetime);
    let token = match &args.signing_key {
        Some(file) => {
            let pem = std::fs::read(file).map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
            issue(Signer::Authority(&pem))?
        }
        None => {
            let folder = Folder(args.data.clone());
            folder.make()?;
            issue(Signer::Server(&folder.token_secret()?))?
        }
    };
    say(token);
    Ok(())
}
