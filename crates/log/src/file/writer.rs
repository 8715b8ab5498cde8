//! The one writer: takes what is queued, writes it, syncs once, then answers.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use canvass_election::ids::{Offset, PartitionId};
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::disk::{Disk, DiskFile};
use super::metrics::Metrics;
use super::recovery::Journal;
use super::segment::{self, FRAME_HEADER, Frame, MAX_FRAME, SEGMENT_HEADER, Segment};
use crate::follow::Tail;
use crate::{AppendError, Batch};

/// The most bytes one group commit writes. Part of the format: no torn tail is longer.
pub(crate) const GROUP_BYTES: usize = 34 << 20;
const _: () = assert!(MAX_FRAME <= GROUP_BYTES);

/// A batch on its way to the log.
pub(crate) struct Append {
    pub(crate) partition: PartitionId,
    pub(crate) batch: Batch,
    pub(crate) answer: oneshot::Sender<Result<Offset, AppendError>>,
}

impl Append {
    fn frame_len(&self) -> usize {
        FRAME_HEADER + self.batch.bytes.len()
    }
}

/// What waits for the writer, up to its limits.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    max_batches: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Waiting {
    appends: VecDeque<Append>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(max_batches: usize, max_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), max_batches, max_bytes }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an append, or gives its batch back at once.
    pub(crate) fn push(&self, append: Append) -> Result<(), AppendError> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(AppendError::Closed(append.batch));
        }
        let bytes = waiting.bytes + append.frame_len();
        if waiting.appends.len() >= self.max_batches || bytes > self.max_bytes {
            return Err(AppendError::Full(append.batch));
        }
        waiting.bytes = bytes;
        waiting.appends.push_back(append);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for appends and takes as many as one group may hold; `None` once closed and empty.
    pub(crate) fn take_group(&self) -> Option<Vec<Append>> {
        let mut waiting = self.waiting();
        while waiting.appends.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(append) = waiting.appends.pop_front_if(|a| bytes + a.frame_len() <= GROUP_BYTES) {
            bytes += append.frame_len();
            group.push(append);
        }
        waiting.bytes -= bytes;
        Some(group)
    }

    /// Refuses new appends; what waits is still written.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_one();
    }

    /// Refuses new appends and drops what waits, whose futures then fail.
    fn abandon(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.appends.clear();
    }
}

/// The end of the journal that grows.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    segment_bytes: u64,
    segment: Segment,
    file: Box<dyn DiskFile>,
    /// Durable length of the segment.
    size: u64,
    /// The sequence number the next frame gets.
    sequence: u64,
    /// The file may hold bytes beyond its durable length, which must go before anything is written.
    pub(crate) owes_roll_back: bool,
    /// A new segment was begun and is not yet durable. Nothing may go to the old one any more: the new one
    /// may be on disk already, under the sequence number it begins with.
    owes_segment: bool,
    /// The last group could not be written. Said once when it begins and once when it is over: a full disk
    /// refuses thousands of groups a second.
    failing: bool,
    buffer: Vec<u8>,
    metrics: Metrics,
}

impl Writer {
    /// The writer of a journal that was recovered.
    pub(crate) fn new(disk: Arc<dyn Disk>, journal: Journal, segment_bytes: u64) -> Self {
        let Journal { index, file, size, sequence, .. } = journal;
        let segment = *index.segments.last().expect("a recovered journal has a segment");
        let shared =
            Shared { disk: Arc::clone(&disk), index: RwLock::new(index), tail: watch::Sender::default() };
        Self {
            disk,
            shared: Arc::new(shared),
            segment_bytes,
            segment,
            file,
            size,
            sequence,
            owes_roll_back: false,
            owes_segment: false,
            failing: false,
            buffer: Vec::new(),
            metrics: Metrics::default(),
        }
    }

    /// What readers use.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What is measured.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Writes a group of batches and answers each: all are durable, or none is in the log.
    pub(crate) fn commit(&mut self, group: Vec<Append>) {
        let written = self.write(&group);
        self.metrics.committed(written.is_ok());
        match written {
            Ok(frames) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the journal can be written again");
                }
                self.publish(&frames);
                for (append, (frame, _)) in group.into_iter().zip(frames) {
                    // Whoever appended may have stopped waiting.
                    let _ = append.answer.send(Ok(frame.offset));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the journal cannot be written; nothing is acknowledged until it can");
                }
                self.try_roll_back();
                let source = Arc::new(error);
                for Append { batch, answer, .. } in group {
                    let _ = answer.send(Err(AppendError::Io { batch, source: Arc::clone(&source) }));
                }
            }
        }
    }

    /// Writes a group and makes it durable; returns its frames with their positions in the segment.
    fn write(&mut self, group: &[Append]) -> io::Result<Vec<(Frame, u32)>> {
        if self.owes_roll_back {
            self.roll_back()?;
        }
        let bytes: usize = group.iter().map(Append::frame_len).sum();
        let full = self.size + bytes as u64 > self.segment_bytes && self.size > SEGMENT_HEADER as u64;
        if full || self.owes_segment {
            self.begin_segment()?;
        }
        let mut buffer = mem::take(&mut self.buffer);
        buffer.clear();
        let frames = self.encode(group, &mut buffer);
        self.owes_roll_back = true;
        let written = self.file.write_at(&buffer, self.size);
        self.buffer = buffer;
        written?;
        let since = Instant::now();
        self.file.sync()?;
        self.metrics.synced(since, bytes as u64);
        self.owes_roll_back = false;
        self.size += bytes as u64;
        self.sequence += frames.len() as u64;
        Ok(frames)
    }

    fn encode(&self, group: &[Append], buffer: &mut Vec<u8>) -> Vec<(Frame, u32)> {
        let index = self.shared.index();
        let mut ends: HashMap<PartitionId, Offset> = HashMap::new();
        let mut frames = Vec::with_capacity(group.len());
        for (sequence, append) in (self.sequence..).zip(group) {
            let payload = &append.batch.bytes;
            let end = ends.entry(append.partition).or_insert_with(|| index.end(append.partition));
            let frame = Frame {
                sequence,
                group: self.sequence,
                partition: append.partition,
                offset: *end,
                count: append.batch.count,
                length: u32::try_from(payload.len()).expect("a batch is within its limit"),
                payload_crc: crc32c::crc32c(payload),
            };
            *end = end.next();
            let at = self.size + buffer.len() as u64;
            frames.push((frame, u32::try_from(at).expect("a segment is within its limit")));
            frame.encode(self.segment.salt, payload, buffer);
        }
        frames
    }

    /// Lets readers see a group that is durable.
    fn publish(&self, frames: &[(Frame, u32)]) {
        let mut index = self.shared.index_mut();
        for (frame, at) in frames {
            index.push(frame, *at);
        }
        drop(index);
        self.shared.tail.send_replace(Tail { closed: false });
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.owes_segment = true;
        let (file, segment) = lay_segment(self.disk.as_ref(), self.sequence)?;
        self.shared.index_mut().segments.push(segment);
        self.file = file;
        self.segment = segment;
        self.size = SEGMENT_HEADER as u64;
        self.owes_segment = false;
        Ok(())
    }

    fn try_roll_back(&mut self) {
        if self.owes_roll_back
            && let Err(error) = self.roll_back()
        {
            tracing::error!(%error, "the journal could not be rolled back and takes nothing until it is");
        }
    }

    /// Cuts what a failed write or sync may have left. After a failed sync the system may take pages for
    /// written that are not, so the cut is made durable and the file opened afresh.
    fn roll_back(&mut self) -> io::Result<()> {
        self.file.set_size(self.size)?;
        self.file.sync()?;
        self.file = self.disk.open(&segment::name(self.segment.first))?;
        self.owes_roll_back = false;
        Ok(())
    }
}

/// Makes a segment that holds only its header, durable before it is used. One left over from an attempt
/// that failed is overwritten: it holds no frame.
pub(crate) fn lay_segment(disk: &dyn Disk, first: u64) -> io::Result<(Box<dyn DiskFile>, Segment)> {
    let segment = Segment::new(first);
    let file = disk.create(&segment::name(first))?;
    file.write_at(&segment.encode(), 0)?;
    file.sync()?;
    disk.sync_names()?;
    Ok((file, segment))
}

/// The writer's thread: ends when the queue is closed and empty.
pub(crate) fn run(writer: Writer, queue: &Arc<Queue>, lock: File) {
    let _end = End { queue: Arc::clone(queue), shared: Arc::clone(&writer.shared), lock: Some(lock) };
    let mut writer = writer;
    while let Some(group) = queue.take_group() {
        writer.commit(group);
    }
}

/// Closes the log when the writer ends, even by a panic: nobody may wait for a writer that is gone.
struct End {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    lock: Option<File>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.queue.abandon();
        // First, so that whoever sees the log closed can open it again.
        drop(self.lock.take());
        self.shared.tail.send_replace(Tail { closed: true });
    }
}
