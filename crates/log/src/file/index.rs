//! Where each batch lies in the journal. Rebuilt at every start, kept in memory, never written.

use std::collections::HashMap;

use canvass_election::ids::{Offset, PartitionId};

use super::segment::{Frame, Segment};

/// Where a frame lies: 12 bytes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position of the segment in [`Index::segments`].
    pub(crate) segment: u32,
    /// First byte of the frame in the segment.
    pub(crate) at: u32,
    /// Length of the payload.
    pub(crate) length: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) segments: Vec<Segment>,
    partitions: HashMap<PartitionId, Vec<Place>>,
}

impl Index {
    pub(crate) fn end(&self, partition: PartitionId) -> Offset {
        Offset(self.partitions.get(&partition).map_or(0, Vec::len) as u64)
    }

    /// The places of a partition's batches from an offset on.
    pub(crate) fn from(&self, partition: PartitionId, offset: Offset) -> &[Place] {
        let start = usize::try_from(offset.0).unwrap_or(usize::MAX);
        self.partitions.get(&partition).and_then(|places| places.get(start..)).unwrap_or_default()
    }

    /// Takes in a frame of the last segment, which must be its partition's next.
    pub(crate) fn push(&mut self, frame: &Frame, at: u32) {
        let segment = u32::try_from(self.segments.len().saturating_sub(1)).expect("segments are far fewer");
        let place = Place { segment, at, length: frame.length };
        self.partitions.entry(frame.partition).or_default().push(place);
    }
}
