//! A disk in memory that fails in every way a disk may, and loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};

/// What reaches the disk whole or not at all. Small, and no multiple of a hash, so that writes are torn anywhere.
const BLOCK: usize = 48;

/// A small random generator (SplitMix64), so that a seed is all there is to a run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

struct State {
    random: Random,
    /// How many operations of a hundred fail.
    fault_percent: usize,
    /// After so many operations none does anything any more: the machine stands still.
    stops_after: Option<usize>,
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    durable_names: BTreeSet<String>,
    /// Files that are only replaced as a whole.
    wholes: BTreeMap<String, Vec<u8>>,
}

/// A file as the process sees it, and as it would be after a power cut.
#[derive(Clone, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Blocks that the next sync writes. The system takes the others for written, also after a sync that failed.
    dirty: BTreeSet<usize>,
}

impl FaultyDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random(seed),
            fault_percent: 0,
            stops_after: None,
            files: BTreeMap::new(),
            durable_names: BTreeSet::new(),
            wholes: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on so many operations of a hundred fail.
    pub(crate) fn fail(&self, percent: usize) {
        self.state().fault_percent = percent;
    }

    /// After so many operations nothing reaches the disk until [`FaultyDisk::crash`].
    pub(crate) fn stop_after(&self, operations: usize) {
        self.state().stops_after = Some(operations);
    }

    /// The power goes: of what was not synced, any part is lost. Then the machine starts again.
    pub(crate) fn crash(&self) {
        let State { random, files, durable_names, stops_after, .. } = &mut *self.state();
        *stops_after = None;
        files.retain(|name, _| durable_names.contains(name) || random.percent(50));
        *durable_names = files.keys().cloned().collect();
        for file in files.values_mut() {
            let mut content = file.lock().unwrap().clone();
            content.persist_some(random);
            content.current = content.durable.clone();
            content.dirty.clear();
            // A new file, so that handles from before the crash reach nothing.
            *file = Arc::new(Mutex::new(content));
        }
    }

    /// Changes the bytes of a file, as a failing disk or somebody may.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Some(whole) = state.wholes.get_mut(name) {
            return change(whole);
        }
        let mut content = state.files[name].lock().unwrap();
        change(&mut content.current);
        content.durable = content.current.clone();
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) {
        let mut state = self.state();
        assert!(state.files.remove(name).is_some() || state.wholes.remove(name).is_some(), "{name}");
    }
}

impl State {
    /// Does something, or fails with or without having done it.
    fn act(&mut self, work: impl FnOnce(&mut State)) -> io::Result<()> {
        if self.stops_after == Some(0) {
            return Err(fault());
        }
        self.stops_after = self.stops_after.map(|left| left - 1);
        let fails = self.random.percent(self.fault_percent);
        if !fails || self.random.percent(50) {
            work(self);
        }
        if fails { Err(fault()) } else { Ok(()) }
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        self.current.resize(self.current.len().max(end), 0);
        self.current[at..end].copy_from_slice(bytes);
        self.dirty.extend(at / BLOCK..end.div_ceil(BLOCK));
    }

    fn set_size(&mut self, size: usize) {
        self.current.resize(size, 0);
        self.dirty.retain(|block| block * BLOCK < size);
        // The rest of the last block becomes zeros, which is a write.
        self.dirty.extend((!size.is_multiple_of(BLOCK)).then_some(size / BLOCK));
    }

    /// Writes blocks and the size to the disk.
    fn persist(&mut self, size: usize, keep: impl FnMut(&usize) -> bool) {
        self.durable.resize(size, 0);
        for block in std::mem::take(&mut self.dirty).into_iter().filter(keep) {
            let end = ((block + 1) * BLOCK).min(size).min(self.current.len());
            if let Some(from) = self.current.get(block * BLOCK..end) {
                self.durable[block * BLOCK..end].copy_from_slice(from);
            }
        }
    }

    /// Writes some of what is dirty, and any size between the two.
    fn persist_some(&mut self, random: &mut Random) {
        let (old, new) = (self.durable.len(), self.current.len());
        let between = old.min(new) + random.below(old.abs_diff(new) + 1);
        let size = [old, new, between][random.below(3)];
        self.persist(size, |_| random.percent(50));
    }
}

fn fault() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "injected")
}

impl Disk for FaultyDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut content = None;
        self.state()
            .act(|state| content = Some(Arc::clone(state.files.entry(name.to_owned()).or_default())))?;
        Ok(Arc::new(Handle { disk: self.clone(), content: content.ok_or_else(fault)? }))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = None;
        self.state().act(|state| bytes = state.wholes.get(name).cloned())?;
        Ok(bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.state().act(|state| {
            state.wholes.insert(name.to_owned(), bytes.to_owned());
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.state().act(|state| state.durable_names = state.files.keys().cloned().collect())
    }
}

struct Handle {
    disk: FaultyDisk,
    content: Arc<Mutex<Content>>,
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let content = self.content.lock().unwrap();
        let bytes = content.current.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let mut state = self.disk.state();
        // A write that fails may have written a part.
        let part = state.random.below(bytes.len() + 1);
        let write = |length: usize| self.content.lock().unwrap().write(&bytes[..length], at);
        let done = state.act(|_| write(part));
        if done.is_ok() {
            write(bytes.len());
        }
        done
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).unwrap();
        self.disk.state().act(|_| self.content.lock().unwrap().set_size(size))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut content = self.content.lock().unwrap();
        let mut reached = false;
        let done = state.act(|_| reached = true);
        if done.is_ok() {
            let size = content.current.len();
            content.persist(size, |_| true);
        } else if reached {
            // A sync that fails may have written any part.
            content.persist_some(&mut state.random);
        }
        done
    }
}
