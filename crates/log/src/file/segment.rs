//! The bytes of a segment: its header and its frames. `docs/log-format.md` has the map.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use canvass_election::ids::{Offset, PartitionId, Topic};

use crate::{Batch, MAX_BATCH_BYTES};

/// The version of the format that is written here.
pub(crate) const VERSION: u32 = 1;
/// The length of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 32;
/// The length of a frame's header; the payload follows.
pub(crate) const FRAME_HEADER: usize = 48;
/// The longest frame.
pub(crate) const MAX_FRAME: usize = FRAME_HEADER + MAX_BATCH_BYTES;

const MAGIC: [u8; 8] = *b"CANVASSJ";
const MARKER: [u8; 4] = *b"\xF7frm";
const SUFFIX: &str = ".seg";

/// The name of the segment whose first frame has this sequence number.
pub(crate) fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// Whether a file name belongs to a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// The sequence number in a segment's name.
pub(crate) fn first_of(file_name: &str) -> Option<u64> {
    let first = file_name.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(first) == file_name).then_some(first)
}

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The sequence number of its first frame.
    pub(crate) first: u64,
    /// Where the checksum of every frame header starts. Nobody who only sends payloads knows it, so no
    /// payload can pass for a frame.
    pub(crate) salt: u32,
}

/// What is wrong with a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u32),
}

impl Segment {
    /// A new segment, with a random salt.
    pub(crate) fn new(first: u64) -> Self {
        // The standard library's only source of randomness; it is a keyed hash of nothing.
        let random = RandomState::new().hash_one(first).to_le_bytes();
        Self { first, salt: u32_at(&random, 0) }
    }

    pub(crate) fn encode(self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        if bytes.len() < SEGMENT_HEADER || bytes[0..8] != MAGIC {
            return Err(HeaderFault::Damaged);
        }
        // Before the checksum, which another version may keep elsewhere. No version is 0: that is a header
        // of which only the beginning was written.
        let version = u32_at(bytes, 8);
        if version != VERSION && version != 0 {
            return Err(HeaderFault::Version(version));
        }
        if u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28]) {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self { first: u64_at(bytes, 16), salt: u32_at(bytes, 12) })
    }
}

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The frame's number in the whole journal.
    pub(crate) sequence: u64,
    /// The first frame of the group commit that wrote this one: every frame before it was durable by then.
    pub(crate) group: u64,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) count: u32,
    /// Length of the payload.
    pub(crate) length: u32,
    /// Checksum of the payload.
    pub(crate) payload_crc: u32,
}

impl Frame {
    /// Writes the frame of a batch.
    pub(crate) fn encode(self, salt: u32, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        let topic = match self.partition.topic {
            Topic::Returns => 0,
            Topic::Votes => 1,
        };
        out.extend_from_slice(&[topic, 0]);
        out.extend_from_slice(&self.partition.index.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.group.to_le_bytes());
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(payload);
    }

    /// Reads a frame's header; says what is wrong where there is none.
    pub(crate) fn decode(salt: u32, bytes: &[u8]) -> Result<Self, &'static str> {
        let Some(bytes) = bytes.get(..FRAME_HEADER) else { return Err("a frame header is cut short") };
        if bytes[0..4] != MARKER {
            return Err("no frame begins here");
        }
        if u32_at(bytes, 4) != crc32c::crc32c_append(salt, &bytes[8..]) {
            return Err("the checksum of a frame header is wrong");
        }
        let topic = match (bytes[20], bytes[21]) {
            (0, 0) => Topic::Returns,
            (1, 0) => Topic::Votes,
            _ => return Err("a frame is of a partition that this version does not know"),
        };
        let frame = Self {
            payload_crc: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            count: u32_at(bytes, 16),
            partition: PartitionId { topic, index: u16::from_le_bytes([bytes[22], bytes[23]]) },
            sequence: u64_at(bytes, 24),
            group: u64_at(bytes, 32),
            offset: Offset(u64_at(bytes, 40)),
        };
        if frame.payload_len() > MAX_BATCH_BYTES {
            return Err("a frame is longer than the limit");
        }
        Ok(frame)
    }

    /// Checks the bytes after the header.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), &'static str> {
        if crc32c::crc32c(payload) == self.payload_crc {
            Ok(())
        } else {
            Err("the checksum of a payload is wrong")
        }
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.length as usize
    }

    /// Length of header and payload.
    pub(crate) fn total_len(&self) -> usize {
        FRAME_HEADER + self.payload_len()
    }
}

/// Whether a frame header somewhere in `bytes` says that frame `sequence` was durable when it was written.
pub(crate) fn proves_durable(salt: u32, bytes: &[u8], sequence: u64) -> bool {
    bytes.windows(FRAME_HEADER).any(|window| {
        window[..4] == MARKER && Frame::decode(salt, window).is_ok_and(|frame| frame.group > sequence)
    })
}

/// Reads one whole frame at the start of `bytes`, whose payload is shared, not copied.
pub(crate) fn read(salt: u32, bytes: &Bytes) -> Result<(Frame, Batch), &'static str> {
    let frame = Frame::decode(salt, bytes)?;
    if bytes.len() < frame.total_len() {
        return Err("a payload is cut short");
    }
    let payload = bytes.slice(FRAME_HEADER..frame.total_len());
    frame.check(&payload)?;
    Ok((frame, Batch { count: frame.count, bytes: payload }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Frame {
        Frame {
            sequence: 7,
            group: 5,
            partition: PartitionId::votes(3),
            offset: Offset(2),
            count: 9,
            length: u32::try_from(payload.len()).unwrap(),
            payload_crc: crc32c::crc32c(payload),
        }
    }

    #[test]
    fn a_segment_header_reads_back() {
        let segment = Segment::new(42);
        assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
        for at in 0..SEGMENT_HEADER {
            let mut bytes = segment.encode();
            bytes[at] ^= 1;
            assert!(Segment::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_changed_byte_anywhere_in_a_frame_is_noticed() {
        let mut bytes = Vec::new();
        frame(b"payload").encode(1, b"payload", &mut bytes);
        let (read_frame, batch) = read(1, &Bytes::from(bytes.clone())).unwrap();
        assert_eq!((read_frame, &batch.bytes[..]), (frame(b"payload"), &b"payload"[..]));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(1, &Bytes::from(changed)).is_err(), "byte {at}");
            assert!(read(1, &Bytes::copy_from_slice(&bytes[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_frame_under_another_salt_is_no_frame() {
        let mut bytes = Vec::new();
        frame(b"payload").encode(1, b"payload", &mut bytes);
        assert!(proves_durable(1, &bytes, 4));
        assert!(!proves_durable(1, &bytes, 5));
        assert!(!proves_durable(2, &bytes, 4));
    }
}
