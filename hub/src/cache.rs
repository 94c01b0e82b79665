//! The cache in the layout of Python's `huggingface_hub`: `models--owner--name` has `refs/<revision>` with a commit,
//! `trees/<commit>.json` with its listing, `snapshots/<commit>` with the files as links, and `blobs` with their
//! contents under their sums. `.locks` beside it has a lock for each content that is being fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use serde::Serialize;

use crate::digest::{self, Digest};
use crate::files::{self, Lock, size};
use crate::id::{ModelId, is_commit};
use crate::progress::{Cancel, Event, Progress};
use crate::tree::{self, Entry, Tree};
use crate::{Error, Hub};

/// Where the parts of a repository are in the cache.
pub(crate) struct Repository {
    pub(crate) path: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub(crate) fn new(cache: &Path, id: &ModelId) -> Self {
        let segments = ["models"].into_iter().chain(id.segments());
        Self::named(cache, &segments.collect::<Vec<_>>().join("--"))
    }

    fn named(cache: &Path, name: &str) -> Self {
        Self {
            path: cache.join(name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.path.join("blobs").join(etag)
    }

    /// Where a content is while it comes.
    pub(crate) fn partial(&self, etag: &str) -> PathBuf {
        self.path.join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(crate) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// The commit that a revision was when it was last asked for.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.path.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> io::Result<()> {
        // A cache that has all need not be writable.
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.path.join("refs").join(revision);
        self.write(&path, commit.as_bytes())
    }

    /// Writes a file by way of `blobs`, where what an interrupted process leaves is known to be garbage.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        files::write_by_way_of(&self.path.join("blobs"), path, content)
    }

    pub(crate) fn tree(&self, commit: &str) -> Option<Tree> {
        tree::read(&self.tree_path(commit))
    }

    pub(crate) fn set_tree(&self, commit: &str, tree: &Tree) -> io::Result<()> {
        self.write(&self.tree_path(commit), &tree::to_json(tree)?)
    }

    fn tree_path(&self, commit: &str) -> PathBuf {
        self.path.join("trees").join(format!("{commit}.json"))
    }

    /// Makes a snapshot's file the content of that name.
    pub(crate) fn link(&self, commit: &str, name: &str, etag: &str) -> io::Result<()> {
        let path = self.snapshot(commit).join(name);
        let directory = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(directory)?;
        let up = "../".repeat(2 + name.split('/').count() - 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&path).is_ok_and(|link| link == target) {
            return Ok(());
        }
        // Under another name first, so that at no time there is none.
        let temporary = tempfile::Builder::new()
            .prefix(".tmp-")
            .make_in(self.path.join("blobs"), |temporary| {
                symlink(&target, &self.blob(etag), temporary)
            })?;
        temporary.persist(&path)?;
        Ok(())
    }

    /// The files of a snapshot that are there and as long as they are to be, as far as that is known.
    pub(crate) fn present(&self, commit: &str) -> BTreeSet<String> {
        let tree = self.tree(commit).unwrap_or_default();
        let listed = files::list(&self.snapshot(commit)).unwrap_or_default();
        let is_whole = |(name, path): &(String, PathBuf)| {
            let actual = size(path);
            actual.is_some() && tree.get(name).is_none_or(|e| actual == Some(e.size()))
        };
        let names = listed.into_iter().filter(is_whole);
        names.map(|(name, _)| name).collect()
    }
}

#[cfg(unix)]
fn symlink(target: &Path, _: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Where links need rights that few have, the content is copied, as in Python.
#[cfg(not(unix))]
fn symlink(target: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    #[cfg(windows)]
    if std::os::windows::fs::symlink_file(target, link).is_ok() {
        return Ok(());
    }
    let _ = target;
    fs::copy(blob, link).map(drop)
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CachedModel {
    /// `owner/name`.
    pub id: String,
    /// Its directory in the cache.
    pub path: PathBuf,
    /// The bytes that its contents take, those of interrupted fetches among them.
    pub bytes: u64,
    /// Its commits, the latest first.
    pub revisions: Vec<CachedRevision>,
    /// When a file of it was last written.
    #[serde(serialize_with = "seconds")]
    pub modified: SystemTime,
    /// When a file of it was last read, as far as the file system keeps that.
    #[serde(serialize_with = "seconds")]
    pub accessed: SystemTime,
}

/// A commit in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CachedRevision {
    /// The commit.
    pub commit: String,
    /// The branches and tags that it was when they were last asked for.
    pub refs: Vec<String>,
    /// The directory with its files.
    pub path: PathBuf,
    /// How many files of it are there.
    pub files: usize,
    /// Their bytes; commits share contents, so these do not add up.
    pub bytes: u64,
    /// When it was written.
    #[serde(serialize_with = "seconds")]
    pub modified: SystemTime,
}

/// A time as seconds since 1970, for programs.
fn seconds<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    to.serialize_u64(since.unwrap_or_default().as_secs())
}

/// What [`Hub::gc`] can remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Garbage {
    /// The file or directory.
    pub path: PathBuf,
    /// The bytes that it takes.
    pub bytes: u64,
    /// Why it is of no use.
    pub reason: GarbageReason,
    /// The lock that who uses it holds.
    #[serde(skip)]
    lock: Option<PathBuf>,
}

/// Why something in the cache is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GarbageReason {
    /// A content that no snapshot links to.
    Unreferenced,
    /// What an interrupted fetch left; the next fetch would go on from there.
    Incomplete,
    /// A commit that no branch or tag is any more.
    Detached,
    /// A link whose content is gone.
    Dangling,
}

/// What [`Hub::verify`] found of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedFile {
    /// Its name in the repository.
    pub file: String,
    /// The commit.
    pub commit: String,
    /// Its bytes.
    pub bytes: u64,
    /// What it is.
    pub state: FileState,
    /// The sum that it is to have: SHA-256, or git's of a blob.
    pub expected: Option<String>,
    /// The sum that it has, or `None` if it is not there.
    pub actual: Option<String>,
}

/// Whether a file is what it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FileState {
    /// Its content has the sum.
    Good,
    /// Its content has another sum.
    Damaged,
    /// It is a link whose content is gone.
    Missing,
    /// Nothing in the cache says what its sum is to be.
    Unknown,
}

impl Hub {
    /// The models in the cache, by their ids.
    ///
    /// # Errors
    /// The cache cannot be read. One that is not there has no models.
    pub fn list(&self) -> Result<Vec<CachedModel>, Error> {
        let mut models = Vec::new();
        for (name, repository) in self.repositories()? {
            let Some(id) = name.strip_prefix("models--") else {
                continue;
            };
            let id = id.replacen("--", "/", 1);
            let error = Error::io(&id, &repository.path);
            if let Some(model) = scan(&id, &repository).map_err(error)? {
                models.push(model);
            }
        }
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(models)
    }

    fn repositories(&self) -> Result<Vec<(String, Repository)>, Error> {
        let name = self.cache.display().to_string();
        let entries = match fs::read_dir(&self.cache) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io(&name, &self.cache))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&name, &self.cache))?;
            if let Ok(name) = entry.file_name().into_string()
                && name.starts_with("models--")
                && entry.path().is_dir()
            {
                let repository = Repository::named(&self.cache, &name);
                found.push((name, repository));
            }
        }
        Ok(found)
    }

    /// Removes a model from the cache, or with `owner/name@revision` a commit of it and the contents that no other
    /// commit shares; how many bytes that freed.
    ///
    /// # Errors
    /// The cache does not have it, or its files cannot be removed.
    pub fn remove(&self, id: &str) -> Result<u64, Error> {
        let parsed = ModelId::parse(id, &self.endpoint)?;
        let repository = Repository::new(&self.cache, &parsed);
        let io = |path: &Path| Error::io(id, path);
        let not_cached = || Error::NotCached {
            id: id.to_owned(),
            cache: self.cache.clone(),
        };
        if !repository.path.is_dir() {
            return Err(not_cached());
        }
        let before = contents(&repository).map_err(io(&repository.path))?;
        if id.contains('@') {
            let commit = repository.commit(&parsed.revision).ok_or_else(not_cached)?;
            let snapshot = repository.snapshot(&commit);
            if !snapshot.is_dir() {
                return Err(not_cached());
            }
            forget(&repository, &commit).map_err(io(&snapshot))?;
            for garbage in garbage(&repository).map_err(io(&repository.path))? {
                if garbage.reason == GarbageReason::Unreferenced {
                    discard(&garbage).map_err(io(&garbage.path))?;
                }
            }
        } else {
            // Under another name first, so that an interrupted removal leaves no half model.
            let aside = tempfile::Builder::new()
                .prefix(".removed-")
                .tempdir_in(&self.cache)
                .map_err(io(&self.cache))?;
            fs::rename(&repository.path, aside.path().join("model"))
                .map_err(io(&repository.path))?;
            aside.close().map_err(io(&self.cache))?;
        }
        let after = contents(&repository).unwrap_or_default();
        Ok(before.saturating_sub(after))
    }

    /// What [`gc`](Self::gc) would remove: contents that no snapshot links to, links without content, what interrupted
    /// fetches left, and with `detached` also commits that no branch or tag is any more. What another process is
    /// fetching is not listed.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn garbage(&self, detached: bool) -> Result<Vec<Garbage>, Error> {
        let mut found = Vec::new();
        for (name, repository) in self.repositories()? {
            let error = || Error::io(&name, &repository.path);
            if detached {
                let refs = refs(&repository).map_err(error())?;
                for (commit, path) in snapshots(&repository).map_err(error())? {
                    if refs.contains_key(&commit) {
                        continue;
                    }
                    found.push(Garbage {
                        bytes: own_bytes(&repository, &commit).map_err(error())?,
                        path,
                        reason: GarbageReason::Detached,
                        lock: None,
                    });
                }
            }
            let garbage = garbage(&repository).map_err(error())?;
            let is_free = |garbage: &Garbage| match &garbage.lock {
                Some(lock) if lock.exists() => matches!(Lock::try_acquire(lock), Ok(Some(_))),
                _ => true,
            };
            found.extend(garbage.into_iter().filter(is_free));
        }
        Ok(found)
    }

    /// Removes what [`garbage`](Self::garbage) lists, and what becomes garbage by that; how many bytes that freed.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn gc(&self, detached: bool) -> Result<u64, Error> {
        let total = |hub: &Self| -> Result<u64, Error> {
            let mut total = 0;
            for (name, repository) in hub.repositories()? {
                total += contents(&repository).map_err(Error::io(&name, &repository.path))?;
            }
            Ok(total)
        };
        let before = total(self)?;
        for garbage in self.garbage(detached)? {
            let path = garbage.path.display().to_string();
            if garbage.reason == GarbageReason::Detached {
                let commit = garbage.path.file_name().unwrap_or_default();
                let folder = garbage.path.parent().and_then(Path::parent);
                let name = folder.and_then(Path::file_name).unwrap_or_default();
                let repository = Repository::named(&self.cache, &name.to_string_lossy());
                forget(&repository, &commit.to_string_lossy())
                    .map_err(Error::io(&path, &garbage.path))?;
            } else {
                discard(&garbage).map_err(Error::io(&path, &garbage.path))?;
            }
        }
        if detached {
            self.gc(false)?;
        }
        Ok(before.saturating_sub(total(self)?))
    }

    /// Sums the files of a model in the cache, all commits of it or the one of `owner/name@revision`. Damaged files are
    /// only told of; [`repair`](Self::repair) replaces them.
    ///
    /// # Errors
    /// The cache does not have the model, a file cannot be read, or it was cancelled.
    pub fn verify(&self, id: &str) -> Result<Vec<VerifiedFile>, Error> {
        let parsed = ModelId::parse(id, &self.endpoint)?;
        let repository = Repository::new(&self.cache, &parsed);
        let not_cached = || Error::NotCached {
            id: id.to_owned(),
            cache: self.cache.clone(),
        };
        let mut snapshots = snapshots(&repository).map_err(|_| not_cached())?;
        if id.contains('@') {
            let commit = repository.commit(&parsed.revision).ok_or_else(not_cached)?;
            snapshots.retain(|(found, _)| *found == commit);
        }
        if snapshots.is_empty() {
            return Err(not_cached());
        }
        let mut verified = Vec::new();
        for (commit, path) in snapshots {
            let tree = repository.tree(&commit).unwrap_or_default();
            for (file, path) in files::list(&path).map_err(Error::io(id, &path))? {
                let entry = tree.get(&file);
                let found = verify_file(id, &file, &path, entry, &self.cancel, &self.progress)?;
                let (state, expected, actual) = found;
                verified.push(VerifiedFile {
                    bytes: size(&path).unwrap_or_default(),
                    file,
                    commit: commit.clone(),
                    state,
                    expected,
                    actual,
                });
            }
        }
        self.record(&serde_json::json!({
            "event": "verified",
            "id": id,
            "files": verified.len(),
            "damaged": verified.iter().filter(|file| file.state == FileState::Damaged).count(),
        }))?;
        Ok(verified)
    }

    /// Verifies a model as [`verify`](Self::verify) does, throws damaged and missing files away and fetches them
    /// again; what it found before that.
    ///
    /// # Errors
    /// As [`verify`](Self::verify) and [`fetch`](Self::fetch).
    pub fn repair(&self, id: &str) -> Result<Vec<VerifiedFile>, Error> {
        let verified = self.verify(id)?;
        let parsed = ModelId::parse(id, &self.endpoint)?;
        let repository = Repository::new(&self.cache, &parsed);
        let mut again: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in &verified {
            if matches!(file.state, FileState::Damaged | FileState::Missing) {
                let path = repository.snapshot(&file.commit).join(&file.file);
                // The content first: a link without one is seen to be missing.
                if let Ok(link) = fs::read_link(&path)
                    && let Some(etag) = link.file_name().and_then(|name| name.to_str())
                {
                    let blob = repository.blob(etag);
                    files::remove(&blob).map_err(Error::io(id, &blob))?;
                }
                files::remove(&path).map_err(Error::io(id, &path))?;
                again.entry(&file.commit).or_default().push(&file.file);
            }
        }
        for (commit, files) in again {
            let id = format!("{}@{commit}", parsed.repository());
            self.fetch_files(&id, &files)?;
        }
        Ok(verified)
    }
}

/// What a file is, the sum that it is to have and the one that it has.
type Verified = (FileState, Option<String>, Option<String>);

fn verify_file(
    id: &str,
    file: &str,
    path: &Path,
    entry: Option<&Entry>,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Verified, Error> {
    let linked = fs::read_link(path).ok();
    let linked = linked.as_ref().and_then(|link| link.file_name()?.to_str());
    let expected = entry
        .and_then(Entry::digest)
        .or_else(|| Digest::of_name(linked?));
    let Some(bytes) = size(path) else {
        let expected = expected.map(|digest| digest.hex);
        return Ok((FileState::Missing, expected, None));
    };
    let Some(expected) = expected else {
        return Ok((FileState::Unknown, None, None));
    };
    progress.tell(Event::Started {
        file,
        bytes: Some(bytes),
        done: 0,
    });
    let advance = |done| progress.tell(Event::Advanced { file, done });
    let actual = digest::of_file(path, expected.algorithm, cancel, advance)
        .map_err(Error::io(id, path))?
        .ok_or_else(|| Error::Cancelled { id: id.to_owned() })?;
    progress.tell(Event::Finished { file });
    let state = if expected.accepts(&actual) {
        FileState::Good
    } else {
        FileState::Damaged
    };
    Ok((state, Some(expected.hex), Some(actual)))
}

fn scan(id: &str, repository: &Repository) -> io::Result<Option<CachedModel>> {
    let refs = refs(repository)?;
    let mut accessed = SystemTime::UNIX_EPOCH;
    let mut revisions = Vec::new();
    for (commit, path) in snapshots(repository)? {
        let mut revision = CachedRevision {
            refs: refs.get(&commit).cloned().unwrap_or_default(),
            commit,
            modified: SystemTime::UNIX_EPOCH,
            files: 0,
            bytes: 0,
            path,
        };
        for (_, path) in files::list(&revision.path)? {
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            revision.files += 1;
            revision.bytes += metadata.len();
            revision.modified = revision.modified.max(metadata.modified()?);
            accessed = accessed.max(metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH));
        }
        revisions.push(revision);
    }
    revisions.sort_by_key(|revision| std::cmp::Reverse(revision.modified));
    let Some(latest) = revisions.first() else {
        return Ok(None);
    };
    Ok(Some(CachedModel {
        id: id.to_owned(),
        path: repository.path.clone(),
        bytes: contents(repository)?,
        modified: latest.modified,
        accessed: accessed.max(latest.modified),
        revisions,
    }))
}

/// The branches and tags of each commit.
fn refs(repository: &Repository) -> io::Result<BTreeMap<String, Vec<String>>> {
    let mut refs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, path) in list_if_there(&repository.path.join("refs"))? {
        if let Ok(commit) = fs::read_to_string(path) {
            refs.entry(commit.trim().to_owned()).or_default().push(name);
        }
    }
    Ok(refs)
}

fn snapshots(repository: &Repository) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(repository.path.join("snapshots")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && is_commit(name)
        {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

fn list_if_there(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    match files::list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The bytes of a repository's contents; of its snapshots, too, where these are no links.
fn contents(repository: &Repository) -> io::Result<u64> {
    let mut total = 0;
    for directory in ["blobs", "snapshots"] {
        for (_, path) in list_if_there(&repository.path.join(directory))? {
            if let Ok(metadata) = fs::symlink_metadata(path)
                && metadata.is_file()
            {
                total += metadata.len();
            }
        }
    }
    Ok(total)
}

/// The contents that each commit's files link to.
fn links(repository: &Repository, commit: &str) -> io::Result<BTreeSet<PathBuf>> {
    let listed = list_if_there(&repository.snapshot(commit))?;
    let linked = listed.iter().filter_map(|(_, path)| {
        let link = fs::read_link(path).ok()?;
        Some(repository.path.join("blobs").join(link.file_name()?))
    });
    Ok(linked.collect())
}

/// The bytes that only this commit needs.
fn own_bytes(repository: &Repository, commit: &str) -> io::Result<u64> {
    let mut own = links(repository, commit)?;
    for (other, _) in snapshots(repository)? {
        if other != commit {
            let others = links(repository, &other)?;
            own.retain(|blob| !others.contains(blob));
        }
    }
    Ok(own.iter().filter_map(|blob| size(blob)).sum())
}

fn garbage(repository: &Repository) -> io::Result<Vec<Garbage>> {
    let mut used = BTreeSet::new();
    let mut found = Vec::new();
    for (commit, path) in snapshots(repository)? {
        used.extend(links(repository, &commit)?);
        for (_, path) in files::list(&path)? {
            if !path.exists() {
                found.push(Garbage {
                    path,
                    bytes: 0,
                    reason: GarbageReason::Dangling,
                    lock: None,
                });
            }
        }
    }
    for (name, path) in list_if_there(&repository.path.join("blobs"))? {
        // Python adds a word of its own before the ending.
        let etag = name.split('.').next().unwrap_or(&name).to_owned();
        let reason = if name.ends_with(".incomplete") || name.starts_with(".tmp-") {
            GarbageReason::Incomplete
        } else if used.contains(&path) {
            continue;
        } else {
            GarbageReason::Unreferenced
        };
        found.push(Garbage {
            bytes: size(&path).unwrap_or_default(),
            path,
            reason,
            lock: Some(repository.lock(&etag)),
        });
    }
    Ok(found)
}

/// Removes a piece of garbage, unless someone took it up in the meantime.
fn discard(garbage: &Garbage) -> io::Result<()> {
    match &garbage.lock {
        Some(lock) if lock.exists() => match Lock::try_acquire(lock)? {
            Some(_held) => files::remove(&garbage.path),
            None => Ok(()),
        },
        _ => files::remove(&garbage.path),
    }
}

/// Removes a commit's snapshot and listing, and the names that led to it.
fn forget(repository: &Repository, commit: &str) -> io::Result<()> {
    for name in refs(repository)?.remove(commit).unwrap_or_default() {
        files::remove(&repository.path.join("refs").join(name))?;
    }
    files::remove(&repository.tree_path(commit))?;
    match fs::remove_dir_all(repository.snapshot(commit)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
