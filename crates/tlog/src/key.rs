//! Keys, in the text form of Go's notes, and the signatures they make and check.

use std::fmt;
use std::str::FromStr;

use base64::prelude::*;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use rand::TryRngCore;
use rand::rngs::OsRng;
use signed_note::{is_key_name_valid, key_id};

const ED25519: u8 = 1;
const COSIGNATURE: u8 = 4;
const SECRET: &str = "PRIVATE+KEY+";

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not in the form of a key.
    #[error("this is not a key of the form {0}")]
    Form(&'static str),
    /// The id does not belong to the rest.
    #[error("the key's id is not that of its name and bytes: a part of the text was changed or lost")]
    Id,
    /// Of a kind this program does not know.
    #[error("keys of kind {0} are not known; only Ed25519 (1) and Ed25519 cosignatures (4) are")]
    Kind(u8),
    /// Not a name a key can have.
    #[error("`{0}` cannot name a key: a name is not empty and holds no space and no plus sign")]
    Name(String),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes: {0}")]
    Random(String),
}

/// A key that signs. Its text (`PRIVATE+KEY+name+id+key`) is what its file holds.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

// Debug would put the key into logs; it is left out on purpose.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl SecretKey {
    /// Makes a new key from the system's random bytes.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        OsRng.try_fill_bytes(&mut seed).map_err(|error| KeyError::Random(error.to_string()))?;
        Self::new(name, SigningKey::from_bytes(&seed))
    }

    fn new(name: &str, key: SigningKey) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// The same key under another name. A name and its key have an id of their own, and every text that is
    /// signed names its log, so a signature under one name is none under another.
    pub fn named(&self, name: &str) -> Result<Self, KeyError> {
        Self::new(name, self.key.clone())
    }

    /// The name, which is also the origin of the log whose checkpoints this key signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), kind: ED25519, key: self.key.verifying_key() }
    }

    /// The text for the key's file. Whoever has it can sign in this log's name.
    pub fn to_secret_text(&self) -> String {
        let bytes = [&[ED25519], &self.key.to_bytes()[..]].concat();
        format!("{SECRET}{}+{:08x}+{}", self.name, self.public().id(), BASE64_STANDARD.encode(bytes))
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    /// Reads the text of a key's file, with or without white space around it.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let form = KeyError::Form("PRIVATE+KEY+name+id+key");
        let text = text.trim().strip_prefix(SECRET).ok_or(form.clone())?;
        let (name, id, bytes) = split(text).ok_or(form.clone())?;
        let (kind, seed) = bytes.split_first().ok_or(form.clone())?;
        if *kind != ED25519 {
            return Err(KeyError::Kind(*kind));
        }
        let key = Self::new(name, SigningKey::from_bytes(seed.try_into().map_err(|_| form)?))?;
        if key.public().id() == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

impl signed_note::Signer for SecretKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.public().id()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ed25519_dalek::SignatureError> {
        Ok(self.key.try_sign(message)?.to_bytes().to_vec())
    }
}

/// A key that checks signatures: a log's, or a witness's. Its text (`name+id+key`) is what verifiers pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    kind: u8,
    key: VerifyingKey,
}

impl PublicKey {
    /// The name: a log's origin, or a witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this key signs cosignatures, which carry their time.
    pub fn is_witness(&self) -> bool {
        self.kind == COSIGNATURE
    }

    /// The same key under another name.
    pub fn named(&self, name: &str) -> Result<Self, KeyError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), ..self.clone() })
    }

    /// The 32 bytes of the key, for what checks signatures elsewhere, such as a browser.
    pub fn bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    fn id(&self) -> u32 {
        key_id(&self.name, &[&[self.kind], &self.key.to_bytes()[..]].concat())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[self.kind], &self.key.to_bytes()[..]].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.id(), BASE64_STANDARD.encode(bytes))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let form = KeyError::Form("name+id+key");
        let (name, id, bytes) = split(text.trim()).ok_or(form.clone())?;
        let (kind, bytes) = bytes.split_first().ok_or(form.clone())?;
        if ![ED25519, COSIGNATURE].contains(kind) {
            return Err(KeyError::Kind(*kind));
        }
        check_name(name)?;
        let bytes = bytes.try_into().map_err(|_| form.clone())?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| form)?;
        let key = Self { name: name.to_owned(), kind: *kind, key };
        if key.id() == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

impl signed_note::Verifier for PublicKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id()
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let (text, signature) = if self.is_witness() {
            let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
            (cosigned(u64::from_be_bytes(*time), text), signature)
        } else {
            (text.to_vec(), signature)
        };
        Signature::from_slice(signature).is_ok_and(|signature| self.key.verify(&text, &signature).is_ok())
    }
}

/// What a witness signs: the checkpoint's text behind the time it was seen, in seconds since 1970.
pub(crate) fn cosigned(time: u64, text: &[u8]) -> Vec<u8> {
    [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat()
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let valid = is_key_name_valid(name) && !name.contains(|c: char| c.is_control());
    if valid { Ok(()) } else { Err(KeyError::Name(name.to_owned())) }
}

/// Name, id and bytes of `name+id+key`.
fn split(text: &str) -> Option<(&str, u32, Vec<u8>)> {
    let (name, rest) = text.split_once('+')?;
    let (id, key) = rest.split_once('+')?;
    let written = u32::from_str_radix(id, 16).ok().filter(|number| format!("{number:08x}") == id)?;
    Some((name, written, BASE64_STANDARD.decode(key).ok()?))
}

#[cfg(test)]
impl SecretKey {
    /// The public key of a witness that has this key.
    pub(crate) fn witness(&self) -> PublicKey {
        PublicKey { kind: COSIGNATURE, ..self.public() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The pair in the documentation of Go's package note.
    const SECRET_TEXT: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PUBLIC_TEXT: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn keys_are_those_of_go() {
        let key: SecretKey = SECRET_TEXT.parse().unwrap();
        assert_eq!(key.to_secret_text(), SECRET_TEXT);
        assert_eq!(key.public().to_string(), PUBLIC_TEXT);
        assert_eq!(PUBLIC_TEXT.parse::<PublicKey>().unwrap(), key.public());
        assert!(!format!("{key:?}").contains("AYEK"));
    }

    #[test]
    fn new_keys_read_back_and_differ() {
        let key = SecretKey::generate("count.example/votes/0").unwrap();
        let read: SecretKey = format!("{}\n", key.to_secret_text()).parse().unwrap();
        assert_eq!(read.public(), key.public());
        let witness = key.witness();
        assert_eq!(witness.to_string().parse::<PublicKey>().unwrap(), witness);
        let other = SecretKey::generate("count.example/votes/0").unwrap();
        assert_ne!(other.public(), key.public());
        let named = key.named("count.example").unwrap();
        assert_eq!(named.public(), key.public().named("count.example").unwrap());
        assert_ne!(named.public().id(), key.public().id());
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "a+b", "a+00000000+", "PRIVATE+KEY+x", &PUBLIC_TEXT[..60]] {
            assert!(matches!(text.parse::<PublicKey>(), Err(KeyError::Form(_))), "{text}");
            assert!(matches!(text.parse::<SecretKey>(), Err(KeyError::Form(_))), "{text}");
        }
        let renamed = PUBLIC_TEXT.replace("Peter", "Paul");
        assert_eq!(renamed.parse::<PublicKey>(), Err(KeyError::Id));
        assert!(matches!(SECRET_TEXT.replace("Peter", "Paul").parse::<SecretKey>(), Err(KeyError::Id)));
        for name in ["", "a b", "a+b", "a\nb"] {
            assert!(matches!(SecretKey::generate(name), Err(KeyError::Name(_))), "{name}");
        }
    }
}
