//! The list of publications: which number stood for which prefix of the log.
//!
//! A line a publication, with a checksum that begins with the log it is about. A line that is torn, damaged or
//! about another log is left out: its number is then unknown, which is the truth.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use canvass_election::ids::{ContestId, Offset, PartitionId, SelectionId, Timestamp};
use canvass_protocol::document::Stamp;
use canvass_protocol::stream::Seq;
use serde::{Deserialize, Serialize};

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publication {
    /// The board's run.
    pub(crate) epoch: u64,
    /// The number within the run.
    pub(crate) seq: u64,
    /// When it was published, by the server's own time.
    pub(crate) published: Timestamp,
    /// The time of the last record in it.
    pub(crate) time: Timestamp,
    /// The offsets it stands on.
    pub(crate) watermark: BTreeMap<PartitionId, Offset>,
    /// The contests that changed.
    pub(crate) contests: Vec<ContestId>,
    /// The projections that were new; what they say follows from what is written here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) projections: Vec<Projected>,
}

/// What a projection was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Projected {
    /// The contest.
    pub(crate) contest: ContestId,
    /// The number, in the same run, of the results it stands on.
    pub(crate) basis: u64,
    /// The hash of model and baseline.
    pub(crate) model: String,
    /// Whom the projection before it would have let the desk call.
    pub(crate) before: Option<SelectionId>,
}

impl Publication {
    pub(crate) fn number(&self) -> Seq {
        Seq { epoch: self.epoch, seq: self.seq }
    }

    pub(crate) fn stamp(&self) -> Arc<Stamp> {
        Arc::new(Stamp { seq: self.number(), time: self.time, watermark: self.watermark.clone() })
    }

    fn check(&self, log: u32) -> io::Result<u32> {
        Ok(crc32c::crc32c_append(log, &serde_json::to_vec(self)?))
    }
}

#[derive(Serialize, Deserialize)]
struct Line<P = Publication> {
    check: u32,
    #[serde(flatten)]
    publication: P,
}

/// What is known of earlier publications.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// In ascending order of their numbers.
    pub(crate) publications: Vec<Publication>,
    /// The last epoch, also where none of its publications stands any more.
    pub(crate) epoch: u64,
}

impl Past {
    /// Reads the list, as far as it is about the log with this checksum and these ends.
    pub(crate) fn read(path: &Path, log: u32, ends: &BTreeMap<PartitionId, Offset>) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Past::default()),
            Err(error) => return Err(error),
        };
        let mut past = Past::default();
        let mut left_out = 0u64;
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line>(&line) {
                Ok(Line { check, publication: p }) if p.check(log)? == check => past.take(p),
                _ => left_out += 1,
            }
        }
        let known = past.publications.len();
        past.put_back(ends);
        let gone = known - past.publications.len();
        if left_out > 0 {
            tracing::warn!(left_out, "lines of the list of publications are damaged or of another log");
        }
        if gone > 0 {
            tracing::warn!(
                gone,
                "publications stand on records that the log does not hold; their numbers are void"
            );
        }
        Ok(past)
    }

    fn take(&mut self, publication: Publication) {
        self.epoch = self.epoch.max(publication.epoch);
        self.put_back(&publication.watermark);
        if self.publications.last().is_none_or(|last| last.number() < publication.number()) {
            self.publications.push(publication);
        }
    }

    /// Forgets what stands on more than the log held at this point: the log was put back to an older state, and
    /// other records have come, or will come, in the place of those.
    fn put_back(&mut self, ends: &BTreeMap<PartitionId, Offset>) {
        let beyond =
            |p: &Publication| p.watermark.iter().any(|(id, end)| ends.get(id).is_none_or(|e| e < end));
        while self.publications.pop_if(|p| beyond(p)).is_some() {}
    }
}

/// The list as it grows.
pub(crate) struct List {
    file: File,
    log: u32,
}

impl List {
    pub(crate) fn open(path: &Path, log: u32) -> io::Result<Self> {
        Ok(List { file: OpenOptions::new().create(true).append(true).open(path)?, log })
    }

    pub(crate) fn add(&mut self, publication: &Publication) -> io::Result<()> {
        // The line break comes first: it ends whatever an earlier write left torn.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &Line { check: publication.check(self.log)?, publication })?;
        self.file.write_all(&line)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: u32 = 77;
    const PARTITIONS: [PartitionId; 2] = [PartitionId::CONTROL, PartitionId::votes(0)];

    fn ends(a: u64, b: u64) -> BTreeMap<PartitionId, Offset> {
        PARTITIONS.into_iter().zip([Offset(a), Offset(b)]).collect()
    }

    fn publication(epoch: u64, seq: u64, (a, b): (u64, u64)) -> Publication {
        let (published, time) = (Timestamp(9), Timestamp(8));
        Publication {
            epoch,
            seq,
            published,
            time,
            watermark: ends(a, b),
            contests: vec![ContestId(1)],
            projections: Vec::new(),
        }
    }

    fn written(publications: &[Publication]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("publications.ndjson");
        let mut list = List::open(&path, LOG).unwrap();
        publications.iter().for_each(|p| list.add(p).unwrap());
        (folder, path)
    }

    fn numbers(past: &Past) -> Vec<(u64, u64)> {
        past.publications.iter().map(|p| (p.epoch, p.seq)).collect()
    }

    #[test]
    fn a_list_reads_back() {
        let all = [publication(7, 1, (1, 1)), publication(7, 2, (1, 5)), publication(9, 1, (3, 5))];
        let (_kept, path) = written(&all);
        let past = Past::read(&path, LOG, &ends(3, 5)).unwrap();
        assert_eq!((past.publications, past.epoch), (all.to_vec(), 9));
    }

    #[test]
    fn no_flipped_bit_changes_what_a_number_stands_for() {
        let all = [publication(7, 1, (1, 1)), publication(7, 2, (1, 5)), publication(7, 3, (3, 8))];
        let (_kept, path) = written(&all);
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            let past = Past::read(&path, LOG, &ends(3, 8)).unwrap();
            assert!(past.publications.iter().all(|p| all.contains(p)), "bit {bit}");
            // A flipped line break costs two lines.
            assert!(past.publications.len() + 2 >= all.len(), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let (_kept, path) = written(&[publication(7, 1, (1, 1)), publication(7, 2, (1, 5))]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        List::open(&path, LOG).unwrap().add(&publication(7, 3, (1, 6))).unwrap();
        assert_eq!(numbers(&Past::read(&path, LOG, &ends(9, 9)).unwrap()), [(7, 1), (7, 3)]);
    }

    #[test]
    fn a_list_of_another_log_is_of_no_use() {
        let (_kept, path) = written(&[publication(7, 1, (1, 1))]);
        assert_eq!(numbers(&Past::read(&path, LOG + 1, &ends(9, 9)).unwrap()), []);
    }

    #[test]
    fn numbers_beyond_a_log_that_was_put_back_stay_void_when_it_has_grown_again() {
        let (_kept, path) = written(&[publication(7, 1, (1, 1)), publication(7, 2, (4, 5))]);
        let past = Past::read(&path, LOG, &ends(4, 3)).unwrap();
        assert_eq!((numbers(&past), past.epoch), (vec![(7, 1)], 7));
        List::open(&path, LOG).unwrap().add(&publication(8, 1, (4, 3))).unwrap();
        let past = Past::read(&path, LOG, &ends(10, 10)).unwrap();
        assert_eq!(numbers(&past), [(7, 1), (8, 1)]);
    }
}
