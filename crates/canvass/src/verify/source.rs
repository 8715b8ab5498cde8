//! Where a verifier reads: a running server, or a folder with the same files.
//!
//! A path of the server is the name of a file in the folder; the question mark of a query becomes an `@`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::web::Web;

/// Files that are asked for before they are needed, for each reader.
const AHEAD: usize = 16;

/// Where everything is read from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Source(std::sync::Arc<Place>);

struct Place {
    from: From,
    /// Takes a copy of everything that is read.
    keep: Option<PathBuf>,
    fetched: AtomicU64,
}

enum From {
    Server(Web, Handle),
    Folder(PathBuf),
}

impl Source {
    /// A server by its address, or a folder. Must be called on the runtime.
    pub(crate) fn open(target: &str, keep: Option<&Path>) -> Result<Self, String> {
        let from = if target.contains("://") {
            From::Server(Web::new(target)?, Handle::current())
        } else if Path::new(target).is_dir() {
            From::Folder(target.into())
        } else {
            return Err(format!("`{target}` is neither a folder nor a server such as http://127.0.0.1:8080"));
        };
        let keep = keep.map(Path::to_owned);
        if let Some(keep) = &keep {
            std::fs::create_dir_all(keep).map_err(|e| format!("{} cannot be made: {e}", keep.display()))?;
        }
        Ok(Source(std::sync::Arc::new(Place { from, keep, fetched: AtomicU64::new(0) })))
    }

    /// Whether what is read now can be more a moment later.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.0.from, From::Server(..))
    }

    /// How many bytes were read.
    pub(crate) fn fetched(&self) -> u64 {
        self.0.fetched.load(Ordering::Relaxed)
    }

    /// Reads a path; `None` where there is nothing. Must not be called on the runtime.
    pub(crate) fn get(&self, path: &str) -> Result<Option<Bytes>, String> {
        match &self.0.from {
            From::Server(_, handle) => handle.block_on(self.read(path)),
            From::Folder(folder) => self.read_file(folder, path),
        }
    }

    /// Reads a path that must be there.
    pub(crate) fn require(&self, path: &str) -> Result<Bytes, String> {
        self.get(path)?.ok_or_else(|| format!("{path} is not there"))
    }

    /// Reads many paths in their order, a few ahead of the one that is taken.
    pub(crate) fn each(
        &self,
        paths: impl Iterator<Item = String> + Send + 'static,
    ) -> Box<dyn Iterator<Item = Result<Option<Bytes>, String>>> {
        let own = self.clone();
        match &self.0.from {
            From::Folder(_) => Box::new(paths.map(move |path| own.get(&path))),
            From::Server(_, handle) => {
                let (sender, mut receiver) = mpsc::channel(AHEAD);
                handle.spawn(async move {
                    let reads = futures_util::stream::iter(paths).map(|path| {
                        let own = own.clone();
                        async move { own.read(&path).await }
                    });
                    let mut reads = std::pin::pin!(reads.buffered(AHEAD));
                    while let Some(read) = reads.next().await {
                        // Whoever found a difference reads no further.
                        if sender.send(read).await.is_err() {
                            break;
                        }
                    }
                });
                Box::new(std::iter::from_fn(move || receiver.blocking_recv()))
            }
        }
    }

    async fn read(&self, path: &str) -> Result<Option<Bytes>, String> {
        let web = match &self.0.from {
            From::Server(web, _) => web,
            From::Folder(folder) => return self.read_file(folder, path),
        };
        let body = web.get(path).await?;
        body.iter().try_for_each(|body| self.took(path, body))?;
        Ok(body)
    }

    fn read_file(&self, folder: &Path, path: &str) -> Result<Option<Bytes>, String> {
        let file = folder.join(file_of(path)?);
        match std::fs::read(&file) {
            Ok(bytes) => {
                let bytes = Bytes::from(bytes);
                self.took(path, &bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
        }
    }

    fn took(&self, path: &str, bytes: &Bytes) -> Result<(), String> {
        self.0.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let Some(keep) = &self.0.keep else { return Ok(()) };
        let file = keep.join(file_of(path)?);
        let parent = file.parent().unwrap_or(keep);
        let written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&file, bytes));
        written.map_err(|error| format!("{} cannot be written: {error}", file.display()))
    }
}

/// The file of a path, within whatever folder.
pub(crate) fn file_of(path: &str) -> Result<PathBuf, String> {
    let name = path.trim_start_matches('/').replace('?', "@");
    let inside = name.split('/').all(|part| !part.is_empty() && !part.starts_with(".."));
    if inside { Ok(name.into()) } else { Err(format!("`{path}` names no file")) }
}
