//! A file that only grows, collected in memory before it is written.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};

/// How much is collected before it is written; little in tests, so that writes fail between appends too.
const COLLECT: usize = if cfg!(test) { 1000 } else { 1 << 20 };

/// The file and what is not in it yet.
pub(crate) struct Flat {
    file: Arc<dyn DiskFile>,
    written: u64,
    tail: Vec<u8>,
    synced: u64,
}

impl Flat {
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> io::Result<Self> {
        let file = disk.open(name)?;
        let written = file.size()?;
        Ok(Self { file, written, tail: Vec::new(), synced: 0 })
    }

    /// The file, for those who read what was flushed.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.file)
    }

    /// How long the file is, with what was collected.
    pub(crate) fn size(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() < COLLECT { Ok(()) } else { self.flush() }
    }

    /// Writes what was collected.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.tail.is_empty() {
            self.file.write_at(&self.tail, self.written)?;
            self.written = self.size();
            self.tail.clear();
        }
        Ok(())
    }

    /// Writes what was collected and makes the file durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.synced != self.written {
            self.file.sync()?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Forgets everything behind `size`, which a sync has reached before: what follows is written anew.
    pub(crate) fn cut(&mut self, size: u64) -> io::Result<()> {
        if self.written != size {
            self.file.set_size(size)?;
        }
        (self.written, self.synced) = (size, size);
        Ok(())
    }
}
