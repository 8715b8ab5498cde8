//! Reads batches back from the segments.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId};

use super::Shared;
use super::disk::DiskFile;
use super::index::Place;
use super::segment::{self, FRAME_HEADER, Segment};
use crate::{Entry, ReadError};

/// The most bytes read at once, unless one frame is longer.
const SPAN_BYTES: u32 = 1 << 20;
/// Frames of other partitions that are cheaper to read over than to read around.
const GAP_BYTES: u32 = 16 << 10;

/// Reads one partition; keeps the segment it is in open.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    partition: PartitionId,
    open: Option<(Segment, Box<dyn DiskFile>)>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, partition: PartitionId) -> Self {
        Self { shared, partition, open: None }
    }

    /// Some batches from an offset on, at most `limit`; none at the end.
    ///
    /// The read blocks the thread it is called on, which is meant: what is near the end lies in the page
    /// cache, where a read of a megabyte takes less time than a change of threads costs at this rate, and
    /// a long replay reads ahead sequentially.
    pub(crate) fn chunk(&mut self, from: Offset, limit: usize) -> Result<VecDeque<Entry>, ReadError> {
        let (run, segment) = {
            let index = self.shared.index();
            let run = together(index.from(self.partition, from), limit).to_vec();
            let Some(first) = run.first() else { return Ok(VecDeque::new()) };
            let segment = index.segments[first.segment as usize];
            (run, segment)
        };
        let start = run[0].at;
        let length = run.last().map_or(0, |last| frame_end(last) - u64::from(start));
        let mut buffer = vec![0; usize::try_from(length).expect("a span fits in memory")];
        self.file(segment)?.read_at(&mut buffer, u64::from(start))?;
        let bytes = Bytes::from(buffer);
        let numbered = run.iter().zip(from.0..);
        numbered.map(|(place, n)| self.decode(segment, &bytes, start, Offset(n), place)).collect()
    }

    fn decode(
        &self,
        segment: Segment,
        bytes: &Bytes,
        start: u32,
        offset: Offset,
        place: &Place,
    ) -> Result<Entry, ReadError> {
        let corrupt =
            |what| ReadError::Corrupt { place: segment::name(segment.first), at: u64::from(place.at), what };
        let frame_bytes = bytes.slice((place.at - start) as usize..);
        let (frame, batch) = segment::read(segment.salt, &frame_bytes).map_err(corrupt)?;
        if (frame.partition, frame.offset) != (self.partition, offset) {
            return Err(corrupt("another frame lies where this one was written"));
        }
        Ok(Entry { partition: self.partition, offset, batch })
    }

    fn file(&mut self, segment: Segment) -> Result<&dyn DiskFile, ReadError> {
        let open = match self.open.take() {
            Some((of, file)) if of == segment => (of, file),
            _ => (segment, self.shared.disk.open(&segment::name(segment.first))?),
        };
        Ok(self.open.insert(open).1.as_ref())
    }
}

/// The places at the start of `places` that are worth one read.
fn together(places: &[Place], limit: usize) -> &[Place] {
    let Some(first) = places.first() else { return places };
    let mut end = frame_end(first);
    let mut count = 1;
    for place in places.iter().take(limit).skip(1) {
        let near = u64::from(place.at) <= end + u64::from(GAP_BYTES);
        let fits = frame_end(place) <= u64::from(first.at) + u64::from(SPAN_BYTES);
        if place.segment != first.segment || !near || !fits {
            break;
        }
        end = frame_end(place);
        count += 1;
    }
    &places[..count]
}

fn frame_end(place: &Place) -> u64 {
    u64::from(place.at) + FRAME_HEADER as u64 + u64::from(place.length)
}
