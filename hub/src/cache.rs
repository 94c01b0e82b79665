//! What is in the cache: `models--owner--name` has `refs/<revision>` with a commit,
//! `snapshots/<commit>` with the files as links, and `blobs` with their contents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tracing::debug;

use crate::Error;
use crate::id::{ModelId, is_commit};
use crate::select::needed;

/// The snapshot of the revision, if it is there and its weights are complete.
pub(crate) fn snapshot(cache: &Path, id: &ModelId) -> Option<PathBuf> {
    let directory = id.directory(cache);
    let commit = if is_commit(&id.revision) {
        id.revision.clone()
    } else {
        let commit = fs::read_to_string(directory.join("refs").join(&id.revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))?
    };
    let snapshot = directory.join("snapshots").join(commit);
    let mut names = BTreeSet::new();
    list(&snapshot, "", &mut names).ok()?;
    // An interrupted fetch leaves a snapshot without its weights, or without some of their shards.
    let complete = needed(&id.text, &names, |name| {
        let path = snapshot.join(name);
        fs::read(&path).map_err(|source| Error::Io {
            id: id.text.clone(),
            path,
            source,
        })
    });
    match complete {
        Ok(_) => Some(snapshot),
        Err(error) => {
            debug!(id = id.text, %error, "the cached snapshot is not complete");
            None
        }
    }
}

/// The names of the files in a snapshot, as the repository has them.
fn list(directory: &Path, prefix: &str, names: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let name = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else if entry.path().is_file() {
            // A link whose blob is gone is no file.
            names.insert(name);
        }
    }
    Ok(())
}
