//! Transactions with EIP-1559 fees, and the key that signs them.

use std::path::Path;
use std::{fmt, fs, io};

use alloy_primitives::{Address, B256, Bytes, hex, keccak256};
use alloy_rlp::{Encodable, Header};
use k256::ecdsa::SigningKey;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

/// The type byte of EIP-1559.
const KIND: u8 = 2;
/// A file of a key is no longer than this.
const MAX_KEY_BYTES: u64 = 1024;

/// The key that pays for anchors, and alone may write to its contract.
#[derive(Clone)]
pub struct Key(SigningKey);

// Debug would put the key into logs; it is left out on purpose.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.address())
    }
}

impl Key {
    /// Reads a key file: 64 hexadecimal digits, with or without `0x`.
    pub fn read(path: &Path) -> io::Result<Self> {
        if fs::metadata(path)?.len() > MAX_KEY_BYTES {
            return Err(io::Error::other(FORM));
        }
        fs::read_to_string(path)?.parse()
    }

    /// Makes a key, and gives what its file must hold.
    pub fn generate() -> io::Result<String> {
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
        // Of all numbers of 32 bytes, one in 2^127 is no key.
        let text = format!("{}\n", hex::encode(bytes));
        text.parse::<Key>().map(|_| text)
    }

    /// The address whose transactions it signs.
    pub fn address(&self) -> Address {
        let point = self.0.verifying_key().to_encoded_point(false);
        Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..])
    }
}

const FORM: &str = "a key file holds 64 hexadecimal digits";

impl std::str::FromStr for Key {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let bytes: B256 = text.trim().parse().map_err(|_| io::Error::other(FORM))?;
        let key = SigningKey::from_slice(bytes.as_slice());
        key.map(Self).map_err(|_| io::Error::other("these digits are no key of this kind"))
    }
}

/// What a transaction offers for each unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fees {
    /// To whoever makes the block.
    pub(crate) tip: u128,
    /// In all.
    pub(crate) max: u128,
}

/// A transaction that sends no money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) chain: u64,
    pub(crate) nonce: u64,
    pub(crate) fees: Fees,
    pub(crate) gas: u64,
    /// `None` makes a contract.
    pub(crate) to: Option<Address>,
    pub(crate) data: Bytes,
}

/// A signed transaction; the same transaction and key give the same bytes.
pub(crate) struct Signed {
    pub(crate) hash: B256,
    pub(crate) bytes: Bytes,
}

impl Transaction {
    /// Signs it as EIP-1559 says.
    pub(crate) fn sign(&self, key: &Key) -> Signed {
        let fields = self.fields();
        let digest = keccak256(list(&fields));
        let signed = key.0.sign_prehash_recoverable(digest.as_slice());
        let (signature, recovery) = signed.expect("a digest of 32 bytes is signed");
        let mut fields = fields;
        u64::from(recovery.is_y_odd()).encode(&mut fields);
        for number in [signature.r(), signature.s()] {
            let bytes = number.to_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].encode(&mut fields);
        }
        let bytes = list(&fields);
        Signed { hash: keccak256(&bytes), bytes: bytes.into() }
    }

    fn fields(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.chain.encode(&mut out);
        self.nonce.encode(&mut out);
        self.fees.tip.encode(&mut out);
        self.fees.max.encode(&mut out);
        self.gas.encode(&mut out);
        self.to.as_ref().map_or(&[][..], |to| to.as_slice()).encode(&mut out);
        0_u64.encode(&mut out);
        self.data.as_ref().encode(&mut out);
        // The list of storage that the transaction names beforehand.
        Header { list: true, payload_length: 0 }.encode(&mut out);
        out
    }
}

fn list(fields: &[u8]) -> Vec<u8> {
    let mut out = vec![KIND];
    Header { list: true, payload_length: fields.len() }.encode(&mut out);
    out.extend_from_slice(fields);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_and_not_shown() {
        let digits = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let key: Key = format!("0x{digits}\n").parse().unwrap();
        assert_eq!(key.address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(format!("{key:?}"), "Key(0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266)");
        assert!(digits.parse::<Key>().is_ok());
        let made = Key::generate().unwrap();
        assert_ne!(
            made.parse::<Key>().unwrap().address(),
            Key::generate().unwrap().parse::<Key>().unwrap().address()
        );
        for bad in ["", "0x", &digits[1..], &"00".repeat(32), &"ff".repeat(32), &format!("{digits}0")] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }
}
