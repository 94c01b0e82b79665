use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use std::{fmt, fs};

use serde_json::{Value, json};
use tracing::{debug, info};

use crate::cache::Repository;
use crate::download::{Wanted, download};
use crate::files::{self, Lock, size};
use crate::http::{Settings, on_own_thread};
use crate::id::{ModelId, is_commit};
use crate::progress::{Cancel, Event, Progress, Wait};
use crate::remote::{self, FoundModel, Remote, Search};
use crate::select::{Needed, matching, needed};
use crate::signature::PublicKey;
use crate::tree::Tree;
use crate::{Error, env};

/// Where models are fetched from and to.
///
/// ```no_run
/// let mut hub = salamander_hub::Hub::new("/data/models");
/// hub.offline = true;
/// let directory = hub.fetch("google-bert/bert-base-uncased@main")?;
/// # Ok::<(), salamander_hub::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Hub {
    /// The hub's address, `https://huggingface.co` unless set.
    pub endpoint: String,
    /// The directory with the cache, in the layout of Python's `huggingface_hub`.
    pub cache: PathBuf,
    /// The access token, for private and gated models. Without one, none is sent. It does not follow a redirect to
    /// another host.
    pub token: Option<String>,
    /// Whether there is to be no request, so that only what is in the cache can be had.
    pub offline: bool,
    /// How many files are fetched at the same time; 4 unless set.
    pub connections: usize,
    /// How long a connection may be silent; 20 s unless set.
    pub timeout: Duration,
    /// How long to wait, at most, where the hub says to come back later; 60 s unless set.
    pub patience: Duration,
    /// Hears what is fetched.
    pub progress: Progress,
    /// Ends what is under way.
    pub cancel: Cancel,
    /// A file that pins models to commits and sums, see [`Hub::lock`]. With one, only what it pins is given.
    pub lock_file: Option<PathBuf>,
    /// The public keys with which the models of an owner (`owner`), or one model (`owner/name`), must be signed.
    pub keys: Vec<(String, PublicKey)>,
    /// A file that gets a line of JSON for each file that is fetched, and each model that is verified and given.
    pub audit: Option<PathBuf>,
}

/// Which files are wanted.
#[derive(Clone, Copy)]
enum Want<'a> {
    /// What an inference needs.
    Needed,
    /// What matches a pattern.
    Matching(&'a [&'a str]),
}

impl Want<'_> {
    fn select(
        self,
        id: &ModelId,
        names: &BTreeSet<String>,
        read: impl FnMut(&str) -> Result<Vec<u8>, Error>,
    ) -> Result<Needed, Error> {
        match self {
            Self::Needed => needed(&id.text, names, read),
            Self::Matching(patterns) => matching(&id.text, names, patterns),
        }
    }
}

impl Hub {
    /// The public hub with a cache of its own, whatever the environment says: without a token, and
    /// online.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            connections: 4,
            timeout: Duration::from_secs(20),
            patience: Duration::from_secs(60),
            progress: Progress::default(),
            cancel: Cancel::default(),
            lock_file: None,
            keys: Vec::new(),
            audit: None,
        }
    }

    /// The hub, cache and token that the environment names, as Python's `huggingface_hub` reads it; see the
    /// [crate's page](crate).
    ///
    /// # Errors
    /// Neither `HF_HUB_CACHE` nor `HF_HOME` is set, and there is no home directory.
    pub fn from_env() -> Result<Self, Error> {
        env::hub(|name| std::env::var_os(name), std::env::home_dir())
    }

    /// The directory with the model `id`, which is `owner/name` or `owner/name@revision`.
    ///
    /// It has the configuration, the tokenizer, the processor, the modules of sentence-transformers and the weights in
    /// the best format that the repository has of safetensors, PyTorch, GGUF and NumPy. Each file's sum was checked
    /// when it was fetched.
    ///
    /// What is in the cache is taken without a request, so that a branch stays at the commit that it was when it was
    /// fetched; [`update`](Self::update) asks again. If the hub cannot be reached, or
    /// [`offline`](Self::offline) is set, a snapshot that Python has fetched is taken if its weights are complete.
    ///
    /// # Errors
    /// The id is none, the hub does not have the model or does not give it, the repository has no
    /// weights that can be used, a lock file or a pinned key speaks against it, or network or disk fail: see
    /// [`Error`]. No half file is left under its final name.
    pub fn fetch(&self, id: &str) -> Result<PathBuf, Error> {
        self.get(id, Want::Needed, false)
    }

    /// As [`fetch`](Self::fetch), but a branch or tag is first asked for the commit that it is now.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch), and if the hub cannot be reached.
    pub fn update(&self, id: &str) -> Result<PathBuf, Error> {
        self.get(id, Want::Needed, true)
    }

    /// As [`fetch`](Self::fetch) for the files that match one of the patterns: `*` stands for any letters, `?` for
    /// one.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch), and if no file matches.
    pub fn fetch_files(&self, id: &str, patterns: &[&str]) -> Result<PathBuf, Error> {
        self.get(id, Want::Matching(patterns), false)
    }

    /// The models that the hub has.
    ///
    /// # Errors
    /// The hub does not answer, or with something else.
    pub fn search(&self, search: &Search) -> Result<Vec<FoundModel>, Error> {
        if self.offline {
            return Err(self.not_cached(&search.text));
        }
        on_own_thread(|| {
            Remote::new(self, &search.text, self.settings(&self.cancel))?.search(search)
        })
    }

    /// What is known of a model: its `id`, `commit` and `files` with lengths and sums, whether each is `cached`, and
    /// what else the hub says of it (`hub`), unless offline.
    ///
    /// # Errors
    /// The hub does not have the model or does not give it; offline, if the cache has no listing of it.
    pub fn show(&self, id: &str) -> Result<Value, Error> {
        let id = ModelId::parse(id, &self.endpoint)?;
        let repository = Repository::new(&self.cache, &id);
        let (commit, tree, hub) = if self.offline {
            let commit = repository.commit(&id.revision);
            let listed = commit.and_then(|commit| Some((repository.tree(&commit)?, commit)));
            let (tree, commit) = listed.ok_or_else(|| self.not_cached(&id.text))?;
            (commit, tree, Value::Null)
        } else {
            on_own_thread(|| {
                let remote = Remote::new(self, &id.text, self.settings(&self.cancel))?;
                let mut info = remote.info(&id)?;
                // The listing says it better.
                if let Some(info) = info.as_object_mut() {
                    info.remove("siblings");
                }
                let commit = match info["sha"].as_str() {
                    Some(sha) if is_commit(sha) => sha.to_owned(),
                    _ => remote.commit(&id)?,
                };
                let tree = remote.tree(&id, &commit)?;
                Ok::<_, Error>((commit, tree, info))
            })?
        };
        let present = repository.present(&commit);
        let files: Vec<Value> = tree
            .iter()
            .map(|(name, entry)| {
                json!({
                    "name": name,
                    "bytes": entry.size(),
                    "sha256": entry.lfs_sha256,
                    "blob": entry.blob_id,
                    "cached": present.contains(name),
                })
            })
            .collect();
        Ok(json!({
            "id": id.repository(),
            "revision": id.revision,
            "commit": commit,
            "files": files,
            "hub": hub,
        }))
    }

    fn get(&self, text: &str, want: Want<'_>, is_update: bool) -> Result<PathBuf, Error> {
        let mut id = ModelId::parse(text, &self.endpoint)?;
        let pinned = self.pinned(&id)?;
        if let Some(pinned) = &pinned {
            if is_update {
                self.check_upstream(&id, pinned)?;
            }
            id.revision.clone_from(&pinned.commit);
        }
        let repository = Repository::new(&self.cache, &id);
        let cached = match repository.commit(&id.revision) {
            Some(commit) if !is_update || is_commit(&id.revision) => {
                self.cached(&id, &repository, want, &commit)
            }
            _ => None,
        };
        let (commit, names) = match cached {
            Some(found) => found,
            None if self.offline => self
                .partly_cached(&id, &repository, want)
                .ok_or_else(|| self.not_cached(text))?,
            None => {
                let fetched = on_own_thread(|| self.fetched(&id, &repository, want));
                match fetched {
                    Err(error) if !is_update && error.is_unreachable() => {
                        let cached = self.partly_cached(&id, &repository, want);
                        info!(id = text, %error, "unreachable");
                        cached.ok_or(error)?
                    }
                    other => other?,
                }
            }
        };
        let snapshot = repository.snapshot(&commit);
        if let Some(pinned) = &pinned {
            self.check_pinned(text, pinned, &snapshot, &names)?;
        }
        self.check_signature(text, &snapshot, &names)?;
        self.record(&json!({
            "event": "opened",
            "id": text,
            "commit": commit,
            "path": snapshot,
        }))?;
        Ok(snapshot)
    }

    /// The snapshot, if all that is wanted is there, by the listing in the cache.
    fn cached(
        &self,
        id: &ModelId,
        repository: &Repository,
        want: Want<'_>,
        commit: &str,
    ) -> Option<(String, Vec<String>)> {
        let tree = repository.tree(commit)?;
        let snapshot = repository.snapshot(commit);
        let names = tree.keys().cloned().collect();
        let wanted = want.select(id, &names, |name| {
            let path = snapshot.join(name);
            fs::read(&path).map_err(Error::io(&id.text, &path))
        });
        let is_whole = |name: &&String| {
            let expected = tree.get(*name).map(|entry| entry.size());
            expected.is_some() && size(&snapshot.join(name)) == expected
        };
        let names: Vec<String> = wanted.ok()?.iter().cloned().collect();
        let is_complete = names.iter().all(|name| is_whole(&name));
        is_complete.then(|| (commit.to_owned(), names))
    }

    /// The snapshot that Python has fetched, or an older version, if what is there can be used.
    fn partly_cached(
        &self,
        id: &ModelId,
        repository: &Repository,
        want: Want<'_>,
    ) -> Option<(String, Vec<String>)> {
        let commit = repository.commit(&id.revision)?;
        let snapshot = repository.snapshot(&commit);
        let wanted = want.select(id, &repository.present(&commit), |name| {
            let path = snapshot.join(name);
            fs::read(&path).map_err(Error::io(&id.text, &path))
        });
        match wanted {
            Ok(wanted) => Some((commit, wanted.iter().cloned().collect())),
            Err(error) => {
                debug!(id = id.text, %error, "the cached snapshot is not complete");
                None
            }
        }
    }

    fn not_cached(&self, id: &str) -> Error {
        Error::NotCached {
            id: id.to_owned(),
            cache: self.cache.clone(),
        }
    }

    pub(crate) fn settings(&self, cancel: &Cancel) -> Settings {
        Settings {
            timeout: self.timeout,
            patience: self.patience,
            cancel: cancel.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Fetches what is wanted and not there.
    fn fetched(
        &self,
        id: &ModelId,
        repository: &Repository,
        want: Want<'_>,
    ) -> Result<(String, Vec<String>), Error> {
        let remote = Remote::new(self, &id.text, self.settings(&self.cancel))?;
        let (place, commit) = remote.locate(id)?;
        let tree = match repository.tree(&commit) {
            Some(tree) => tree,
            None => remote.tree(&place, &commit)?,
        };
        debug!(id = id.text, commit, files = tree.len(), "listed");
        let fetch = Fetch {
            hub: self,
            id,
            place: &place,
            repository,
            commit: &commit,
            tree: &tree,
        };
        let names = tree.keys().cloned().collect();
        let wanted = want.select(id, &names, |name| {
            fetch.one(&remote, name)?;
            let path = repository.snapshot(&commit).join(name);
            fs::read(&path).map_err(Error::io(&id.text, &path))
        })?;
        let io = || Error::io(&id.text, &repository.path);
        if repository.tree(&commit).is_none() {
            repository.set_tree(&commit, &tree).map_err(io())?;
        }
        let missing = |names: &[String]| -> Vec<String> {
            let is_missing = |name: &&String| !fetch.is_there(name);
            names.iter().filter(is_missing).cloned().collect()
        };
        let (settings, weights) = (missing(&wanted.settings), missing(&wanted.weights));
        let all = || settings.iter().chain(&weights);
        if all().next().is_some() {
            self.progress.tell(Event::Planned {
                files: all().count(),
                bytes: all().fold(0, |sum, name| tree[name].size().saturating_add(sum)),
            });
        }
        // The weights come last: a snapshot that has them has all, also for who has no listing.
        for names in [settings, weights] {
            fetch.all(&remote, names)?;
        }
        // After the files, so that the name of a revision does not lead to a snapshot that is not complete.
        repository.set_commit(&id.revision, &commit).map_err(io())?;
        Ok((commit, wanted.iter().cloned().collect()))
    }

    /// The listing of a commit, from the cache or the hub.
    pub(crate) fn tree(&self, id: &ModelId, commit: &str) -> Result<Tree, Error> {
        match Repository::new(&self.cache, id).tree(commit) {
            Some(tree) => Ok(tree),
            None if self.offline => Err(self.not_cached(&id.text)),
            None => on_own_thread(|| {
                Remote::new(self, &id.text, self.settings(&self.cancel))?.tree(id, commit)
            }),
        }
    }

    /// The commit that a revision is now, from the hub.
    pub(crate) fn present_commit(&self, id: &ModelId) -> Result<String, Error> {
        if self.offline {
            let commit = Repository::new(&self.cache, id).commit(&id.revision);
            return commit.ok_or_else(|| self.not_cached(&id.text));
        }
        on_own_thread(|| Remote::new(self, &id.text, self.settings(&self.cancel))?.commit(id))
    }
}

/// The fetching of a commit's files.
struct Fetch<'a> {
    hub: &'a Hub,
    id: &'a ModelId,
    /// The id under which the hub has the files.
    place: &'a ModelId,
    repository: &'a Repository,
    commit: &'a str,
    tree: &'a Tree,
}

impl Fetch<'_> {
    fn is_there(&self, name: &str) -> bool {
        let path = self.repository.snapshot(self.commit).join(name);
        let expected = self.tree.get(name).map(|entry| entry.size());
        expected.is_some() && size(&path) == expected
    }

    /// Fetches files on several threads. What is under way when one fails is kept for the next time.
    fn all(&self, remote: &Remote<'_>, names: Vec<String>) -> Result<(), Error> {
        let threads = self.hub.connections.clamp(1, 64).min(names.len());
        if threads <= 1 {
            return names.iter().try_for_each(|name| self.one(remote, name));
        }
        let queue = Mutex::new(VecDeque::from(names));
        let stop = self.hub.cancel.child();
        let work = || -> Result<(), Error> {
            let remote = Remote::new(self.hub, &self.id.text, self.hub.settings(&stop))?;
            loop {
                let next = match queue.lock() {
                    Ok(mut queue) => queue.pop_front(),
                    Err(_) => None,
                };
                let Some(name) = next else { return Ok(()) };
                if let Err(error) = self.one(&remote, &name) {
                    stop.cancel();
                    return Err(error);
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut result = Ok(());
            for thread in threads {
                let own = match thread.join() {
                    Ok(own) => own,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                // The others were only stopped for the sake of the one that failed.
                if matches!(result, Ok(()) | Err(Error::Cancelled { .. })) && own.is_err() {
                    result = own;
                }
            }
            result
        })
    }

    /// Sees to it that a file is in the snapshot.
    fn one(&self, remote: &Remote<'_>, name: &str) -> Result<(), Error> {
        if self.is_there(name) {
            return Ok(());
        }
        let id = &self.id.text;
        let Some(entry) = self.tree.get(name) else {
            return Ok(());
        };
        let (etag, repository) = (entry.etag(), self.repository);
        let (blob, partial, lock) = (
            repository.blob(etag),
            repository.partial(etag),
            repository.lock(etag),
        );
        let blobs = blob.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(blobs).map_err(Error::io(id, blobs))?;
        let settings = &remote.client.settings;
        let waiting = || {
            settings.progress.tell(Event::Waiting {
                file: name,
                wait: Wait::OtherProcess,
            });
        };
        let held = Lock::acquire(&lock, &settings.cancel, waiting).map_err(Error::io(id, &lock))?;
        let _held = held.ok_or_else(|| Error::Cancelled { id: id.clone() })?;
        if size(&blob) != Some(entry.size()) {
            // Another tool, or a damaged disk, may have left a content that is too short.
            files::remove(&blob).map_err(Error::io(id, &blob))?;
            info!(id, file = name, bytes = entry.size(), "fetching");
            let wanted = Wanted {
                name,
                url: remote.file(self.place, self.commit, name),
                authorization: remote.authorization.as_ref(),
                size: Some(entry.size()),
                digest: entry.digest(),
            };
            let sum = download(&remote.client, &wanted, &partial)
                .map_err(|fault| remote::error(self.hub, id, Some(name), fault))?;
            fs::rename(&partial, &blob).map_err(Error::io(id, &blob))?;
            self.hub.record(&json!({
                "event": "fetched",
                "id": id,
                "commit": self.commit,
                "file": name,
                "bytes": entry.size(),
                "sum": sum,
                "url": wanted.url.as_str(),
            }))?;
        }
        let path = repository.snapshot(self.commit).join(name);
        repository
            .link(self.commit, name, etag)
            .map_err(Error::io(id, &path))?;
        settings.progress.tell(Event::Finished { file: name });
        Ok(())
    }
}

// The token must not get into logs.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("offline", &self.offline)
            .field("lock_file", &self.lock_file)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
