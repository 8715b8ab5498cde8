//! The scan at start: checks every frame, rebuilds the index, cuts a torn tail, refuses a damaged journal.

use super::disk::{Disk, DiskFile};
use super::index::Index;
use super::segment::{self, FRAME_HEADER, Frame, HeaderFault, SEGMENT_HEADER, Segment};
use super::writer::{GROUP_BYTES, lay_segment};
use super::{OpenError, Recovered, TornTail};

/// How much of a segment is read at once; more than the longest frame.
const SCAN_BYTES: usize = 8 << 20;

/// A journal ready to be appended to.
pub(crate) struct Journal {
    pub(crate) index: Index,
    /// The last segment, open, and its length.
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) size: u64,
    /// The sequence number the next frame gets.
    pub(crate) sequence: u64,
    pub(crate) recovered: Recovered,
}

/// Reads the whole journal.
pub(crate) fn recover(disk: &dyn Disk) -> Result<Journal, OpenError> {
    let mut names: Vec<String> =
        disk.list().map_err(io("."))?.into_iter().filter(|name| segment::is_segment(name)).collect();
    names.sort_unstable();
    let mut scan = Scan::default();
    let mut last = None;
    for (n, name) in names.iter().enumerate() {
        let file = disk.open(name).map_err(io(name))?;
        let (file, size) = scan.segment(disk, name, file, n + 1 == names.len())?;
        scan.recovered.segments += 1;
        scan.recovered.bytes += size;
        tracing::info!(segment = name, bytes = size, of = names.len(), "journal segment checked");
        last = Some((name, file, size));
    }
    let Some((name, file, size)) = last else {
        let name = segment::name(0);
        let (file, size) = scan.begin_segment(disk, &name, 0)?;
        scan.recovered.segments = 1;
        scan.recovered.bytes = size;
        return Ok(scan.finish(file, size));
    };
    scan.make_durable(disk, file.as_ref(), size).map_err(io(name))?;
    Ok(scan.finish(file, size))
}

#[derive(Default)]
struct Scan {
    index: Index,
    sequence: u64,
    /// The group of the last frame, and where it begins in its segment; 0 if no frame is there.
    group: u64,
    group_at: u64,
    recovered: Recovered,
}

impl Scan {
    fn finish(self, file: Box<dyn DiskFile>, size: u64) -> Journal {
        Journal { index: self.index, file, size, sequence: self.sequence, recovered: self.recovered }
    }

    /// Checks one segment; returns it with the length that is good.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        name: &str,
        file: Box<dyn DiskFile>,
        last: bool,
    ) -> Result<(Box<dyn DiskFile>, u64), OpenError> {
        let size = file.size().map_err(io(name))?;
        let first = segment::first_of(name).ok_or_else(|| corrupt(name, 0, "its name is not a segment's"))?;
        if first != self.sequence {
            return Err(corrupt(name, 0, "frames between the segment before it and this one are missing"));
        }
        let mut window = Window::new(file.as_ref(), size);
        let header = match Segment::decode(window.ahead(SEGMENT_HEADER).map_err(io(name))?) {
            Ok(header) => header,
            Err(HeaderFault::Version(found)) => {
                return Err(OpenError::Version { segment: name.to_owned(), found });
            }
            // A header is durable before the first frame is written: without a frame it was never used.
            Err(HeaderFault::Damaged) if last && size <= SEGMENT_HEADER as u64 => {
                self.note_torn_tail(name, 0, size);
                return self.begin_segment(disk, name, first);
            }
            Err(HeaderFault::Damaged) => return Err(corrupt(name, 0, "the header of the segment is wrong")),
        };
        if header.first != first {
            return Err(corrupt(name, 0, "the header is that of another segment"));
        }
        self.enter(header);
        window.advance(SEGMENT_HEADER);
        let Some((at, what)) = self.frames(name, header, &mut window)? else { return Ok((file, size)) };
        if !last || self.was_durable(header, file.as_ref(), at, size).map_err(io(name))? {
            return Err(corrupt(name, at, what));
        }
        self.note_torn_tail(name, at, size - at);
        // Made durable with everything else, before anybody sees it.
        file.set_size(at).map_err(io(name))?;
        Ok((file, at))
    }

    fn enter(&mut self, segment: Segment) {
        self.index.segments.push(segment);
        self.group_at = 0;
    }

    /// Takes in frames up to the end of the segment or to the first bad one, which is returned.
    fn frames(
        &mut self,
        name: &str,
        header: Segment,
        window: &mut Window<'_>,
    ) -> Result<Option<(u64, &'static str)>, OpenError> {
        loop {
            let at = window.at;
            let ahead = window.ahead(FRAME_HEADER).map_err(io(name))?;
            if ahead.is_empty() {
                return Ok(None);
            }
            let frame = match Frame::decode(header.salt, ahead) {
                Ok(frame) => frame,
                Err(what) => return Ok(Some((at, what))),
            };
            let whole = window.ahead(frame.total_len()).map_err(io(name))?;
            if whole.len() < frame.total_len() {
                return Ok(Some((at, "a payload is cut short")));
            }
            if let Err(what) = frame.check(&whole[FRAME_HEADER..frame.total_len()]) {
                return Ok(Some((at, what)));
            }
            self.take(&frame, at).map_err(|what| corrupt(name, at, what))?;
            window.advance(frame.total_len());
        }
    }

    /// Takes in a frame whose checksums are right. One that does not follow the frames before it was not
    /// torn by a crash: something else happened to the file.
    fn take(&mut self, frame: &Frame, at: u64) -> Result<(), &'static str> {
        if frame.sequence != self.sequence {
            return Err("a frame has a sequence number that does not follow the one before it");
        }
        if frame.group != self.sequence && frame.group != self.group {
            return Err("a frame is of a group that does not follow the one before it");
        }
        if frame.offset != self.index.end(frame.partition) {
            return Err("a frame has an offset that does not follow the one before it in its partition");
        }
        let place = u32::try_from(at).map_err(|_| "a segment is longer than the limit")?;
        self.index.push(frame, place);
        if frame.group == self.sequence {
            (self.group, self.group_at) = (frame.group, at);
        }
        self.sequence += 1;
        self.recovered.batches += 1;
        self.recovered.records += u64::from(frame.count);
        Ok(())
    }

    /// Whether the frame that should be at `at` had been durable, and so was perhaps acknowledged.
    ///
    /// The last group commit may be torn anywhere, as pages reach the disk in any order. Everything before
    /// it was durable, and each of its frames says where it began. So a later frame of a group that began
    /// after the bad frame proves damage, and so does more rubbish than one group can leave.
    fn was_durable(&self, header: Segment, file: &dyn DiskFile, at: u64, size: u64) -> std::io::Result<bool> {
        let rest = usize::try_from(size - at).unwrap_or(usize::MAX);
        if rest > GROUP_BYTES {
            return Ok(true);
        }
        let mut bytes = vec![0; rest];
        file.read_at(&mut bytes, at)?;
        Ok(segment::proves_durable(header.salt, &bytes, self.sequence))
    }

    /// Makes sure of the last group before readers see it: a process that was killed may have left it, or
    /// a segment's header and name, in memory only. A sync alone is not enough, as the system may already
    /// have failed to write a page and will not try again: so the group's bytes are written over themselves.
    fn make_durable(&self, disk: &dyn Disk, file: &dyn DiskFile, size: u64) -> std::io::Result<()> {
        let mut bytes = vec![0; usize::try_from(size - self.group_at).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, self.group_at)?;
        file.write_at(&bytes, self.group_at)?;
        file.sync()?;
        disk.sync_names()
    }

    fn begin_segment(
        &mut self,
        disk: &dyn Disk,
        name: &str,
        first: u64,
    ) -> Result<(Box<dyn DiskFile>, u64), OpenError> {
        let (file, header) = lay_segment(disk, first).map_err(io(name))?;
        self.enter(header);
        Ok((file, SEGMENT_HEADER as u64))
    }

    fn note_torn_tail(&mut self, name: &str, at: u64, bytes_cut: u64) {
        tracing::warn!(segment = name, at, bytes_cut, "the journal's last write was torn and is cut off");
        self.recovered.torn_tail = Some(TornTail { segment: name.to_owned(), at, bytes_cut });
    }
}

/// A file read forwards in large pieces.
struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    /// Position in the file of what comes next.
    at: u64,
    buffer: Vec<u8>,
    /// What comes next in the buffer.
    start: usize,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile, size: u64) -> Self {
        Self { file, size, at: 0, buffer: Vec::new(), start: 0 }
    }

    /// What comes next: at least `want` bytes unless the file ends before.
    fn ahead(&mut self, want: usize) -> std::io::Result<&[u8]> {
        let have = self.buffer.len() - self.start;
        let rest = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        if have < want.min(rest) {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.resize(rest.min(SCAN_BYTES), 0);
            self.file.read_at(&mut self.buffer[have..], self.at + have as u64)?;
        }
        Ok(&self.buffer[self.start..])
    }

    fn advance(&mut self, by: usize) {
        self.start += by;
        self.at += by as u64;
    }
}

fn io(file: &str) -> impl FnOnce(std::io::Error) -> OpenError {
    let file = file.to_owned();
    move |source| OpenError::Io { file, source }
}

fn corrupt(segment: &str, at: u64, what: &'static str) -> OpenError {
    OpenError::Corrupt { segment: segment.to_owned(), at, what }
}
