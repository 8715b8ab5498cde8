//! `canvass serve --roles`: one of the many processes of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use canvass_election::Definition;
use canvass_engine::{ClusterOptions, Engine, Roles, Secret, stored_definition};
use canvass_log::Log;
use canvass_log::kafka::Exchange;
use clap::{Args, ValueEnum};
use futures_util::FutureExt;
use prometheus_client::registry::Registry;

use crate::kafka::partitions;
use crate::keys::Folder;
use crate::serve::{Proof, Running, ServeArgs, listen, serve};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Takes votes and returns in
    Gateway,
    /// Folds a share of the partitions
    Tally,
    /// Publishes results; one of several does, the others are ready
    Board,
    /// Shows results, which every process does
    Edge,
}

#[derive(Args, Clone, Default)]
pub(crate) struct ClusterArgs {
    /// Do a part of what many processes do on one log on Kafka; all of it in one process where not given
    #[arg(long, env = "CANVASS_ROLES", value_name = "ROLE,…", value_delimiter = ',', requires = "kafka")]
    roles: Vec<RoleArg>,
    /// This process's name in the cluster, the same whenever it starts; the machine's and the port where not given
    #[arg(long, env = "CANVASS_NAME", value_name = "NAME", requires = "roles")]
    name: Option<String>,
    /// Where a tally writes snapshots of its partitions, so that whoever folds them next need not begin anew; a folder
    /// that all tallies see is best. DATA/snapshots where not given
    #[arg(long, env = "CANVASS_SNAPSHOTS", value_name = "DIR", requires = "roles")]
    snapshots: Option<PathBuf>,
}

impl ClusterArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    fn roles(&self) -> Roles {
        let has = |role| self.roles.contains(&role);
        Roles { gateway: has(RoleArg::Gateway), tally: has(RoleArg::Tally), board: has(RoleArg::Board) }
    }

    fn name(&self, address: SocketAddr) -> String {
        let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        self.name.clone().unwrap_or_else(|| format!("{}:{}", machine().trim(), address.port()))
    }
}

/// Starts one process of a cluster.
pub(crate) async fn start(
    args: &ServeArgs,
    definition: Option<Definition>,
    registry: Registry,
) -> Result<Running, String> {
    refuse_what_is_not_kept(args)?;
    let address = args.kafka.address()?.ok_or("--roles needs --kafka, where the cluster's log is")?;
    let log = args.kafka.open(definition.as_ref()).await?;
    let log = Arc::new(log.ok_or("--roles needs --kafka, where the cluster's log is")?);
    let stored = stored_definition(&*log).await.map_err(|e| e.to_string())?;
    let named = stored.as_ref().or(definition.as_ref());
    let named = named.ok_or("the log is empty and no definition was given; name one with --election FILE")?;
    let exchange = Exchange::open(&address, partitions(named)).await.map_err(|e| e.to_string())?;
    let listener = listen(args).await?;
    let own = listener.local_addr().map_err(|e| e.to_string())?;
    let (roles, folder) = (args.cluster.roles(), Folder(args.data.clone()));
    let options = ClusterOptions {
        roles,
        secret: roles.gateway.then(|| folder.voter_secret()).transpose()?.map(|s| Secret::new(s).sign()),
        name: args.cluster.name(own),
        snapshots: args.cluster.snapshots.clone().unwrap_or_else(|| args.data.join("snapshots")),
        folder: args.data.clone(),
        tick: Duration::from_millis(args.tick_ms),
    };
    let engine = Engine::join(Arc::clone(&log), exchange, definition, options);
    let engine = Arc::new(engine.await.map_err(|e| e.to_string())?);
    let close = Box::new(move || async move { log.close().await }.boxed());
    serve(args, engine, registry, listener, close, None)
}

/// A cluster publishes no proof yet; who asks for one must not believe to have it.
fn refuse_what_is_not_kept(args: &ServeArgs) -> Result<(), String> {
    let asked = [
        ("--witnesses", args.witnesses.is_some()),
        ("--anchor-rpc", args.anchor.chain.anchor_rpc.is_some()),
        ("--anchor-contract", args.anchor.chain.anchor_contract.is_some()),
        ("--proof", args.proof != Proof::Whole),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((option, _)) => Err(format!(
            "{option} does not go with --roles: a cluster publishes no checkpoints; one process without --roles does"
        )),
        None => Ok(()),
    }
}
