//! `salamander.lock`: which commit of a model an application was made with, and the SHA-256 of each of its files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::digest::{self, Algorithm};
use crate::id::ModelId;
use crate::tree::Tree;
use crate::{Error, Hub, files};

/// The version of the format.
const VERSION: u32 = 1;

/// The models that a lock file pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    version: u32,
    #[serde(default, rename = "model")]
    models: Vec<LockedModel>,
}

/// A model that a lock file pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LockedModel {
    /// `owner/name`.
    pub id: String,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: String,
    /// The SHA-256 of each file.
    pub files: BTreeMap<String, String>,
}

impl LockedModel {
    fn is(&self, id: &ModelId) -> bool {
        self.id == id.repository() && (self.revision == id.revision || self.commit == id.revision)
    }
}

fn locked(id: &str, lock: &Path, reason: String) -> Error {
    Error::Locked {
        id: id.to_owned(),
        lock: lock.to_owned(),
        reason,
    }
}

fn read(id: &str, path: &Path) -> Result<LockFile, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(id, path))?;
    let malformed = |reason| locked(id, path, reason);
    let file: LockFile = toml::from_str(&text).map_err(|error| {
        malformed(format!(
            "{}; make it anew with `salamander hub lock`",
            error.to_string().replace('\n', " ")
        ))
    })?;
    if file.version != VERSION {
        return Err(malformed(format!(
            "version {} is not supported, {VERSION} is; use a newer Salamander",
            file.version
        )));
    }
    Ok(file)
}

impl Hub {
    /// Pins the commit that the model `id` is now and the sums of its files in a lock file, which is made or gets a new
    /// entry in the place of the model's old one. With [`lock_file`](Self::lock_file) set to it, later fetches give
    /// just that.
    ///
    /// # Errors
    /// As [`update`](Self::update), and if the lock file cannot be read or written.
    pub fn lock(&self, id: &str, lock_file: &Path) -> Result<LockedModel, Error> {
        let parsed = ModelId::parse(id, &self.endpoint)?;
        let mut unlocked = self.clone();
        unlocked.lock_file = None;
        let (snapshot, names) = unlocked.update_listed(id)?;
        let mut sums = BTreeMap::new();
        for name in names {
            let path = snapshot.join(&name);
            let sum = self.sum(id, &path)?;
            sums.insert(name, sum);
        }
        let commit = snapshot.file_name().unwrap_or_default();
        let model = LockedModel {
            id: parsed.repository(),
            revision: parsed.revision.clone(),
            commit: commit.to_string_lossy().into_owned(),
            files: sums,
        };
        let mut lock = if lock_file.exists() {
            read(id, lock_file)?
        } else {
            LockFile {
                version: VERSION,
                models: Vec::new(),
            }
        };
        lock.models
            .retain(|other| (&other.id, &other.revision) != (&model.id, &model.revision));
        lock.models.push(model.clone());
        lock.models
            .sort_by(|a, b| (&a.id, &a.revision).cmp(&(&b.id, &b.revision)));
        let text = toml::to_string(&lock)
            .map_err(|error| locked(id, lock_file, format!("cannot be written: {error}")))?;
        files::write(lock_file, text.as_bytes()).map_err(Error::io(id, lock_file))?;
        Ok(model)
    }

    /// What the lock file pins of a model; `None` without a lock file.
    pub(crate) fn pinned(&self, id: &ModelId) -> Result<Option<LockedModel>, Error> {
        let Some(path) = &self.lock_file else {
            return Ok(None);
        };
        let lock = read(&id.text, path)?;
        let pinned = lock.models.into_iter().find(|model| model.is(id));
        let reason = || {
            format!(
                "it does not pin this model; run `salamander hub lock {}`",
                id.text
            )
        };
        match pinned {
            Some(pinned) => Ok(Some(pinned)),
            None => Err(locked(&id.text, path, reason())),
        }
    }

    /// Whether the files are those that the lock file pins.
    pub(crate) fn check_pinned(
        &self,
        id: &str,
        pinned: &LockedModel,
        snapshot: &Path,
        names: &[String],
    ) -> Result<(), Error> {
        let mut changes = Vec::new();
        for name in names {
            let path = snapshot.join(name);
            match pinned.files.get(name) {
                None => changes.push(format!("`{name}` was added")),
                Some(expected) => {
                    let actual = self.sum(id, &path)?;
                    if actual != *expected {
                        changes.push(format!("`{name}` has the sum {actual}, not {expected}"));
                    }
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.record(&json!({"event": "refused", "id": id, "reason": changes.join("; ")}))?;
        let lock = self.lock_file.clone().unwrap_or_default();
        let reason = format!(
            "not what was pinned at commit {}: {}; do not use it unless you know why",
            pinned.commit,
            changes.join("; ")
        );
        Err(locked(id, &lock, reason))
    }

    /// Whether the revision still is the commit that the lock file pins.
    pub(crate) fn check_upstream(&self, id: &ModelId, pinned: &LockedModel) -> Result<(), Error> {
        let mut present = id.clone();
        present.revision.clone_from(&pinned.revision);
        let commit = self.present_commit(&present)?;
        if commit == pinned.commit {
            return Ok(());
        }
        let new = self.tree(id, &commit)?;
        // The hub may have lost the old commit.
        let old = self.tree(id, &pinned.commit).unwrap_or_default();
        let changes = changes(&old, &new, pinned);
        let lock = self.lock_file.clone().unwrap_or_default();
        let reason = format!(
            "`{}` was commit {} and is now {commit}: {}; to take it, run `salamander hub lock {}`",
            pinned.revision,
            pinned.commit,
            if changes.is_empty() {
                "no pinned file changed".to_owned()
            } else {
                changes.join(", ")
            },
            id.text
        );
        Err(locked(&id.text, &lock, reason))
    }

    fn sum(&self, id: &str, path: &Path) -> Result<String, Error> {
        digest::of_file(path, Algorithm::Sha256, &self.cancel, |_| {})
            .map_err(Error::io(id, path))?
            .ok_or_else(|| Error::Cancelled { id: id.to_owned() })
    }

    /// The snapshot of [`update`](Self::update) and the names of its files that are there.
    fn update_listed(&self, id: &str) -> Result<(PathBuf, Vec<String>), Error> {
        let snapshot = self.update(id)?;
        let listed = files::list(&snapshot).map_err(Error::io(id, &snapshot))?;
        Ok((snapshot, listed.into_iter().map(|(name, _)| name).collect()))
    }
}

/// What became of the pinned files.
fn changes(old: &Tree, new: &Tree, pinned: &LockedModel) -> Vec<String> {
    let pinned_names: BTreeSet<&String> = pinned.files.keys().collect();
    let mut changes = Vec::new();
    for name in pinned_names {
        match (old.get(name), new.get(name)) {
            (_, None) => changes.push(format!("`{name}` was removed")),
            (Some(old), Some(new)) if old.etag() == new.etag() => {}
            (_, Some(new)) if new.lfs_sha256.as_ref() == pinned.files.get(name) => {}
            (_, Some(new)) => changes.push(format!("`{name}` changed to {}", new.etag())),
        }
    }
    changes
}
