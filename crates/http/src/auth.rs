//! Who asks: API keys of sources, collectors, the desk and auditors; signed tokens of voters.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use canvass_protocol::api::Text;
use canvass_protocol::problem::{Code, Problem};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rand::RngCore;
use ring::digest::SHA256_OUTPUT_LEN;
use ring::hmac;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::body::plain;

/// What an API key begins with, so that it is told apart from a voter's token and found by secret scanners.
pub const KEY_PREFIX: &str = "cvk_";
/// The key file is looked at again after this time at the earliest.
const KEYS_FRESH: Duration = Duration::from_secs(1);
/// Longest credential that is looked at.
const MAX_CREDENTIAL: usize = 4_096;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Casts votes for voters it names.
    Collector,
    /// Sends returns, recount returns and corrections.
    Source,
    /// Corrects, releases, rejects, recounts, calls, closes, certifies; drives a rehearsal's clock.
    Desk,
    /// Looks up any voter's vote.
    Auditor,
    /// Reads `/metrics`.
    Monitor,
}

/// One key as the file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The name under which its acts stand in the log.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// BLAKE3 of the key, in hexadecimal. The key has 256 random bits, so a plain hash keeps it safe.
    hash: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    keys: Vec<Key>,
}

/// The keys of a server, read again when their file changes.
pub struct Keys {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    by_hash: HashMap<String, Arc<Key>>,
}

fn hash(key: &str) -> String {
    blake3::hash(key.as_bytes()).to_hex().to_string()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let _ = fs::remove_file(&aside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

fn read_keys(path: &Path) -> io::Result<KeyFile> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(KeyFile::default()),
        Err(error) => Err(error),
    }
}

/// Makes a new key, keeps its hash in the file at `path`, and returns the key: it is not kept anywhere.
pub fn add_key(path: &Path, name: &str, roles: &[Role]) -> io::Result<String> {
    let mut file = read_keys(path)?;
    if file.keys.iter().any(|key| key.name == name) {
        return Err(io::Error::other(format!("there is a key named `{name}`; choose another name")));
    }
    let key = format!("{KEY_PREFIX}{}", hex(&random_bytes()));
    file.keys.push(Key { name: name.to_owned(), roles: roles.to_vec(), hash: hash(&key) });
    write_private(path, toml::to_string(&file).map_err(io::Error::other)?.as_bytes())?;
    Ok(key)
}

/// The bytes that 64 hexadecimal digits in lower case stand for.
pub(crate) fn unhex(digits: &str) -> Option<[u8; 32]> {
    let plain =
        digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    plain.then_some(bytes)
}

/// The text of a file that only its owner can read, which is made by `make` where there is none.
pub fn private_file(path: &Path, make: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    if !path.exists() {
        write_private(path, make()?.as_bytes())?;
    }
    fs::read_to_string(path)
}

/// Reads the 32 secret bytes of a file, which is made with random ones where there is none.
pub fn secret_file(path: &Path) -> io::Result<[u8; 32]> {
    let text = private_file(path, || Ok(hex(&random_bytes())))?;
    let bytes = unhex(&text.trim().to_ascii_lowercase());
    bytes.ok_or_else(|| io::Error::other("a secret file holds 64 hexadecimal digits"))
}

impl Keys {
    /// Takes the keys in the file at `path`, now and whenever it changes; no file is no keys.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        read_keys(&path)?;
        Ok(Keys { path, loaded: Mutex::default() })
    }

    fn find(&self, key: &str) -> Option<Arc<Key>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.checked.is_none_or(|at| at.elapsed() >= KEYS_FRESH) {
            loaded.checked = Some(Instant::now());
            let modified = fs::metadata(&self.path).and_then(|m| m.modified()).ok();
            if modified != loaded.modified {
                match read_keys(&self.path) {
                    Ok(file) => {
                        loaded.modified = modified;
                        loaded.by_hash =
                            file.keys.into_iter().map(|k| (k.hash.clone(), Arc::new(k))).collect();
                    }
                    Err(error) => {
                        tracing::error!(%error, "the key file cannot be read; the keys stay as they were")
                    }
                }
            }
        }
        loaded.by_hash.get(&hash(key)).cloned()
    }

    /// The key that a request carries as its credential, if it is known and has one of `roles`.
    pub fn require(&self, credential: Option<&str>, roles: &[Role]) -> Result<Arc<Key>, Problem> {
        let key = match credential {
            Some(key) if key.starts_with(KEY_PREFIX) => self.find(key).ok_or(Code::KeyInvalid)?,
            _ => return Err(Code::KeyMissing.into()),
        };
        if key.roles.iter().any(|role| roles.contains(role)) {
            return Ok(key);
        }
        let needed: Vec<String> = roles.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
        Err(Problem::new(Code::Forbidden).detail(format!("the key needs the role {}", needed.join(" or "))))
    }
}

/// The credential of the `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    headers.get(header::AUTHORIZATION).map(|value| credential(value.as_bytes())).transpose()
}

/// The credential in the bytes of an `Authorization` header.
pub(crate) fn credential(header: &[u8]) -> Result<&str, Problem> {
    let credential = plain(header).and_then(|v| v.strip_prefix("Bearer ")).map(str::trim);
    credential.filter(|credential| credential.len() <= MAX_CREDENTIAL).ok_or_else(|| {
        Problem::new(Code::BadHeader).detail("Authorization: expected `Bearer` and a key or a token")
    })
}

/// What a voter's token says (RFC 7519).
#[derive(Debug, Serialize, Deserialize)]
struct Claims<'a> {
    /// The voter.
    #[serde(borrow)]
    sub: Text<'a>,
    /// The election.
    #[serde(borrow)]
    aud: Text<'a>,
    /// When it expires, in seconds since 1970.
    exp: u64,
    /// The contests it is good for; all where none are named.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    contests: Option<Vec<Text<'a>>>,
}

/// The two ways to write the header of a token signed with HS256 that common libraries have. Any other way is read.
const USUAL_HEADERS: [&str; 2] =
    ["eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"];

/// Checks voters' tokens: HS256 by the server's own secret, EdDSA by an authority's public key.
///
/// A million tokens a second are checked, so the parts of `jsonwebtoken` that would derive the key anew and copy
/// the claims for each are not used.
pub struct Tokens {
    election: String,
    own: hmac::Key,
    authority: Option<DecodingKey>,
}

impl Tokens {
    /// For the election with this text id; `authority` is an Ed25519 public key in PEM form.
    pub fn new(election: &str, secret: &[u8; 32], authority: Option<&[u8]>) -> Result<Self, String> {
        let authority = authority.map(DecodingKey::from_ed_pem).transpose();
        let authority =
            authority.map_err(|e| format!("the token key is not an Ed25519 public key in PEM form: {e}"))?;
        Ok(Tokens {
            election: election.to_owned(),
            own: hmac::Key::new(hmac::HMAC_SHA256, secret),
            authority,
        })
    }

    /// What `f` makes of the name of the voter that a token names, if it is good for this contest now.
    pub fn voter<T>(&self, token: &str, contest: &str, f: impl FnOnce(&str) -> T) -> Result<T, Problem> {
        let claims = self.signed(token).ok_or(Code::TokenInvalid)?;
        let Claims { sub, aud, exp, contests } =
            serde_json::from_slice(&claims).map_err(|_| Code::TokenInvalid)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if exp < now {
            return Err(Code::TokenExpired.into());
        }
        if *aud != *self.election || contests.is_some_and(|list| !list.iter().any(|c| **c == *contest)) {
            return Err(Code::TokenForeign.into());
        }
        Ok(f(&sub))
    }

    /// The claims of a token, if its signature is right.
    fn signed(&self, token: &str) -> Option<SmallVec<[u8; 256]>> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let algorithm = if USUAL_HEADERS.contains(&header) {
            Algorithm::HS256
        } else {
            jsonwebtoken::decode_header(token).ok()?.alg
        };
        let signed = match (algorithm, &self.authority) {
            (Algorithm::HS256, _) => {
                let mut tag = [0; SHA256_OUTPUT_LEN];
                let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut tag).ok()?;
                hmac::verify(&self.own, message.as_bytes(), &tag[..length]).is_ok()
            }
            (Algorithm::EdDSA, Some(key)) => {
                jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm).ok()?
            }
            _ => false,
        };
        let mut claims = SmallVec::from_elem(0, base64::decoded_len_estimate(payload.len()));
        let length = URL_SAFE_NO_PAD.decode_slice(payload, &mut claims).ok()?;
        claims.truncate(length);
        signed.then_some(claims)
    }
}

/// Who signs a voter's token.
#[derive(Clone, Copy)]
pub enum Signer<'a> {
    /// The server itself, by its own secret (HS256).
    Server(&'a [u8; 32]),
    /// An authority, by its Ed25519 private key in PEM form (EdDSA).
    Authority(&'a [u8]),
}

/// Signs a voter's token, good for `lifetime` from now.
pub fn issue_token(
    signer: Signer<'_>,
    election: &str,
    voter: &str,
    contests: Option<Vec<String>>,
    lifetime: Duration,
) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = (now + lifetime).as_secs();
    let contests = contests.map(|list| list.into_iter().map(Text::from).collect());
    let claims = Claims { sub: voter.into(), aud: election.into(), exp, contests };
    let (algorithm, key) = match signer {
        Signer::Server(secret) => (Algorithm::HS256, EncodingKey::from_secret(secret)),
        Signer::Authority(pem) => {
            let key = EncodingKey::from_ed_pem(pem);
            let key =
                key.map_err(|e| format!("the signing key is no Ed25519 private key in PEM form: {e}"))?;
            (Algorithm::EdDSA, key)
        }
    };
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_and_its_roles() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let key = add_key(&path, "county", &[Role::Source]).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(&key), "the key itself is not kept");
        assert!(add_key(&path, "county", &[Role::Desk]).is_err(), "names are unique");
        let keys = Keys::open(path).unwrap();
        let code = |value: &str, role| {
            let credential = credential(value.as_bytes());
            credential.and_then(|c| keys.require(Some(c), &[role])).map_err(|p| p.code)
        };
        assert_eq!(code(&format!("Bearer {key}"), Role::Source).unwrap().name, "county");
        assert_eq!(code(&format!("Bearer {key}"), Role::Desk), Err(Code::Forbidden));
        assert_eq!(code(&format!("Bearer {key}0"), Role::Source), Err(Code::KeyInvalid));
        assert_eq!(code("Basic abc", Role::Source), Err(Code::BadHeader));
        assert_eq!(keys.require(None, &[Role::Source]).unwrap_err().code, Code::KeyMissing);
    }

    #[test]
    fn a_token_is_good_for_its_election_its_contests_and_its_time() {
        let (secret, other) = ([1; 32], [2; 32]);
        let tokens = Tokens::new("spring", &secret, None).unwrap();
        let hour = Duration::from_secs(3600);
        let token = |key, election, contests: Option<&str>, lifetime| {
            issue_token(Signer::Server(key), election, "ann", contests.map(|c| vec![c.to_owned()]), lifetime)
                .unwrap()
        };
        let code = |token: String| tokens.voter(&token, "song", str::to_owned).map_err(|p| p.code);
        assert_eq!(code(token(&secret, "spring", None, hour)).as_deref(), Ok("ann"));
        assert_eq!(code(token(&secret, "spring", Some("song"), hour)).as_deref(), Ok("ann"));
        assert_eq!(code(token(&secret, "spring", Some("mayor"), hour)), Err(Code::TokenForeign));
        assert_eq!(code(token(&secret, "autumn", None, hour)), Err(Code::TokenForeign));
        assert_eq!(code(token(&other, "spring", None, hour)), Err(Code::TokenInvalid));
        assert_eq!(code("nonsense".to_owned()), Err(Code::TokenInvalid));
        let claims = Claims { sub: "ann".into(), aud: "spring".into(), exp: 1, contests: None };
        let expired =
            jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(code(expired), Err(Code::TokenExpired));
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJhdWQiOiJzcHJpbmciLCJleHAiOjk5OTk5OTk5OTl9.";
        assert_eq!(code(none.to_owned()), Err(Code::TokenInvalid));
    }
}
