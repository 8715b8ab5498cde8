//! The contract: its code, what it is asked and what it says. `contract/Anchor.sol` is its source, and
//! `contract/Anchor.json` what the compiler makes of it.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, Bytes, keccak256};
use canvass_tlog::Hash;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Head;

const WORD: usize = 32;

/// What the compiler made of the contract.
#[derive(Deserialize)]
struct Artifact {
    creation: Bytes,
    runtime: Bytes,
    /// Where the publisher's address stands in the code on a chain, as a word each time.
    publisher: Vec<usize>,
}

static ARTIFACT: LazyLock<Artifact> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../contract/Anchor.json")).expect("the artifact is in its form")
});

/// The code that makes the contract.
pub(crate) fn creation() -> Bytes {
    ARTIFACT.creation.clone()
}

/// Whose contract this code is; `None` where it is not the contract.
pub(crate) fn publisher(code: &[u8]) -> Option<Address> {
    let first = *ARTIFACT.publisher.first()?;
    let word: [u8; WORD] = code.get(first..first + WORD)?.try_into().ok()?;
    let mut wanted = ARTIFACT.runtime.to_vec();
    for at in &ARTIFACT.publisher {
        wanted.get_mut(*at..at + WORD)?.copy_from_slice(&word);
    }
    (code == wanted && word[..12] == [0; 12]).then(|| Address::from_slice(&word[12..]))
}

/// What a log is called on the chain: the SHA-256 of its origin.
pub(crate) fn origin(origin: &str) -> B256 {
    B256::from_slice(&Sha256::digest(origin))
}

/// The call that anchors a head.
pub(crate) fn anchor_call(origin: B256, old: Head, new: Head) -> Bytes {
    let words = [origin.0, size(old.size), old.root.0, size(new.size), new.root.0];
    call("anchor(bytes32,uint64,bytes32,uint64,bytes32)", &words)
}

/// The call that asks for a log's newest head.
pub(crate) fn heads_call(origin: B256) -> Bytes {
    call("heads(bytes32)", &[origin.0])
}

/// Reads the answer to [`heads_call`].
pub(crate) fn read_head(answer: &[u8]) -> Option<Head> {
    let [size, root] = *words(answer)? else { return None };
    Some(Head { size: read_size(size)?, root: Hash(root) })
}

/// The first topic of the event `Anchored`.
pub(crate) fn anchored_topic() -> B256 {
    keccak256("Anchored(bytes32,uint64,uint64,bytes32)")
}

/// Reads the data of the event `Anchored`: the size before, and the new head.
pub(crate) fn read_anchored(data: &[u8]) -> Option<(u64, Head)> {
    let [old, new, root] = *words(data)? else { return None };
    Some((read_size(old)?, Head { size: read_size(new)?, root: Hash(root) }))
}

/// The contract's reason for a refusal, from what it said.
pub(crate) fn refusal(data: &[u8]) -> Option<&'static str> {
    let errors = [
        ("Fork(uint64,bytes32)", "the log does not stand there as it was said to"),
        ("NotPublisher(address)", "the contract is another key's"),
        ("NotGrown(uint64)", "the log has not grown"),
    ];
    let selector = data.get(..4)?;
    errors.iter().find(|(error, _)| keccak256(error)[..4] == *selector).map(|(_, words)| *words)
}

fn call(signature: &str, words: &[[u8; WORD]]) -> Bytes {
    let mut data = keccak256(signature)[..4].to_vec();
    words.iter().for_each(|word| data.extend_from_slice(word));
    data.into()
}

fn words(data: &[u8]) -> Option<&[[u8; WORD]]> {
    let (words, rest) = data.as_chunks();
    rest.is_empty().then_some(words)
}

fn size(size: u64) -> [u8; WORD] {
    let mut word = [0; WORD];
    word[WORD - 8..].copy_from_slice(&size.to_be_bytes());
    word
}

fn read_size(word: [u8; WORD]) -> Option<u64> {
    let (front, size) = word.split_last_chunk::<8>()?;
    front.iter().all(|byte| *byte == 0).then_some(u64::from_be_bytes(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name(types)` of everything of one kind in the contract.
    fn signatures(kind: &str) -> Vec<String> {
        let artifact: serde_json::Value =
            serde_json::from_str(include_str!("../contract/Anchor.json")).unwrap();
        let of_kind = artifact["abi"].as_array().unwrap().iter().filter(|item| item["type"] == kind);
        let signature = |item: &serde_json::Value| {
            let inputs = item["inputs"].as_array().unwrap().iter();
            let types: Vec<&str> = inputs.map(|input| input["type"].as_str().unwrap()).collect();
            format!("{}({})", item["name"].as_str().unwrap(), types.join(","))
        };
        of_kind.map(signature).collect()
    }

    #[test]
    fn it_is_called_by_its_names() {
        let (functions, errors) = (signatures("function"), signatures("error"));
        for data in [anchor_call(B256::ZERO, Head::NONE, Head::NONE), heads_call(B256::ZERO)] {
            assert!(functions.iter().any(|name| keccak256(name)[..4] == data[..4]), "{functions:?}");
        }
        assert_eq!(signatures("event").iter().map(keccak256).collect::<Vec<_>>(), [anchored_topic()]);
        assert_eq!(errors.len(), 3);
        assert!(errors.iter().all(|name| refusal(&keccak256(name)[..4]).is_some()), "{errors:?}");
        assert_eq!(refusal(&[0; 4]), None);
    }

    #[test]
    fn only_the_contract_is_the_contract() {
        let publisher_word = [[0; 12].as_slice(), &[7; 20]].concat();
        let mut code = ARTIFACT.runtime.to_vec();
        for at in &ARTIFACT.publisher {
            code[*at..at + WORD].copy_from_slice(&publisher_word);
        }
        assert_eq!(publisher(&code), Some(Address::repeat_byte(7)));
        for at in 0..code.len() {
            let mut changed = code.clone();
            changed[at] ^= 1;
            assert_eq!(publisher(&changed), None, "byte {at}");
        }
        assert_eq!(publisher(&code[..code.len() - 1]), None);
        assert_eq!(publisher(&[]), None);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let head = Head { size: 7, root: Hash([3; 32]) };
        let answer = [size(7).as_slice(), &[3; 32]].concat();
        assert_eq!(read_head(&answer), Some(head));
        assert_eq!(read_head(&answer[1..]), None);
        assert_eq!(read_head(&[&answer[..], &[0; 32]].concat()), None);
        let mut beyond = answer;
        beyond[0] = 1;
        assert_eq!(read_head(&beyond), None);
    }
}
