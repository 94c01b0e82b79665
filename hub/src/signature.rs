//! Signed models: `SHA256SUMS` lists the sums of a directory's files in the format of `sha256sum`, and `SHA256SUMS.sig`
//! holds an Ed25519 signature (RFC 8032) of that list.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde_json::json;

use crate::digest::{self, Algorithm, hex, is_hex, unhex};
use crate::id::ModelId;
use crate::select::{SIGNATURE, SUMS};
use crate::{Error, Hub, env, files};

/// How keys and signatures are marked as texts.
const SCHEME: &str = "ed25519:";

/// The public half of a key that models are signed with. As a text it is `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text.trim().strip_prefix(SCHEME).and_then(unhex::<32>);
        let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        key.map(Self).ok_or_else(|| Error::Refused {
            option: format!("the public key `{}`", text.trim()),
            reason: "it is none; a key is `ed25519:` and 64 hexadecimal digits".to_owned(),
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", hex(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The secret half. It is in a file of 64 hexadecimal digits that only its owner may read.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes a key from the system's randomness and writes it to a new file.
    ///
    /// # Errors
    /// The file is there already or cannot be written, or the system has no randomness.
    pub fn generate(path: &Path) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Refused {
            option: "a new key".to_owned(),
            reason: format!("the system gives no randomness: {error}"),
        })?;
        let mut options = fs::File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let io = || Error::io("a new key", path);
        let mut file = options.open(path).map_err(io())?;
        std::io::Write::write_all(&mut file, format!("{}\n", hex(&bytes)).as_bytes())
            .map_err(io())?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// Reads a key that [`generate`](Self::generate) has written.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io("the secret key", path))?;
        let bytes = unhex::<32>(text.trim()).ok_or_else(|| Error::Malformed {
            id: "the secret key".to_owned(),
            file: path.display().to_string(),
            reason: "it is not 64 hexadecimal digits; make one with `salamander hub sign --new`"
                .to_owned(),
        })?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Writes the sums of a directory's files and their signature into it, as `SHA256SUMS` and `SHA256SUMS.sig`; how
    /// many files that are.
    ///
    /// # Errors
    /// A file cannot be read or written, or has a name that is not the same on every system.
    pub fn sign(&self, directory: &Path) -> Result<usize, Error> {
        let id = directory.display().to_string();
        let listed = files::list(directory).map_err(Error::io(&id, directory))?;
        let mut sums = String::new();
        let mut count = 0;
        for (name, path) in listed {
            if [SUMS, SIGNATURE].contains(&&*name) || name.starts_with(".git/") {
                continue;
            }
            if !files::is_plain(&name) {
                return Err(Error::UnsafeName { id, name });
            }
            sums += &format!("{}  {name}\n", sum(&id, &path)?);
            count += 1;
        }
        let signature = self.0.sign(sums.as_bytes());
        let signature = format!("{SCHEME}{}\n", hex(&signature.to_bytes()));
        for (name, content) in [(SUMS, &sums), (SIGNATURE, &signature)] {
            let path = directory.join(name);
            files::write(&path, content.as_bytes()).map_err(Error::io(&id, &path))?;
        }
        Ok(count)
    }
}

// The key must not get into logs.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public())
    }
}

/// Whether the files of a directory are signed with one of the keys: their sums are in `SHA256SUMS`, and that list is
/// signed. All its files are held against it.
///
/// # Errors
/// They are not ([`Error::NotTrusted`]), or a file cannot be read.
pub fn verify_signature(directory: &Path, keys: &[PublicKey]) -> Result<(), Error> {
    let id = directory.display().to_string();
    let listed = files::list(directory).map_err(Error::io(&id, directory))?;
    let names: Vec<_> = listed.into_iter().map(|(name, _)| name).collect();
    check(&id, directory, &names, keys)
}

fn check(id: &str, directory: &Path, names: &[String], keys: &[PublicKey]) -> Result<(), Error> {
    let refuse = |reason: String| Error::NotTrusted {
        id: id.to_owned(),
        reason,
    };
    let read = |name: &str| {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(refuse(format!(
                "a key is pinned for it, and it is not signed: there is no `{name}`"
            ))),
            other => other.map_err(Error::io(id, &path)),
        }
    };
    let (sums, signature) = (read(SUMS)?, read(SIGNATURE)?);
    let signature = signature.trim().strip_prefix(SCHEME).and_then(unhex::<64>);
    let signature = signature
        .map(|bytes| Signature::from_bytes(&bytes))
        .ok_or_else(|| refuse(format!("`{SIGNATURE}` is no Ed25519 signature")))?;
    let is_signed = |key: &&PublicKey| key.0.verify_strict(sums.as_bytes(), &signature).is_ok();
    if !keys.iter().any(|key| is_signed(&key)) {
        return Err(refuse(format!(
            "`{SUMS}` is not signed with the pinned key"
        )));
    }
    let sums = parse(&sums).ok_or_else(|| refuse(format!("`{SUMS}` is not a list of sums")))?;
    for name in names {
        if [SUMS, SIGNATURE].contains(&&**name) || name.starts_with(".git/") {
            continue;
        }
        match sums.get(&**name) {
            None => return Err(refuse(format!("`{name}` is not among what was signed"))),
            Some(expected) => {
                let actual = sum(id, &directory.join(name))?;
                if actual != *expected {
                    return Err(refuse(format!(
                        "`{name}` has the sum {actual}, and {expected} was signed"
                    )));
                }
            }
        }
    }
    Ok(())
}

fn sum(id: &str, path: &Path) -> Result<String, Error> {
    let never = crate::Cancel::new();
    let sum = digest::of_file(path, Algorithm::Sha256, &never, |_| {});
    Ok(sum.map_err(Error::io(id, path))?.unwrap_or_default())
}

/// The lines of `sha256sum`: the sum, a space, a space or an asterisk, the name.
fn parse(sums: &str) -> Option<BTreeMap<&str, &str>> {
    let line = |line: &'_ str| -> Option<()> {
        let (sum, name) = line.split_at_checked(64)?;
        (is_hex(sum) && (name.starts_with("  ") || name.starts_with(" *"))).then_some(())
    };
    let mut parsed = BTreeMap::new();
    for text in sums.lines() {
        line(text)?;
        parsed.insert(&text[66..], &text[..64]);
    }
    Some(parsed)
}

impl Hub {
    /// Whether a model is signed with a key that is pinned for it or its owner; if there is none, it need not be.
    pub(crate) fn check_signature(
        &self,
        text: &str,
        snapshot: &Path,
        names: &[String],
    ) -> Result<(), Error> {
        let id = ModelId::parse(text, &self.endpoint)?;
        let model = id.repository();
        let is_for = |name: &str| Some(name) == id.owner.as_deref() || name == model;
        let pinned = self.keys.iter().filter(|(name, _)| is_for(name));
        let keys: Vec<PublicKey> = pinned.map(|(_, key)| *key).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let result = check(text, snapshot, names, &keys);
        let event = match &result {
            Ok(()) => json!({"event": "verified", "id": text, "signature": true}),
            Err(error) => json!({"event": "refused", "id": text, "reason": error.to_string()}),
        };
        self.record(&event)?;
        result
    }
}

/// Pins a key to an owner, or to `owner/name`, or takes its keys away, in the file that the environment names; that
/// file.
///
/// # Errors
/// The environment names no file, or it cannot be read or written.
pub fn set_key(name: &str, key: Option<PublicKey>) -> Result<PathBuf, Error> {
    let path = env::keys_file(|name| std::env::var_os(name), std::env::home_dir());
    let path = path.ok_or(Error::NoCache)?;
    let io = || Error::io("the pinned keys", &path);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.map_err(io())?,
    };
    let is_other = |line: &&str| line.split_whitespace().next() != Some(name);
    let mut lines: Vec<String> = text.lines().filter(is_other).map(str::to_owned).collect();
    lines.extend(key.map(|key| format!("{name} {key}")));
    files::write(&path, format!("{}\n", lines.join("\n")).as_bytes()).map_err(io())?;
    Ok(path)
}

/// The keys that a file pins: a line for each, an owner or `owner/name` and its key. Lines that begin with `#` are
/// remarks.
///
/// # Errors
/// A line holds something else.
pub(crate) fn parse_keys(path: &Path, text: &str) -> Result<Vec<(String, PublicKey)>, Error> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| match line.split_once(char::is_whitespace) {
        Some((name, key)) => Ok((name.to_owned(), key.parse()?)),
        None => Err(Error::Malformed {
            id: "the pinned keys".to_owned(),
            file: path.display().to_string(),
            reason: format!("`{line}` is not an owner and a key"),
        }),
    };
    lines.map(parse).collect()
}
