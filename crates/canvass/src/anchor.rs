//! Anchors on a chain: the server's options, and `canvass anchor deploy`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canvass_anchor::{Address, Anchor, Config, DeployError, Deployed, Key, Rpc, RpcError};
use canvass_engine::Audit;
use canvass_http::auth::private_file;
use clap::{Args, Subcommand};

use crate::keys::Folder;
use crate::{Outcome, say};

/// The chain and the contract on it.
#[derive(Args, Clone, Default)]
pub(crate) struct ChainArgs {
    /// A node of the Ethereum-compatible chain on which the log is anchored
    // Its address may hold a customer's key.
    #[arg(
        long,
        env = "CANVASS_ANCHOR_RPC",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub(crate) anchor_rpc: Option<String>,
    /// The address of the contract, as `canvass anchor deploy` has printed it
    #[arg(long, env = "CANVASS_ANCHOR_CONTRACT", value_name = "ADDRESS")]
    pub(crate) anchor_contract: Option<Address>,
}

impl ChainArgs {
    /// The node and the contract; `None` where neither was given.
    pub(crate) fn open(&self) -> Result<Option<(Rpc, Address)>, String> {
        match (&self.anchor_rpc, self.anchor_contract) {
            (None, None) => Ok(None),
            (Some(rpc), Some(contract)) => Ok(Some((open(rpc)?, contract))),
            (Some(_), None) => {
                Err("--anchor-rpc needs --anchor-contract; `canvass anchor deploy` makes one".into())
            }
            (None, Some(_)) => Err("--anchor-contract needs --anchor-rpc, a node of its chain".into()),
        }
    }
}

fn open(rpc: &str) -> Result<Rpc, String> {
    Rpc::new(rpc).map_err(|e| format!("--anchor-rpc: {e}"))
}

#[derive(Args, Clone, Default)]
pub(crate) struct AnchorArgs {
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    /// The key that pays for anchors and made the contract; DATA/anchor.secret where not given
    #[arg(long, env = "CANVASS_ANCHOR_KEY", value_name = "FILE")]
    pub(crate) anchor_key: Option<PathBuf>,
    /// Seconds between two anchors; nothing is anchored while nothing is recorded
    #[arg(long, env = "CANVASS_ANCHOR_SECONDS", value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) anchor_seconds: u64,
}

impl AnchorArgs {
    /// Starts anchoring, where a chain was named.
    pub(crate) fn start(
        &self,
        folder: &Folder,
        audit: Option<&Arc<Audit>>,
    ) -> Result<Option<Anchor>, String> {
        let Some((rpc, contract)) = self.chain.open()? else { return Ok(None) };
        let audit = Arc::clone(audit.ok_or("a log that is not published cannot be anchored")?);
        let file = self.anchor_key.clone().unwrap_or_else(|| folder.anchor_key());
        let key = Key::read(&file).map_err(|e| {
            format!("the key that anchors, {}: {e}; `canvass anchor deploy` makes one", file.display())
        })?;
        let interval = Duration::from_secs(self.anchor_seconds);
        let config = Config { rpc, contract, key, interval, folder: folder.0.clone() };
        let origin = audit.key().name().to_owned();
        let own = Arc::clone(&audit);
        let anchor = Anchor::start(config, &origin, move || own.meta().tiles().clone());
        let anchor = anchor.map_err(|e| e.to_string())?;
        // Pages say how far the anchors are, and are made anew when that changes.
        let mut status = anchor.watch();
        tokio::spawn(async move {
            while status.changed().await.is_ok() {
                audit.renew();
            }
        });
        Ok(Some(anchor))
    }
}

#[derive(Subcommand)]
pub(crate) enum AnchorCommand {
    /// Put the contract on a chain, and make the key that pays where there is none
    Deploy(DeployArgs),
}

#[derive(Args)]
pub(crate) struct DeployArgs {
    /// The data folder of the server
    #[arg(long, env = "CANVASS_DATA", value_name = "DIR", default_value = "canvass-data")]
    data: PathBuf,
    /// A node of the chain
    #[arg(
        long,
        env = "CANVASS_ANCHOR_RPC",
        value_name = "URL",
        hide_env_values = true,
        hide_default_value = true
    )]
    anchor_rpc: String,
    /// The key that pays and will anchor; DATA/anchor.secret where not given
    #[arg(long, env = "CANVASS_ANCHOR_KEY", value_name = "FILE")]
    anchor_key: Option<PathBuf>,
}

pub(crate) async fn run(command: AnchorCommand) -> Outcome {
    let AnchorCommand::Deploy(args) = command;
    let rpc = open(&args.anchor_rpc)?;
    let folder = Folder(args.data);
    folder.make()?;
    let file = args.anchor_key.unwrap_or_else(|| folder.anchor_key());
    let key = private_file(&file, Key::generate).and_then(|text| text.parse::<Key>());
    let key = key.map_err(|e| format!("the key that anchors, {}: {e}", file.display()))?;
    let address = key.address();
    let Deployed { contract, block, gas } = canvass_anchor::deploy(&rpc, &key).await.map_err(|e| match &e {
        DeployError::Rpc(RpcError::Refused { message, .. }) if message.to_lowercase().contains("insufficient") => {
            format!("{address} has too little money on this chain: send it some and run the same command again")
        }
        _ => e.to_string(),
    })?;
    say(format_args!("{contract}"));
    eprintln!("made by {address} in block {block} for {gas} gas; give the address as --anchor-contract");
    Ok(())
}
