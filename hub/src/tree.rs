//! The files of a commit with their lengths and sums, from the hub or as Python's `huggingface_hub` 2 keeps them in
//! the cache (`trees/<commit>.json`). A commit never changes, so neither does its listing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest, Hasher, is_hex};
use crate::{Error, files};

/// The version of the format that both write.
const VERSION: u32 = 1;

/// A listing by the files' names.
pub(crate) type Tree = BTreeMap<String, Entry>;

/// What is known of a file before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    /// Git's name of the blob.
    pub(crate) blob_id: String,
    /// The SHA-256 of a file in large-file storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lfs_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) xet_hash: Option<String>,
}

impl Entry {
    pub(crate) fn new(size: u64, blob_id: String, lfs: Option<Lfs>) -> Self {
        let (lfs_sha256, lfs_size) = lfs.map(|lfs| (lfs.oid, lfs.size)).unzip();
        let plain = |sum: String| {
            sum.strip_prefix("sha256:")
                .map(str::to_owned)
                .unwrap_or(sum)
        };
        Self {
            size,
            blob_id,
            lfs_sha256: lfs_sha256.map(plain),
            lfs_size,
            xet_hash: None,
        }
    }

    /// A file of which only the sum is known that names its content; none if it is not one.
    pub(crate) fn of_sum(size: u64, sum: &str) -> Option<Self> {
        let digest = Digest::of_name(sum)?;
        Some(match digest.algorithm {
            Algorithm::Git => Self::new(size, digest.hex, None),
            Algorithm::Sha256 => {
                // What git has of such a file is a pointer, whose text the sum and the length make.
                let pointer = format!(
                    "version https://git-lfs.github.com/spec/v1\noid sha256:{sum}\nsize {size}\n"
                );
                let mut hasher = Hasher::new(Algorithm::Git, pointer.len() as u64);
                hasher.update(pointer.as_bytes());
                let oid = digest.hex;
                Self::new(size, hasher.finish(), Some(Lfs { oid, size }))
            }
        })
    }

    /// The name of the content in the cache, which is also its sum.
    pub(crate) fn etag(&self) -> &str {
        self.lfs_sha256.as_deref().unwrap_or(&self.blob_id)
    }

    pub(crate) fn size(&self) -> u64 {
        self.lfs_size.unwrap_or(self.size)
    }

    pub(crate) fn digest(&self) -> Option<Digest> {
        Digest::of_name(self.etag())
    }

    /// Whether the sums are sums: they become names of files.
    fn is_valid(&self) -> bool {
        let sum = |text: &str, length| text.len() == length && is_hex(text);
        sum(&self.blob_id, 40) && self.lfs_sha256.as_ref().is_none_or(|hex| sum(hex, 64))
    }
}

/// An item of the hub's listing.
#[derive(Deserialize)]
pub(crate) struct Item {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) path: String,
    size: Option<u64>,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

/// What the hub says of a file in large-file storage.
#[derive(Clone, Deserialize)]
pub(crate) struct Lfs {
    #[serde(alias = "sha256")]
    oid: String,
    size: u64,
}

impl Item {
    /// What is known of a file, if it is one; `Some(None)` if neither its length nor its sum is told.
    pub(crate) fn entry(&self) -> Option<Option<Entry>> {
        if self.kind != "file" {
            return None;
        }
        let size = self.size.filter(|_| !self.oid.is_empty());
        Some(size.map(|size| Entry {
            xet_hash: self.xet_hash.clone(),
            ..Entry::new(size, self.oid.clone(), self.lfs.clone())
        }))
    }
}

/// Adds a file to a listing.
///
/// # Errors
/// Its name or sum is none.
pub(crate) fn add(tree: &mut Tree, id: &str, name: String, entry: Entry) -> Result<(), Error> {
    check_name(id, &name)?;
    if !entry.is_valid() {
        return Err(no_sum(id, &name));
    }
    tree.insert(name, entry);
    Ok(())
}

/// No commit can have a file outside of its directory, so a listing with such a name is forged.
pub(crate) fn check_name(id: &str, name: &str) -> Result<(), Error> {
    if files::leaves(name) {
        return Err(Error::UnsafeName {
            id: id.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

pub(crate) fn no_sum(id: &str, name: &str) -> Error {
    Error::Malformed {
        id: id.to_owned(),
        file: name.to_owned(),
        reason: "the hub names no sum of it; check HF_ENDPOINT".to_owned(),
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format_version: u32,
    files: Tree,
}

/// The listing in the cache; one that cannot be used is none.
pub(crate) fn read(path: &Path) -> Option<Tree> {
    let stored: Stored = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let is_valid = |(name, entry): (&String, &Entry)| !files::leaves(name) && entry.is_valid();
    (stored.format_version == VERSION && stored.files.iter().all(is_valid)).then_some(stored.files)
}

pub(crate) fn to_json(tree: &Tree) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&Stored {
        format_version: VERSION,
        files: tree.clone(),
    })
}
