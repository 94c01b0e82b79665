//! The files of a commit with their lengths and sums, from the hub or as Python's `huggingface_hub` 2 keeps them in
//! the cache (`trees/<commit>.json`). A commit never changes, so neither does its listing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, is_hex};
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

/// An item of the hub's answer.
#[derive(Deserialize)]
pub(crate) struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// Adds a page of the hub's answer to a listing.
///
/// # Errors
/// A file's name or sum is none.
pub(crate) fn add(tree: &mut Tree, id: &str, items: Vec<Item>) -> Result<(), Error> {
    for item in items {
        // No commit can have such a name, so the listing is forged.
        if files::leaves(&item.path) {
            return Err(Error::UnsafeName {
                id: id.to_owned(),
                name: item.path,
            });
        }
        if item.kind != "file" {
            continue;
        }
        let (lfs_sha256, lfs_size) = item.lfs.map(|lfs| (lfs.oid, lfs.size)).unzip();
        let entry = Entry {
            size: item.size,
            blob_id: item.oid,
            lfs_sha256,
            lfs_size,
            xet_hash: item.xet_hash,
        };
        if !entry.is_valid() {
            return Err(Error::Malformed {
                id: id.to_owned(),
                file: item.path,
                reason: "the hub's listing names no sum of it; check HF_ENDPOINT".to_owned(),
            });
        }
        tree.insert(item.path, entry);
    }
    Ok(())
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
