//! The journal in a real folder.

use std::fs;

use bytes::Bytes;
use futures_util::StreamExt;

use super::segment::{FRAME_HEADER, SEGMENT_HEADER};
use super::*;
use crate::conformance;

/// Small segments, so that tests cross from one to the next.
fn small() -> Options {
    Options { segment_bytes: 2000, ..Options::default() }
}

fn open(folder: &Path) -> (FileLog, Recovered) {
    FileLog::open_with(folder, small()).unwrap()
}

crate::log_conformance!(async || {
    let folder = tempfile::tempdir().unwrap();
    (open(folder.path()).0, folder)
});

#[tokio::test]
async fn a_reopened_journal_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    conformance::a_reopened_log_is_the_same(async || open(folder.path()).0).await;
}

const P: PartitionId = PartitionId::votes(0);
const PAYLOAD: usize = 100;
const FRAME: usize = FRAME_HEADER + PAYLOAD;

fn batch(n: usize) -> Batch {
    Batch { count: 3, bytes: Bytes::from(vec![u8::try_from(n).unwrap(); PAYLOAD]) }
}

/// A journal of `groups`, each one group commit of so many frames of [`FRAME`] bytes, in one segment.
async fn journal(groups: &[usize]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = start(Arc::new(Folder::open(folder.path()).unwrap()), SEGMENT_BYTES).unwrap();
    let mut n = 0;
    for group in groups {
        let mut answers = Vec::new();
        let appends = (0..*group).map(|_| {
            let (answer, answered) = oneshot::channel();
            answers.push(answered);
            n += 1;
            Append { partition: P, batch: batch(n - 1), answer }
        });
        writer.commit(appends.collect());
        for answered in answers {
            answered.await.unwrap().unwrap();
        }
    }
    folder
}

/// Changes the only segment of a journal.
fn change(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(segment::name(0));
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

async fn read_all(log: &FileLog) -> Vec<Batch> {
    log.close().await;
    log.read(P, Offset(0)).map(|item| item.unwrap().batch).collect().await
}

fn frame_at(n: usize) -> usize {
    SEGMENT_HEADER + n * FRAME
}

fn corrupt_at(folder: &Path) -> (String, u64) {
    let before = fs::read(folder.join(segment::name(0))).unwrap();
    let error = FileLog::open(folder).expect_err("a damaged journal is refused");
    assert!(error.to_string().contains("damaged at byte"), "{error}");
    let OpenError::Corrupt { segment, at, .. } = error else { panic!("{error}") };
    assert_eq!(fs::read(folder.join(segment::name(0))).unwrap(), before, "nothing is changed");
    (segment, at)
}

#[tokio::test]
async fn a_tail_cut_anywhere_is_cut_at_the_last_whole_frame() {
    for cut in [1, 10, FRAME_HEADER, FRAME_HEADER + 1, FRAME - 1] {
        let folder = journal(&[1, 1, 1]).await;
        change(folder.path(), |bytes| bytes.truncate(frame_at(2) + cut));
        let (log, recovered) = FileLog::open(folder.path()).unwrap();
        let torn = TornTail { segment: segment::name(0), at: frame_at(2) as u64, bytes_cut: cut as u64 };
        assert_eq!(recovered.torn_tail, Some(torn));
        assert_eq!((recovered.batches, recovered.records), (2, 6));
        assert_eq!(log.append(P, batch(9)).await.unwrap(), Offset(2));
        assert_eq!(read_all(&log).await, [batch(0), batch(1), batch(9)]);
        drop(log);
        assert_eq!(FileLog::open(folder.path()).unwrap().1.torn_tail, None, "the cut lasts");
    }
}

#[tokio::test]
async fn rubbish_and_zeros_after_the_last_frame_are_a_torn_tail() {
    for rubbish in [vec![0; 4096], vec![0xF7; 5000], b"\xF7frm".repeat(300)] {
        let folder = journal(&[1, 1]).await;
        change(folder.path(), |bytes| bytes.extend_from_slice(&rubbish));
        let (log, recovered) = FileLog::open(folder.path()).unwrap();
        assert_eq!(recovered.torn_tail.unwrap().bytes_cut, rubbish.len() as u64);
        assert_eq!(read_all(&log).await, [batch(0), batch(1)]);
    }
}

#[tokio::test]
async fn a_bad_frame_of_the_last_group_is_torn_though_whole_frames_follow() {
    let folder = journal(&[2, 4]).await;
    change(folder.path(), |bytes| bytes[frame_at(3) + 5] ^= 1);
    let (log, recovered) = FileLog::open(folder.path()).unwrap();
    assert_eq!(recovered.torn_tail.unwrap().at, frame_at(3) as u64);
    assert_eq!(read_all(&log).await, [batch(0), batch(1), batch(2)]);
}

#[tokio::test]
async fn a_bad_frame_of_an_earlier_group_is_damage() {
    for byte in [0, 5, 40, FRAME_HEADER, FRAME - 1] {
        let folder = journal(&[2, 4]).await;
        change(folder.path(), |bytes| bytes[frame_at(1) + byte] ^= 1);
        assert_eq!(corrupt_at(folder.path()), (segment::name(0), frame_at(1) as u64));
    }
}

#[tokio::test]
async fn frames_lost_from_the_middle_are_damage() {
    let folder = journal(&[1, 1, 1]).await;
    change(folder.path(), |bytes| drop(bytes.drain(frame_at(1)..frame_at(2))));
    assert_eq!(corrupt_at(folder.path()).1, frame_at(1) as u64);
}

#[tokio::test]
async fn more_rubbish_than_a_group_can_leave_is_damage() {
    let folder = journal(&[1, 1]).await;
    change(folder.path(), |bytes| bytes.resize(bytes.len() + writer::GROUP_BYTES + 1, 0));
    assert_eq!(corrupt_at(folder.path()).1, frame_at(2) as u64);
}

#[tokio::test]
async fn a_damaged_header_is_refused() {
    let folder = journal(&[1]).await;
    change(folder.path(), |bytes| bytes[20] ^= 1);
    assert_eq!(corrupt_at(folder.path()).1, 0);
}

#[tokio::test]
async fn a_newer_version_is_refused() {
    let folder = journal(&[1]).await;
    change(folder.path(), |bytes| bytes[8] = 9);
    assert!(matches!(FileLog::open(folder.path()), Err(OpenError::Version { found: 9, .. })));
}

/// Appends one batch a group to a journal of small segments.
async fn many_segments() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path());
    for n in 0..40 {
        log.append(P, batch(n)).await.unwrap();
    }
    drop(log);
    let mut names = Folder::open(folder.path()).unwrap().list().unwrap();
    names.retain(|name| segment::is_segment(name));
    names.sort();
    assert_eq!(names.len(), 4);
    (folder, names)
}

#[tokio::test]
async fn a_torn_tail_in_an_earlier_segment_is_damage() {
    let (folder, names) = many_segments().await;
    let path = folder.path().join(&names[1]);
    let size = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(size - 1).unwrap();
    let error = FileLog::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { segment, .. } if segment == names[1]));
}

#[tokio::test]
async fn a_missing_segment_is_damage() {
    for missing in 0..3 {
        let (folder, names) = many_segments().await;
        fs::remove_file(folder.path().join(&names[missing])).unwrap();
        let error = FileLog::open(folder.path()).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { segment, .. } if segment == names[missing + 1]));
    }
}

#[tokio::test]
async fn a_segment_under_a_wrong_name_is_refused() {
    let (folder, names) = many_segments().await;
    fs::rename(folder.path().join(&names[3]), folder.path().join("copy.seg")).unwrap();
    let error = FileLog::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { segment, .. } if segment == "copy.seg"));
}

#[tokio::test]
async fn a_segment_torn_as_it_was_begun_is_begun_again() {
    for left in [0, 1, 31] {
        let (folder, _) = many_segments().await;
        let path = folder.path().join(segment::name(40));
        fs::write(&path, vec![0; left]).unwrap();
        let (log, recovered) = open(folder.path());
        assert_eq!(recovered.torn_tail.map(|torn| torn.at), Some(0));
        assert_eq!(log.append(P, batch(40)).await.unwrap(), Offset(40));
        assert_eq!(read_all(&log).await.len(), 41);
        drop(log);
        assert_eq!(open(folder.path()).1.batches, 41);
    }
}

#[tokio::test]
async fn a_damaged_frame_is_noticed_by_a_reader() {
    let folder = journal(&[1, 1, 1]).await;
    let (log, _) = FileLog::open(folder.path()).unwrap();
    change(folder.path(), |bytes| bytes[frame_at(1) + FRAME_HEADER] ^= 1);
    log.close().await;
    let read: Vec<_> = log.read(P, Offset(0)).collect().await;
    let damaged = |error: &ReadError| {
        let at = frame_at(1) as u64;
        matches!(error, ReadError::Corrupt { place, at: found, .. } if *place == segment::name(0) && *found == at)
    };
    assert!(damaged(read.last().unwrap().as_ref().unwrap_err()));
    assert!(damaged(&log.entry(P, Offset(1)).await.unwrap_err()));
    assert_eq!(log.entry(P, Offset(2)).await.unwrap().unwrap().batch, batch(2));
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("made/on/the/way");
    let (log, _) = FileLog::open(&inner).unwrap();
    let error = FileLog::open(&inner).unwrap_err();
    assert!(matches!(&error, OpenError::Locked(path) if *path == inner), "{error}");
    log.close().await;
    let (again, _) = FileLog::open(&inner).unwrap();
    drop(again);
    FileLog::open(&inner).unwrap();
}

#[tokio::test]
async fn a_full_queue_gives_the_batch_back_at_once() {
    let queue = Queue::new(2, 3 * FRAME);
    let push = |n: usize, bytes: usize| {
        let batch = Batch { count: 1, bytes: Bytes::from(vec![u8::try_from(n).unwrap(); bytes]) };
        queue.push(Append { partition: P, batch, answer: oneshot::channel().0 })
    };
    push(0, PAYLOAD).unwrap();
    let full = push(1, 2 * FRAME + 1).unwrap_err();
    assert!(matches!(full, AppendError::Full(batch) if batch.bytes.len() == 2 * FRAME + 1), "by bytes");
    push(2, PAYLOAD).unwrap();
    assert!(matches!(push(3, 0), Err(AppendError::Full(_))), "by count");
    assert_eq!(queue.take_group().unwrap().len(), 2);
    push(4, PAYLOAD).unwrap();
    queue.close();
    assert!(matches!(push(5, 0), Err(AppendError::Closed(_))));
    assert_eq!(queue.take_group().unwrap().len(), 1);
    assert!(queue.take_group().is_none());
}

#[test]
fn a_group_has_a_limit() {
    let queue = Queue::new(QUEUE_BATCHES, 4 * writer::GROUP_BYTES);
    for _ in 0..9 {
        let batch = Batch { count: 1, bytes: Bytes::from(vec![0; writer::GROUP_BYTES / 4]) };
        queue.push(Append { partition: P, batch, answer: oneshot::channel().0 }).unwrap();
    }
    let groups: Vec<_> = (0..3).map(|_| queue.take_group().unwrap().len()).collect();
    assert_eq!(groups, [3, 3, 3]);
}
