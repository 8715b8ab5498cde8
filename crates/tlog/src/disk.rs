//! The few things a tree asks of a folder, so that tests can put a failing disk in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One folder of files.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Opens a file, made if it is not there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// All bytes of a file, if it is there.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Puts these bytes in place of a file, durably, or leaves the file as it was.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes the names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// One open file.
pub(crate) trait DiskFile: Send + Sync + 'static {
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer, or fails.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all bytes, or fails having written none, some or all of them.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Makes bytes and size durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Opens a folder, making it durably if it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            // Each new folder is a name in the one above it, up to the first that was there.
            let missing = path.ancestors().take_while(|folder| !folder.exists()).count();
            fs::create_dir_all(path)?;
            for parent in path.ancestors().skip(1).take(missing) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self(path.to_owned()))
    }
}

impl Disk for Folder {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Arc::new(options.read(true).write(true).create(true).truncate(false).open(self.0.join(name))?))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let aside = self.0.join(format!("{name}.new"));
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(aside, self.0.join(name))?;
        self.sync_names()
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
