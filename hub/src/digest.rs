//! The two sums by which the hub names contents: SHA-256 for what is in large-file storage, git's SHA-1 of a blob
//! for the rest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::Cancel;

/// How a content is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    /// SHA-1 of `blob <length>\0` and the content.
    Git,
}

/// A sum that a content is to have, or what it begins with, in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) algorithm: Algorithm,
    pub(crate) hex: String,
}

impl Digest {
    pub(crate) fn sha256(hex: impl Into<String>) -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            hex: hex.into(),
        }
    }

    /// What a blob's name in the cache says of its content, if it is such a name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let algorithm = match name.len() {
            64 => Algorithm::Sha256,
            40 => Algorithm::Git,
            _ => return None,
        };
        is_hex(name).then(|| Self {
            algorithm,
            hex: name.to_owned(),
        })
    }

    pub(crate) fn accepts(&self, actual: &str) -> bool {
        actual.starts_with(&self.hex)
    }
}

/// Whether a text has lower-case hexadecimal digits only.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Sums a content as it comes.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// `length` is the content's, which git's sum begins with.
    pub(crate) fn new(algorithm: Algorithm, length: u64) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Git => {
                Self::Git(Sha1::new_with_prefix(format!("blob {length}\0").as_bytes()))
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for, if there are `N` of them.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The sum of a file; `None` if it was cancelled. `progress` hears how many bytes have been read.
pub(crate) fn of_file(
    path: &Path,
    algorithm: Algorithm,
    cancel: &Cancel,
    mut progress: impl FnMut(u64),
) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(algorithm, file.metadata()?.len());
    let read = update_from(&mut hasher, &mut file, cancel, &mut progress)?;
    Ok(read.map(|_| hasher.finish()))
}

/// Sums what is left of `reader`; how many bytes that were, or `None` if it was cancelled.
pub(crate) fn update_from(
    hasher: &mut Hasher,
    reader: &mut impl Read,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    loop {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let count = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Ok(Some(read));
        }
        hasher.update(&buffer[..count]);
        read += count as u64;
        progress(read);
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Digest, Hasher, sha256, unhex};

    // Expected values: `printf abc | sha256sum`, `printf abc | git hash-object --stdin`.
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const GIT: &str = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";

    #[test]
    fn sums_are_those_of_sha256sum_and_git() {
        assert_eq!(sha256(b"abc"), SHA256);
        for (algorithm, expected) in [(Algorithm::Sha256, SHA256), (Algorithm::Git, GIT)] {
            let mut hasher = Hasher::new(algorithm, 3);
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.finish(), expected);
            let digest = Digest::of_name(expected).unwrap();
            assert_eq!(digest.algorithm, algorithm);
            assert!(digest.accepts(expected));
        }
        assert!(Digest::sha256("ba7816").accepts(SHA256));
        assert!(!Digest::sha256("ba7817").accepts(SHA256));
        assert!(Digest::of_name("README.md").is_none());
    }

    #[test]
    fn digits_are_bytes() {
        assert_eq!(unhex::<2>("0aff"), Some([10, 255]));
        for text in ["0af", "0aff00", "0agg", "äff"] {
            assert_eq!(unhex::<2>(text), None);
        }
    }
}
