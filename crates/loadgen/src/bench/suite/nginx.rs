//! nginx: one worker on the servers' core.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::peers::{found, free_address, wait_for};
use super::{Fault, SERVER_CORE, Suite, stage};

/// A worker must be there within this.
const PATIENCE: Duration = Duration::from_secs(5);

/// One that runs.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    master: u32,
    /// The process that does the work.
    pub(crate) worker: u32,
    folder: PathBuf,
}

impl Suite {
    /// Starts nginx; `modules` are lines above the configuration, `server` are those of its only server. Files for it
    /// are laid into the folder `root` by `lay`.
    pub(crate) fn nginx(
        &self,
        modules: &str,
        server: &str,
        lay: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<Nginx, Fault> {
        let folder = self.stage.folder().join("nginx");
        fs::create_dir_all(folder.join("root"))?;
        lay(&folder.join("root"))?;
        let address = free_address()?;
        let path = folder.display();
        // The files belong to whoever runs this.
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        // As its makers advise for many clients and files that do not change; it writes no log of requests, and keeps
        // connections for as long as clients do, as Canvass does.
        let text = format!(
            "{modules}\n{user}daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\n\
             pid {path}/pid;\nerror_log {path}/errors warn;\nevents {{ worker_connections 19900; multi_accept on; }}\n\
             http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\ntcp_nodelay on;\nkeepalive_timeout 1h;\n\
             keepalive_requests 1000000000;\nopen_file_cache max=100 inactive=1h;\nopen_file_cache_valid 1h;\n\
             types {{ application/json json; text/html html; }}\ndefault_type text/html;\n\
             client_body_temp_path {path}/body;\nproxy_temp_path {path}/proxy;\nfastcgi_temp_path {path}/fastcgi;\n\
             server {{\nlisten {address} backlog=4096;\nroot {path}/root;\n{server}\n}}\n}}\n"
        );
        let config = folder.join("nginx.conf");
        fs::write(&config, text)?;
        let mut command = stage::pinned(SERVER_CORE, found("nginx")?);
        command.arg("-p").arg(&folder).arg("-c").arg(&config).arg("-e").arg(folder.join("errors"));
        let master = self.stage.start(&mut command, Signal::TERM)?.pid;
        wait_for(address).map_err(|fault| {
            let said = fs::read_to_string(folder.join("errors")).unwrap_or_default();
            Fault(format!("{fault}: {}", said.lines().last().unwrap_or_default()))
        })?;
        let worker = worker_of(master)?;
        Ok(Nginx { address, master, worker, folder })
    }

    /// Ends it, and removes its files.
    pub(crate) fn remove_nginx(&self, nginx: &Nginx) -> Result<(), Fault> {
        self.stage.end(nginx.master)?;
        fs::remove_dir_all(&nginx.folder)?;
        Ok(())
    }
}

/// The process that serves: the master listens a moment before there is one.
fn worker_of(master: u32) -> Result<u32, Fault> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        if let Some(worker) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
            return Ok(worker);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Fault("nginx has no worker".to_owned()))
}
