//! What the hub has, and how it comes into the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError, HFRepositorySync, RepoTypeModel};
use tracing::{debug, info};

use crate::error::{is_unreachable, response};
use crate::id::{ModelId, is_commit};
use crate::select::needed;
use crate::{Error, Hub};

/// How long to wait for a connection, as in Python.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// With the time for a connection, this bounds how long an unreachable hub keeps the cache from
/// being used.
const RETRIES: usize = 2;
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// How often the client's 10 seconds for a lock are granted; who holds it may be fetching
/// gigabytes.
const LOCK_ATTEMPTS: usize = 180;

/// A commit of a repository.
pub(crate) struct Remote<'a> {
    hub: &'a Hub,
    id: &'a ModelId,
    repository: HFRepositorySync<RepoTypeModel>,
    commit: String,
    /// The lengths of the files.
    sizes: BTreeMap<String, u64>,
    /// Where the commit's files are in the cache.
    snapshot: PathBuf,
}

/// A repository that cannot be listed.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the cache may stand in.
    pub(crate) unreachable: bool,
}

impl<'a> Remote<'a> {
    /// Asks the hub for the commit and its files.
    pub(crate) fn open(hub: &'a Hub, id: &'a ModelId) -> Result<Self, Failure> {
        let failure = |error: HFError| Failure {
            unreachable: is_unreachable(&error),
            error: hub_error(hub, id, error),
        };
        let repository = repository(hub, id).map_err(failure)?;
        let (commit, sizes) = listing(&repository, &id.revision).map_err(failure)?;
        debug!(id = id.text, commit, files = sizes.len(), "listed");
        let snapshot = id.directory(&hub.cache).join("snapshots").join(&commit);
        Ok(Self {
            hub,
            id,
            repository,
            commit,
            sizes,
            snapshot,
        })
    }

    /// Fetches what is needed and not yet in the cache, and gives the snapshot.
    pub(crate) fn fetch(&self) -> Result<PathBuf, Error> {
        let names: BTreeSet<_> = self.sizes.keys().cloned().collect();
        let files = needed(&self.id.text, &names, |name| {
            let path = self.file(name)?;
            fs::read(&path).map_err(|source| self.io(path, source))
        })?;
        for name in &files {
            self.file(name)?;
        }
        // Last, so that the name of a revision does not lead to a snapshot that is not complete.
        self.write_ref()?;
        Ok(self.snapshot.clone())
    }

    /// The path of a file in the cache, fetched if it is not there.
    fn file(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.snapshot.join(name);
        let expected = self.sizes.get(name).copied().unwrap_or_default();
        if size(&path) == Some(expected) {
            return Ok(path);
        }
        info!(id = self.id.text, file = name, bytes = expected, "fetching");
        // The client writes a file's content before it looks whether the response is one of
        // failure, and takes what is in the cache for whole; so its length is looked at here, and a
        // second attempt replaces it.
        let is_stale = fs::symlink_metadata(&path).is_ok();
        let mut actual = None;
        for replace in [is_stale, true] {
            self.download(name, replace)?;
            actual = size(&path);
            if actual == Some(expected) {
                return Ok(path);
            }
            debug!(
                id = self.id.text,
                file = name,
                actual,
                expected,
                "wrong size"
            );
            self.remove(&path)?;
            if replace {
                break;
            }
        }
        Err(Error::WrongSize {
            id: self.id.text.clone(),
            file: name.to_owned(),
            expected,
            actual: actual.unwrap_or_default(),
        })
    }

    fn download(&self, name: &str, replace: bool) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            let result = self
                .repository
                .download_file()
                .filename(name)
                .revision(self.commit.as_str())
                .force_download(replace)
                .send();
            match result {
                Ok(_) => return Ok(()),
                Err(HFError::CacheLockTimeout { .. }) if attempt < LOCK_ATTEMPTS => {
                    attempt += 1;
                    debug!(id = self.id.text, file = name, "another process fetches it");
                }
                Err(error) => return Err(hub_error(self.hub, self.id, error)),
            }
        }
    }

    /// Removes a file and the content that it is a link to.
    fn remove(&self, path: &Path) -> Result<(), Error> {
        let blobs = self.id.directory(&self.hub.cache).join("blobs");
        let content = fs::canonicalize(path).ok();
        let is_blob = |content: &PathBuf| {
            fs::canonicalize(&blobs).is_ok_and(|blobs| content.parent() == Some(&*blobs))
        };
        for path in [content.filter(is_blob), Some(path.to_owned())]
            .into_iter()
            .flatten()
        {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(self.io(path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn write_ref(&self) -> Result<(), Error> {
        if is_commit(&self.id.revision) {
            return Ok(());
        }
        let refs = self.id.directory(&self.hub.cache).join("refs");
        let path = refs.join(&self.id.revision);
        // A cache that has all need not be writable.
        if fs::read_to_string(&path).is_ok_and(|commit| commit.trim() == self.commit) {
            return Ok(());
        }
        let directory = path.parent().unwrap_or(&refs);
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, &self.commit))
            .map_err(|source| self.io(path, source))
    }

    fn io(&self, path: PathBuf, source: std::io::Error) -> Error {
        Error::Io {
            id: self.id.text.clone(),
            path,
            source,
        }
    }
}

/// The length of a file, also through a link.
fn size(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_file().then_some(metadata.len())
}

fn repository(hub: &Hub, id: &ModelId) -> Result<HFRepositorySync<RepoTypeModel>, HFError> {
    // The client's own would wait for ever for a hub that does not answer.
    let client = reqwest::Client::builder()
        .user_agent(concat!("salamander/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()?;
    let client = HFClient::builder()
        .client(client)
        .endpoint(&hub.endpoint)
        .cache_dir(&hub.cache)
        // Without a token the client would look for one in the environment, and send it to whatever
        // endpoint this is; one that cannot be put into a header is not sent.
        .token(hub.token.as_deref().unwrap_or("\0"))
        .retry_max_attempts(RETRIES)
        .retry_base_delay(RETRY_DELAY)
        .build_sync()?;
    Ok(client.model(&id.owner, &id.name))
}

/// The commit that a revision is now, and its files with their lengths.
fn listing(
    repository: &HFRepositorySync<RepoTypeModel>,
    revision: &str,
) -> Result<(String, BTreeMap<String, u64>), HFError> {
    let commit = if is_commit(revision) {
        revision.to_owned()
    } else {
        let info = repository
            .info()
            .revision(revision)
            .expand(vec!["sha".to_owned()])
            .send()?;
        // It becomes a path.
        info.sha
            .filter(|sha| is_commit(sha))
            .ok_or_else(|| HFError::malformed_response("the hub named no commit"))?
    };
    let tree = repository
        .list_tree()
        .revision(commit.as_str())
        .recursive(true)
        .send()?;
    let sizes = tree
        .into_iter()
        .filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some((path, size)),
            RepoTreeEntry::Directory { .. } => None,
        })
        .collect();
    Ok((commit, sizes))
}

fn hub_error(hub: &Hub, id: &ModelId, error: HFError) -> Error {
    let endpoint = hub.endpoint.trim_end_matches('/').to_owned();
    let page = format!("{}/{}", id.owner, id.name);
    let id = id.text.clone();
    let retry_after = match &error {
        HFError::RateLimited { retry_after, .. } => *retry_after,
        _ => None,
    };
    let (status, code) = response(&error).unzip();
    let code = code.flatten();
    let is_missing = matches!(
        error,
        HFError::RepoNotFound { .. }
            | HFError::RevisionNotFound { .. }
            | HFError::EntryNotFound { .. }
    );
    // Without a token, the hub answers 401 for what it does not have; sometimes it says so.
    if is_missing || status == Some(404) || matches!(code, Some("RepoNotFound")) {
        return Error::NotFound {
            id,
            endpoint,
            source: error.into(),
        };
    }
    match (status, error) {
        (Some(status @ (401 | 403)), error) => Error::AccessRefused {
            id,
            endpoint,
            page,
            status,
            source: error.into(),
        },
        (Some(429), error) => Error::RateLimited {
            id,
            retry_after,
            source: error.into(),
        },
        (_, HFError::Io(source)) => Error::Io {
            id,
            path: hub.cache.clone(),
            source,
        },
        (_, HFError::CacheLockTimeout { path }) => Error::Locked { id, lock: path },
        (_, error) => Error::Network {
            id,
            endpoint,
            source: error.into(),
        },
    }
}
