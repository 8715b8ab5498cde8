//! Confirmations of votes, written as bytes without the steps in between: there are a million a second.

use canvass_election::ids::{RecordId, Timestamp, Topic};
use canvass_protocol::time;
use canvass_tlog::receipt::BatchReceipts;

/// Writes confirmations. The records of a batch have one time, so the text of the last one is kept.
pub(crate) struct Confirmation {
    time: Timestamp,
    text: String,
}

impl Confirmation {
    pub(crate) fn new() -> Self {
        Confirmation { time: Timestamp(0), text: time::format(Timestamp(0)) }
    }

    /// Writes the members of an `Accepted` that is counted, without the braces around them.
    /// `known`: what the record did is known, and that it counts.
    pub(crate) fn write(
        &mut self,
        (record, time, known): (RecordId, Timestamp, bool),
        receipts: Option<&BatchReceipts>,
        out: &mut Vec<u8>,
    ) {
        if self.time != time {
            (self.time, self.text) = (time, time::format(time));
        }
        let topic: &[u8] = match record.partition.topic {
            Topic::Returns => b"returns",
            Topic::Votes => b"votes",
        };
        out.extend_from_slice(br#""receipt":{"record":""#);
        out.extend_from_slice(topic);
        for number in [u64::from(record.partition.index), record.offset.0, u64::from(record.position)] {
            out.push(b'-');
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        out.extend_from_slice(br#"","time":""#);
        out.extend_from_slice(self.text.as_bytes());
        if let Some(receipts) = receipts {
            out.extend_from_slice(br#"","promise":""#);
            receipts.write_json(record.position, out);
        }
        let outcome: &[u8] = if known { br#""},"outcome":"counted""# } else { br#""},"outcome":"recorded""# };
        out.extend_from_slice(outcome);
    }
}

#[cfg(test)]
mod tests {
    use canvass_election::ids::{Offset, PartitionId};
    use canvass_protocol::api::{Accepted, Receipt};
    use canvass_tlog::{SecretKey, record_hash};

    use super::*;

    #[test]
    fn it_is_what_an_accepted_vote_serialises_to() {
        let mut confirmation = Confirmation::new();
        let key = SecretKey::generate("count.example/votes/3").unwrap();
        let receipts = BatchReceipts::sign(&key, 9, 5, vec![record_hash(b"a"); 30]);
        for (millis, receipts, known) in [
            (0, None, true),
            (1_604_452_819_239, Some(&receipts), true),
            (1_604_452_819_239, None, false),
            (5, Some(&receipts), true),
        ] {
            let record = RecordId { partition: PartitionId::votes(3), offset: Offset(millis), position: 17 };
            let time = Timestamp(millis);
            let mut written = vec![b'{'];
            confirmation.write((record, time, known), receipts, &mut written);
            written.push(b'}');
            let promise = receipts.and_then(|receipts| receipts.text(17));
            let accepted = Accepted {
                receipt: Receipt { record, time, promise },
                outcome: if known { "counted" } else { "recorded" }.into(),
                held_because: None,
            };
            assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&accepted).unwrap());
        }
    }
}
