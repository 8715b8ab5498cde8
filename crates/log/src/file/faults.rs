//! A disk in memory that fails in every way a disk may, and loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// What reaches the disk whole or not at all. Small, so that groups are torn in many places.
const BLOCK: usize = 64;

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
}

/// A file as the process sees it, and as it would be after a power cut.
#[derive(Clone, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Blocks that the next sync writes.
    dirty: BTreeSet<usize>,
}

/// What an operation does.
#[derive(PartialEq)]
enum Fate {
    Works,
    FailsButPersists,
    Fails,
    /// The machine stands still.
    Nothing,
}

impl FaultyDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random(seed),
            fault_percent: 0,
            stops_after: None,
            files: BTreeMap::new(),
            durable_names: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on so many operations of a hundred fail.
    pub(crate) fn fail(&self, percent: usize) {
        self.state().fault_percent = percent;
    }

    /// After so many operations nothing reaches the disk until [`FaultyDisk::go_on`].
    pub(crate) fn stop_after(&self, operations: usize) {
        self.state().stops_after = Some(operations);
    }

    pub(crate) fn go_on(&self) {
        self.state().stops_after = None;
    }

    /// The power goes: of what was not synced, any part is lost.
    pub(crate) fn crash(&self) {
        let State { random, files, durable_names, .. } = &mut *self.state();
        files.retain(|name, _| durable_names.contains(name) || random.percent(50));
        *durable_names = files.keys().cloned().collect();
        for file in files.values_mut() {
            let mut content = file.lock().unwrap().clone();
            let sizes = [content.durable.len(), content.current.len()];
            let between = sizes[0].min(sizes[1]) + random.below(sizes[0].abs_diff(sizes[1]) + 1);
            let size = [sizes[0], sizes[1], between][random.below(3)];
            let written: Vec<_> = content.dirty.iter().copied().filter(|_| random.percent(50)).collect();
            content.persist(written);
            content.durable.resize(size, 0);
            content.current = content.durable.clone();
            content.dirty.clear();
            // A new file, so that handles from before the crash reach nothing.
            *file = Arc::new(Mutex::new(content));
        }
    }

    /// Does something on a disk that works meanwhile.
    pub(crate) fn without_faults<T>(&self, work: impl FnOnce() -> T) -> T {
        let percent = std::mem::take(&mut self.state().fault_percent);
        let done = work();
        self.fail(percent);
        done
    }

    /// Changes the bytes of a file, as a failing disk may.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let state = self.state();
        let mut content = state.files[name].lock().unwrap();
        change(&mut content.current);
        content.durable = content.current.clone();
    }
}

impl State {
    fn fate(&mut self) -> Fate {
        match &mut self.stops_after {
            Some(0) => return Fate::Nothing,
            Some(left) => *left -= 1,
            None => {}
        }
        if !self.random.percent(self.fault_percent) {
            Fate::Works
        } else if self.random.percent(50) {
            Fate::FailsButPersists
        } else {
            Fate::Fails
        }
    }
}

impl Content {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / BLOCK..to.div_ceil(BLOCK));
    }

    /// Writes some blocks to the disk.
    fn persist(&mut self, blocks: Vec<usize>) {
        for block in blocks {
            let from = block * BLOCK;
            let to = (from + BLOCK).min(self.current.len());
            if from < to {
                self.durable.resize(self.durable.len().max(to), 0);
                self.durable[from..to].copy_from_slice(&self.current[from..to]);
            }
        }
    }

    /// Forgets the blocks that need not be written, as a system short of memory may: if a sync failed to
    /// write one, the next read finds the disk's old bytes.
    fn evict(&mut self) {
        for block in 0..self.current.len().div_ceil(BLOCK) {
            let from = block * BLOCK;
            let to = (from + BLOCK).min(self.current.len());
            if !self.dirty.contains(&block) {
                for at in from..to {
                    self.current[at] = self.durable.get(at).copied().unwrap_or(0);
                }
            }
        }
    }

    fn set_size(&mut self, size: usize) {
        let old = self.current.len();
        self.current.resize(size, 0);
        self.dirty.retain(|block| block * BLOCK < size);
        if size < old && !size.is_multiple_of(BLOCK) {
            // The rest of the last block becomes zeros, which is a write.
            self.touch(size - 1, size);
        }
    }
}

fn fault() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "injected")
}

/// Answers as fate has it; `persist` is done unless the operation fails for good.
fn act(fate: Fate, persist: impl FnOnce()) -> io::Result<()> {
    if matches!(fate, Fate::Works | Fate::FailsButPersists) {
        persist();
    }
    if fate == Fate::Works { Ok(()) } else { Err(fault()) }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        act(state.fate(), || ())?;
        let content = Arc::clone(state.files.get(name).ok_or(io::ErrorKind::NotFound)?);
        if state.random.percent(50) {
            content.lock().unwrap().evict();
        }
        Ok(Box::new(Handle { disk: self.clone(), content }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let fate = state.fate();
        if matches!(fate, Fate::Fails | Fate::Nothing) {
            return Err(fault());
        }
        let content = Arc::clone(state.files.entry(name.to_owned()).or_default());
        content.lock().unwrap().set_size(0);
        act(fate, || ())?;
        Ok(Box::new(Handle { disk: self.clone(), content }))
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.fate();
        let names = state.files.keys().cloned().collect();
        act(fate, || state.durable_names = names)
    }
}

struct Handle {
    disk: FaultyDisk,
    content: Arc<Mutex<Content>>,
}

impl Handle {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

impl DiskFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content().current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let content = self.content();
        let bytes = content.current.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let fate = state.fate();
        // A write that fails may have written a part.
        let length = if fate == Fate::Works { bytes.len() } else { state.random.below(bytes.len() + 1) };
        let from = usize::try_from(at).unwrap();
        act(fate, || {
            let mut content = self.content();
            let size = content.current.len().max(from + length);
            content.current.resize(size, 0);
            content.current[from..from + length].copy_from_slice(&bytes[..length]);
            content.touch(from, from + length);
        })
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let fate = self.disk.state().fate();
        act(fate, || self.content().set_size(usize::try_from(size).unwrap()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fate = state.fate();
        if fate == Fate::Nothing {
            return Err(fault());
        }
        let mut content = self.content();
        let dirty = std::mem::take(&mut content.dirty);
        if fate == Fate::Works {
            content.persist(dirty.into_iter().collect());
            let size = content.current.len();
            content.durable.resize(size, 0);
            return Ok(());
        }
        // A failed sync writes any part, and the system holds the rest for written all the same.
        content.persist(dirty.into_iter().filter(|_| state.random.percent(50)).collect());
        Err(fault())
    }
}
