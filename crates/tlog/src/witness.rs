//! What is said to a witness and what it answers, as C2SP's tlog-witness and tlog-cosignature have it.
//!
//! A witness signs that a checkpoint continues the last one it saw of the log. These are the texts; who sends
//! them is another matter.

use signed_note::{Note, Signature, VerifierList};
use tlog_tiles::Hash;

use crate::checkpoint::SignedCheckpoint;
use crate::key::PublicKey;

/// The body of an `add-checkpoint` request: the size of the checkpoint the witness saw last (0 if none), the
/// proof that the log has only grown since (empty from size 0), and the new checkpoint.
pub fn add_checkpoint(old: u64, growth: &[Hash], checkpoint: &SignedCheckpoint) -> String {
    let proof: String = growth.iter().map(|hash| format!("{hash}\n")).collect();
    format!("old {old}\n{proof}\n{}", checkpoint.note())
}

/// The size in a witness's answer 409 (`text/x.tlog.size`): which checkpoint it saw last.
pub fn last_size(body: &str) -> Option<u64> {
    let text = body.strip_suffix('\n')?;
    text.parse().ok().filter(|size: &u64| size.to_string() == text)
}

/// A witness's word that at some time a checkpoint was the newest it knew of the log, and continued all it had seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Cosignature {
    time: u64,
    signature: Signature,
}

impl Cosignature {
    /// Who signed.
    pub fn witness(&self) -> &str {
        self.signature.name()
    }

    /// When, in seconds since 1970 by the witness's clock.
    pub fn time(&self) -> u64 {
        self.time
    }
}

/// Why a witness's answer is no cosignature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// The answer is not lines of signatures.
    #[error("the witness's answer is not a list of signatures")]
    Form,
    /// A known witness's signature does not belong to this checkpoint.
    #[error("a signature is not by the key that it names, or not of this checkpoint")]
    Signature,
}

/// The cosignatures of known witnesses in the answer to [`add_checkpoint`]. Others are passed over.
pub fn read_answer(
    answer: &str,
    checkpoint: &SignedCheckpoint,
    witnesses: &[PublicKey],
) -> Result<Vec<Cosignature>, WitnessError> {
    known(&format!("{}\n{answer}", checkpoint.text()), witnesses)
}

/// The cosignatures of known witnesses under a checkpoint.
pub fn cosignatures(
    checkpoint: &SignedCheckpoint,
    witnesses: &[PublicKey],
) -> Result<Vec<Cosignature>, WitnessError> {
    known(checkpoint.note(), witnesses)
}

fn known(note: &str, witnesses: &[PublicKey]) -> Result<Vec<Cosignature>, WitnessError> {
    let note = Note::from_bytes(note.as_bytes()).map_err(|_| WitnessError::Form)?;
    let keys = witnesses.iter().filter(|key| key.is_witness());
    let keys = VerifierList::new(keys.map(|key| Box::new(key.clone()) as _).collect());
    let signatures = match note.verify(&keys) {
        Ok((signatures, _)) => signatures,
        Err(signed_note::NoteError::UnverifiedNote) => Vec::new(),
        Err(_) => return Err(WitnessError::Signature),
    };
    let timed = |signature: Signature| {
        let (time, _) = signature.signature().split_first_chunk::<8>()?;
        Some(Cosignature { time: u64::from_be_bytes(*time), signature })
    };
    Ok(signatures.into_iter().filter_map(timed).collect())
}

impl SignedCheckpoint {
    /// The same checkpoint with cosignatures under it. They are no part of a proof's leaf.
    #[must_use]
    pub fn cosigned(&self, cosignatures: &[Cosignature]) -> Self {
        self.with(&cosignatures.iter().map(|cosignature| cosignature.signature.clone()).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use signed_note::Signer;

    use super::*;
    use crate::key::{SecretKey, cosigned};
    use crate::leaf_hash;

    /// What a witness answers.
    fn answer(witness: &SecretKey, checkpoint: &SignedCheckpoint, time: u64) -> String {
        let signature = witness.sign(&cosigned(time, checkpoint.text().as_bytes())).unwrap();
        let id = signed_note::Verifier::key_id(&witness.witness());
        let bytes = [&time.to_be_bytes()[..], &signature].concat();
        let line = Signature::new(witness.name().to_owned(), id, bytes).unwrap().to_bytes();
        String::from_utf8(line).unwrap()
    }

    fn setting() -> (SecretKey, SignedCheckpoint, [SecretKey; 2]) {
        let key = SecretKey::generate("count.example").unwrap();
        let checkpoint = SignedCheckpoint::sign(&key, key.name(), 9, leaf_hash(b"a"));
        let witnesses = ["w1.example", "w2.example"].map(|name| SecretKey::generate(name).unwrap());
        (key, checkpoint, witnesses)
    }

    #[test]
    fn cosignatures_of_known_witnesses_are_kept() {
        let (key, checkpoint, [first, second]) = setting();
        let both = answer(&first, &checkpoint, 7) + &answer(&second, &checkpoint, 8);
        let read = read_answer(&both, &checkpoint, &[first.witness()]).unwrap();
        let [only] = &read[..] else { panic!("{read:?}") };
        assert_eq!((only.witness(), only.time()), ("w1.example", 7));
        let signed = checkpoint.cosigned(&read);
        assert_eq!(SignedCheckpoint::open(signed.note().as_bytes(), &key.public()).unwrap(), signed);
        let known = [first.witness(), second.witness()];
        assert_eq!(cosignatures(&signed, &known).unwrap(), read);
        assert_eq!(read_answer(&both, &checkpoint, &known).unwrap().len(), 2);
        assert_eq!(cosignatures(&checkpoint, &known).unwrap(), []);
    }

    #[test]
    fn what_a_witness_did_not_sign_is_refused() {
        let (key, checkpoint, [first, _]) = setting();
        let other = SignedCheckpoint::sign(&key, key.name(), 10, leaf_hash(b"b"));
        let of_another = answer(&first, &other, 7);
        assert_eq!(read_answer(&of_another, &checkpoint, &[first.witness()]), Err(WitnessError::Signature));
        for wrong in ["", "hello\n", "— w1.example AAAA\n", "— w1.example AAAAAAAA"] {
            assert_eq!(
                read_answer(wrong, &checkpoint, &[first.witness()]),
                Err(WitnessError::Form),
                "{wrong}"
            );
        }
        // The log's own key is no witness, whatever list it is put into.
        assert_eq!(cosignatures(&checkpoint, &[key.public()]).unwrap(), []);
    }

    #[test]
    fn requests_are_those_of_c2sp() {
        let (_, checkpoint, _) = setting();
        let proof = [leaf_hash(b"x"), leaf_hash(b"y")];
        let body = add_checkpoint(4, &proof, &checkpoint);
        let lines: Vec<_> = body.lines().collect();
        assert_eq!(lines[..5], ["old 4", &proof[0].to_string(), &proof[1].to_string(), "", "count.example"]);
        assert!(body.ends_with(checkpoint.note()));
        assert_eq!(add_checkpoint(0, &[], &checkpoint), format!("old 0\n\n{}", checkpoint.note()));
        assert_eq!(last_size("20852163\n"), Some(20_852_163));
        assert_eq!(last_size("0\n"), Some(0));
        for text in ["", "5", "05\n", "5\n\n", "-1\n", "+5\n"] {
            assert_eq!(last_size(text), None, "{text}");
        }
    }
}
