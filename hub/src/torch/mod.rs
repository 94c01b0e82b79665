//! The functions of `torch.hub`, for repositories on GitHub and in local directories.
//!
//! A repository says what it offers in a `hubconf.toml`: entry points with architecture, configuration, weights and
//! their sums. A Python `hubconf.py` is read without being run: its entry points and docstrings are listed, and those
//! that the zoo knows, such as `pytorch/vision`'s `resnet50`, are loaded from the published weights.
//!
//! ```toml
//! [models.tiny]
//! description = "A tiny classifier of two classes."
//! preset = "torchvision/resnet18"        # the name of a layout, with the weights alone; or
//! # config = "models/tiny/config.json"   # the configuration of a model directory, with
//! # files = ["models/tiny/vocab.txt"]    # what else is in it; or
//! # directory = "models/tiny"            # a model directory of the repository as it is
//!
//! [[models.tiny.weights]]                # the first that fit are the default
//! name = "V2"
//! file = "weights/tiny.safetensors"      # in the repository, or `url`
//! sha256 = "…"                           # 64 digits
//! when = { size = "small" }              # the arguments that want these
//!
//! [models.tiny.arguments.size]
//! description = "How large the model is."
//! default = "small"
//! values = ["small", "large"]
//! ```
//!
//! The cache is torch's: `$TORCH_HOME/hub`, with `owner_repo_ref/`, `checkpoints/` and `trusted_list`.
//!
//! | variable | meaning |
//! |---|---|
//! | `TORCH_HOME` | where the cache is, `$XDG_CACHE_HOME/torch` if unset, which is `~/.cache/torch` if unset |
//! | `GITHUB_TOKEN` | for more requests to GitHub than it allows without one |
//! | `HF_HUB_OFFLINE` | `1` for the cache alone, without any request |

mod archive;
mod github;
mod hubconf;
mod python;
mod zoo;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tracing::info;

use crate::digest::{self, Algorithm, Digest, is_hex};
use crate::download::{Wanted, download};
use crate::files::{self, Lock};
use crate::http::{Client, Fault, Settings, on_own_thread};
use crate::progress::{Cancel, Event, Progress, Wait};
use crate::{Error, remote};

use github::Github;
use hubconf::{EntryPoint, Hubconf};

/// Where repositories of code and published weights are fetched from and to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TorchHub {
    /// The directory with the cache, in torch's layout.
    pub directory: PathBuf,
    /// GitHub's address.
    pub github: String,
    /// The address of its API.
    pub github_api: String,
    /// The token for its API.
    pub token: Option<String>,
    /// Whether there is to be no request, so that only what is in the cache can be had.
    pub offline: bool,
    /// Asks whether a repository is to be trusted.
    pub question: Question,
    /// Addresses that begin with the first are fetched from the second, such as a company's own server.
    pub mirrors: Vec<(String, String)>,
    /// How long a connection may be silent; 20 s unless set.
    pub timeout: Duration,
    /// How long to wait, at most, where a server says to come back later; 60 s unless set.
    pub patience: Duration,
    /// Hears what is fetched.
    pub progress: Progress,
    /// Ends what is under way.
    pub cancel: Cancel,
}

/// Asks a person whether `owner/repo` is to be trusted. The default says no.
#[derive(Clone, Default)]
pub struct Question(Option<Arc<Ask>>);

type Ask = dyn Fn(&str) -> bool + Send + Sync;

impl Question {
    /// Calls `ask` with `owner/repo`; it says whether the repository is trusted.
    pub fn new(ask: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    fn ask(&self, repository: &str) -> bool {
        self.0.as_ref().is_some_and(|ask| ask(repository))
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = if self.0.is_some() { "asked" } else { "no" };
        f.debug_tuple("Question").field(&asked).finish()
    }
}

/// Whether a repository is trusted: `trust_repo` of torch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustRepo {
    /// It is: `true`. It gets into the trusted list.
    Yes,
    /// It is asked each time: `false`.
    Ask,
    /// It is asked, unless it is in the trusted list, was fetched before, or has one of the owners `pytorch`,
    /// `facebookresearch`, `facebookincubator` and `fairinternal`: `"check"`.
    #[default]
    Check,
}

/// Where a repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// `owner/repo[:ref]` on GitHub.
    #[default]
    Github,
    /// A directory.
    Local,
}

/// The options of [`TorchHub::load`], [`list`](TorchHub::list) and [`help`](TorchHub::help).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the repository is.
    pub source: Source,
    /// Whether it is trusted.
    pub trust_repo: TrustRepo,
    /// Whether it is fetched again although it is there.
    pub force_reload: bool,
    /// Whether to fetch a ref without looking whether it is the repository's own.
    pub skip_validation: bool,
    /// Whether what is fetched is told in [`tracing`] events of the level `info`.
    pub verbose: bool,
}

/// The options of [`TorchHub::load_state_dict_from_url`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDictOptions {
    /// Where the file is kept; `checkpoints` in the cache unless set.
    pub model_dir: Option<PathBuf>,
    /// The file's name; the address's unless set.
    pub file_name: Option<String>,
    /// Whether the file's SHA-256 is to begin with the digits in its name, as in `resnet18-f37072fd.pth`.
    pub check_hash: bool,
    /// Whether [`TorchHub::progress`] hears of it.
    pub progress: bool,
    /// Must be so: to load anything else, a pickle would have to be run.
    pub weights_only: bool,
}

impl Default for StateDictOptions {
    fn default() -> Self {
        Self {
            model_dir: None,
            file_name: None,
            check_hash: false,
            progress: true,
            weights_only: true,
        }
    }
}

/// A model that an entry point stands for, with its files on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoadedEntry {
    /// The repository, as it was asked for.
    pub repository: String,
    /// The entry point.
    pub entry: String,
    /// The name of the weights, if they have one.
    pub weights: Option<String>,
    /// The layout of a file of weights alone, such as `torchvision/resnet50`. Without one, `path` is a model
    /// directory.
    pub preset: Option<String>,
    /// The file or the directory.
    pub path: PathBuf,
}

/// A repository on disk.
struct Repository {
    id: String,
    /// `owner/repo`, if it is GitHub's.
    name: Option<String>,
    path: PathBuf,
}

static DIRECTORY: RwLock<Option<PathBuf>> = RwLock::new(None);

/// The directory with torch's cache: what [`set_dir`] was given, or else what the environment says.
///
/// # Errors
/// The environment does not say it, and there is no home directory.
pub fn get_dir() -> Result<PathBuf, Error> {
    let set = DIRECTORY
        .read()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    match &*set {
        Some(directory) => Ok(directory.clone()),
        None => directory(|name| std::env::var_os(name), std::env::home_dir()),
    }
}

/// Sets the directory with torch's cache for this process.
pub fn set_dir(directory: impl Into<PathBuf>) {
    let directory = expand(&directory.into(), std::env::home_dir().as_deref());
    let mut set = DIRECTORY
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    *set = Some(directory);
}

fn directory(
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Result<PathBuf, Error> {
    let path = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some(expand(Path::new(&value), home.as_deref()))
    };
    let torch = path("TORCH_HOME")
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("torch")))
        .or_else(|| Some(home.as_ref()?.join(".cache").join("torch")));
    torch.map(|torch| torch.join("hub")).ok_or(Error::NoCache)
}

fn expand(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

impl TorchHub {
    /// GitHub, with a cache of its own, whatever the environment says.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            github: "https://github.com".to_owned(),
            github_api: "https://api.github.com".to_owned(),
            token: None,
            offline: false,
            question: Question::default(),
            mirrors: Vec::new(),
            timeout: Duration::from_secs(20),
            patience: Duration::from_secs(60),
            progress: Progress::default(),
            cancel: Cancel::default(),
        }
    }

    /// The cache and token that the environment names.
    ///
    /// # Errors
    /// As [`get_dir`].
    pub fn from_env() -> Result<Self, Error> {
        let mut hub = Self::new(get_dir()?);
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        hub.token = text("GITHUB_TOKEN");
        hub.offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&&*value.to_uppercase()));
        Ok(hub)
    }

    fn settings(&self) -> Settings {
        Settings {
            timeout: self.timeout,
            patience: self.patience,
            cancel: self.cancel.clone(),
            progress: self.progress.clone(),
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.directory.join(".locks").join(format!("{name}.lock"))
    }

    /// The entry points of a repository, in alphabetical order.
    ///
    /// # Errors
    /// The repository cannot be had or is not trusted, or its `hubconf.toml` or `hubconf.py` cannot be read.
    pub fn list(&self, repository: &str, options: &Options) -> Result<Vec<String>, Error> {
        let repository = self.open(repository, options)?;
        if let Some(hubconf) = repository.hubconf()? {
            return Ok(hubconf.models.into_keys().collect());
        }
        Ok(repository.python()?.callables.into_keys().collect())
    }

    /// The documentation of an entry point.
    ///
    /// # Errors
    /// As [`list`](Self::list), and if there is no such entry point.
    pub fn help(&self, repository: &str, entry: &str, options: &Options) -> Result<String, Error> {
        let repository = self.open(repository, options)?;
        if let Some(hubconf) = repository.hubconf()? {
            return match hubconf.models.get(entry) {
                Some(found) => Ok(found.documentation()),
                None => Err(repository.missing(entry, hubconf.models.keys())),
            };
        }
        let python = repository.python()?;
        match python.callables.get(entry) {
            Some(found) => Ok(found.documentation.clone().unwrap_or_default()),
            None => Err(repository.missing(entry, python.callables.keys())),
        }
    }

    /// The model that an entry point stands for, its weights fetched and verified.
    ///
    /// `arguments` are those of the entry point. Of a `hubconf.py`'s they are `weights` (the name of published
    /// weights, with or without its class, or `DEFAULT`), `pretrained` and `progress`.
    ///
    /// # Errors
    /// As [`help`](Self::help); an argument is not the entry point's; the zoo does not know the entry point of a
    /// `hubconf.py`; or the weights cannot be fetched or are not those that they are to be.
    pub fn load(
        &self,
        repository: &str,
        entry: &str,
        arguments: &BTreeMap<String, Value>,
        options: &Options,
    ) -> Result<LoadedEntry, Error> {
        let repository = self.open(repository, options)?;
        match repository.hubconf()? {
            Some(hubconf) => match hubconf.models.get(entry) {
                Some(found) => self.load_declared(&repository, entry, found, arguments),
                None => Err(repository.missing(entry, hubconf.models.keys())),
            },
            None => self.load_published(&repository, entry, arguments),
        }
    }

    fn open(&self, repository: &str, options: &Options) -> Result<Repository, Error> {
        let found = match options.source {
            Source::Local => {
                let path = PathBuf::from(repository);
                if !path.is_dir() {
                    return Err(Error::Refused {
                        option: format!("the repository `{repository}`"),
                        reason: "there is no such directory; without the source `local`, `owner/repo` is fetched from GitHub".to_owned(),
                    });
                }
                Repository {
                    id: repository.to_owned(),
                    name: None,
                    path,
                }
            }
            Source::Github => self.repository(
                &Github::parse(repository)?,
                options.trust_repo,
                options.force_reload,
                options.skip_validation,
            )?,
        };
        if options.verbose {
            info!(repository, path = %found.path.display(), "using");
        }
        Ok(found)
    }

    fn load_declared(
        &self,
        repository: &Repository,
        entry: &str,
        found: &EntryPoint,
        arguments: &BTreeMap<String, Value>,
    ) -> Result<LoadedEntry, Error> {
        let refuse = |reason: String| repository.refuse(entry, reason);
        let weights = found.choose(arguments).map_err(refuse)?;
        let loaded = |path: PathBuf, preset: Option<&String>| LoadedEntry {
            repository: repository.id.clone(),
            entry: entry.to_owned(),
            weights: weights.and_then(|weights| weights.name.clone()),
            preset: preset.cloned(),
            path,
        };
        let Some(weights) = weights else {
            let directory = found.directory.as_deref().unwrap_or_default();
            return Ok(loaded(repository.path.join(directory), None));
        };
        let sum = weights.sha256.clone().unwrap_or_default();
        let file = match (&weights.file, &weights.url) {
            (Some(file), _) => {
                let path = repository.path.join(file);
                let actual = digest::of_file(&path, Algorithm::Sha256, &self.cancel, |_| {})
                    .map_err(Error::io(&repository.id, &path))?;
                let actual = actual.ok_or_else(|| Error::Cancelled {
                    id: repository.id.clone(),
                })?;
                if actual != sum {
                    return Err(Error::WrongHash {
                        id: repository.id.clone(),
                        file: file.clone(),
                        expected: sum,
                        actual,
                    });
                }
                path
            }
            (None, url) => {
                let url = url.as_deref().unwrap_or_default();
                let options = StateDictOptions {
                    // Two files of one name must not stand for one another.
                    file_name: Some(format!("{}-{}", &sum[..16], file_name(url))),
                    ..StateDictOptions::default()
                };
                self.checkpoint(url, &options, Some(Digest::sha256(&*sum)))?
            }
        };
        match &found.config {
            None => Ok(loaded(file, found.preset.as_ref())),
            Some(config) => {
                let directory = self.assemble(repository, entry, config, found, &file, &sum)?;
                Ok(loaded(directory, None))
            }
        }
    }

    /// A model directory out of the files of a repository and its weights.
    fn assemble(
        &self,
        repository: &Repository,
        entry: &str,
        config: &str,
        found: &EntryPoint,
        weights: &Path,
        sum: &str,
    ) -> Result<PathBuf, Error> {
        let id = &repository.id;
        let name = repository.path.file_name().unwrap_or_default();
        let name = format!("{}-{entry}-{}", name.to_string_lossy(), &sum[..16]);
        if !files::is_plain(&name) {
            return Err(repository.refuse(entry, "its name is no name of a file".to_owned()));
        }
        let models = self.directory.join("models");
        let directory = models.join(name);
        fs::create_dir_all(&models).map_err(Error::io(id, &models))?;
        let temporary = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempdir_in(&models)
            .map_err(Error::io(id, &models))?;
        let copy = |from: &Path, name: &str| {
            let to = temporary.path().join(name);
            fs::copy(from, &to).map(drop).map_err(Error::io(id, from))
        };
        copy(&repository.path.join(config), "config.json")?;
        for file in &found.files {
            let name = file.rsplit('/').next().unwrap_or(file);
            copy(&repository.path.join(file), name)?;
        }
        let name = weights.file_name().unwrap_or_default();
        let link = temporary.path().join(name);
        let weights = fs::canonicalize(weights).map_err(Error::io(id, weights))?;
        if fs::hard_link(&weights, &link).is_err() {
            copy(&weights, &name.to_string_lossy())?;
        }
        // Its configuration may have changed since.
        let made = temporary.keep();
        if directory.is_dir() {
            fs::remove_dir_all(&directory).map_err(Error::io(id, &directory))?;
        }
        fs::rename(&made, &directory).map_err(Error::io(id, &directory))?;
        Ok(directory)
    }

    fn load_published(
        &self,
        repository: &Repository,
        entry: &str,
        arguments: &BTreeMap<String, Value>,
    ) -> Result<LoadedEntry, Error> {
        let python = repository.python()?;
        if !python.callables.contains_key(entry) {
            return Err(repository.missing(entry, python.callables.keys()));
        }
        let name = repository.name.clone().unwrap_or_default();
        let all: Vec<_> = zoo::published(&name, entry).collect();
        let Some(first) = all.first() else {
            return Err(repository.refuse(
                entry,
                "its code is Python, which is not run, and the zoo does not know it; a `hubconf.toml` in the repository would describe it".to_owned(),
            ));
        };
        let names = || {
            let names: Vec<_> = all.iter().map(|published| published.weights).collect();
            names.join(", ")
        };
        let mut chosen = None;
        for (argument, value) in arguments {
            match (&argument[..], value) {
                ("progress", Value::Bool(_)) => {}
                ("pretrained", Value::Bool(true)) => {
                    // What torchvision and timm take it for.
                    let v1 = all.iter().find(|p| p.weights == "IMAGENET1K_V1");
                    chosen = Some(v1.unwrap_or(first));
                }
                ("weights", Value::String(wanted)) => {
                    let wanted = wanted.rsplit('.').next().unwrap_or(wanted);
                    let is_it = |p: &&&zoo::Published| p.weights == wanted;
                    chosen = match wanted {
                        "DEFAULT" => Some(first),
                        _ => Some(all.iter().find(is_it).ok_or_else(|| {
                            let reason =
                                format!("there are no weights {wanted}; there are {}", names());
                            repository.refuse(entry, reason)
                        })?),
                    };
                }
                ("weights", Value::Null) | ("pretrained", Value::Bool(false)) => {}
                (other, value) => {
                    let reason = format!(
                        "`{other}` = {value} is not supported; `weights`, `pretrained` and `progress` are"
                    );
                    return Err(repository.refuse(entry, reason));
                }
            }
        }
        let Some(published) = chosen else {
            let reason = format!(
                "without weights it would be untrained, which is of no use here; give `pretrained` = true, or `weights` as one of DEFAULT, {}",
                names()
            );
            return Err(repository.refuse(entry, reason));
        };
        let options = StateDictOptions {
            check_hash: true,
            ..StateDictOptions::default()
        };
        Ok(LoadedEntry {
            repository: repository.id.clone(),
            entry: entry.to_owned(),
            weights: Some(published.weights.to_owned()),
            preset: Some(published.preset.to_owned()),
            path: self.load_state_dict_from_url(published.url, &options)?,
        })
    }

    /// The file at an address, fetched to `checkpoints` in the cache if it is not there. An archive of a single file
    /// is unpacked.
    ///
    /// # Errors
    /// `weights_only` is off, the address or the file's name is none, or the file cannot be fetched or does not have
    /// the sum that its name says.
    pub fn load_state_dict_from_url(
        &self,
        url: &str,
        options: &StateDictOptions,
    ) -> Result<PathBuf, Error> {
        if !options.weights_only {
            return Err(Error::Refused {
                option: "weights_only = false".to_owned(),
                reason: "to load more than weights is to run what the file says, which is never done here; leave it out, and export the model's other objects to a format of data".to_owned(),
            });
        }
        let name = options.file_name.clone().unwrap_or_else(|| file_name(url));
        let digest = match (options.check_hash, hash_of_name(&name)) {
            (true, Some(hash)) => Some(Digest::sha256(hash)),
            _ => None,
        };
        self.checkpoint(url, options, digest)
    }

    fn checkpoint(
        &self,
        url: &str,
        options: &StateDictOptions,
        digest: Option<Digest>,
    ) -> Result<PathBuf, Error> {
        let name = options.file_name.clone().unwrap_or_else(|| file_name(url));
        if name.contains('/') || !files::is_plain(&name) {
            return Err(Error::UnsafeName {
                id: url.to_owned(),
                name,
            });
        }
        let directory = match &options.model_dir {
            Some(directory) => expand(directory, std::env::home_dir().as_deref()),
            None => self.directory.join("checkpoints"),
        };
        let path = directory.join(name);
        let mut own = self.clone();
        if !options.progress {
            own.progress = Progress::default();
        }
        if !path.exists() {
            if self.offline {
                return Err(Error::NotCached {
                    id: url.to_owned(),
                    cache: directory,
                });
            }
            own.fetch(url, &path, digest, false)?;
        }
        own.unpacked(url, path)
    }

    /// The file, or the only one in it if it is an archive.
    fn unpacked(&self, url: &str, path: PathBuf) -> Result<PathBuf, Error> {
        // torch.save writes archives, too, and puts several files into them.
        let Some(member) = archive::only_member(&path) else {
            return Ok(path);
        };
        let name = member.rsplit('/').next().unwrap_or(&member);
        if files::leaves(&member) || !files::is_plain(name) {
            return Err(Error::UnsafeName {
                id: url.to_owned(),
                name: member,
            });
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let to = directory.join(name);
        if to == path {
            return Ok(path);
        }
        let temporary = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempdir_in(directory)
            .map_err(Error::io(url, directory))?;
        let unpacked = temporary.path().join("file");
        archive::unpack_only(url, &path, &unpacked)?;
        fs::rename(&unpacked, &to).map_err(Error::io(url, &to))?;
        Ok(to)
    }

    /// Fetches an address to a file, which is replaced; its SHA-256 is to begin with `hash_prefix`.
    ///
    /// # Errors
    /// The address or the prefix is none, or the file cannot be fetched or written or has another sum. The old file
    /// stays then.
    pub fn download_url_to_file(
        &self,
        url: &str,
        to: &Path,
        hash_prefix: Option<&str>,
    ) -> Result<(), Error> {
        let digest = match hash_prefix {
            Some(prefix) if is_hex(prefix) && prefix.len() <= 64 => Some(Digest::sha256(prefix)),
            Some(prefix) => {
                return Err(Error::Refused {
                    option: format!("hash_prefix = {prefix:?}"),
                    reason: "give the first small hexadecimal digits of a SHA-256".to_owned(),
                });
            }
            None => None,
        };
        let to = expand(to, std::env::home_dir().as_deref());
        self.fetch(url, &to, digest, true)
    }

    fn fetch(
        &self,
        url: &str,
        to: &Path,
        digest: Option<Digest>,
        is_replaced: bool,
    ) -> Result<(), Error> {
        let mirrored = self.mirrors.iter().find_map(|(from, mirror)| {
            let rest = url.strip_prefix(from)?;
            Some(format!("{mirror}{rest}"))
        });
        let parsed = mirrored.as_deref().unwrap_or(url).parse();
        let parsed = parsed.map_err(|error| Error::Refused {
            option: format!("the address `{url}`"),
            reason: format!("it is none: {error}"),
        })?;
        let directory = to.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(Error::io(url, directory))?;
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let lock = directory.join(".locks").join(format!("{name}.lock"));
        let waiting = || {
            self.progress.tell(Event::Waiting {
                file: &name,
                wait: Wait::OtherProcess,
            });
        };
        let held = Lock::acquire(&lock, &self.cancel, waiting).map_err(Error::io(url, &lock))?;
        let _held = held.ok_or_else(|| Error::Cancelled { id: url.to_owned() })?;
        if to.exists() && !is_replaced {
            return Ok(());
        }
        let partial = directory.join(format!("{name}.partial"));
        let wanted = Wanted {
            name: &name,
            url: parsed,
            authorization: None,
            size: None,
            digest,
        };
        info!(url, to = %to.display(), "fetching");
        on_own_thread(|| {
            let client = Client::new(self.settings()).map_err(|fault| self.error(url, fault))?;
            let sum = download(&client, &wanted, &partial);
            let sum = sum.map_err(|fault| match fault {
                // It says which file of several.
                Fault::WrongHash { expected, actual } => Error::WrongHash {
                    id: url.to_owned(),
                    file: name.to_string(),
                    expected,
                    actual,
                },
                other => self.error(url, other),
            })?;
            fs::rename(&partial, to).map_err(Error::io(url, to))?;
            info!(url, sum, "fetched");
            self.progress.tell(Event::Finished { file: &name });
            Ok(())
        })
    }

    /// What a fault means for an address or a repository.
    fn error(&self, id: &str, fault: Fault) -> Error {
        match fault {
            Fault::Status(status) => Error::Server {
                id: id.to_owned(),
                advice: match status.status {
                    404 => "check the spelling of owner, repo and ref",
                    403 | 429 => {
                        "too many requests or no access: try again later, or set GITHUB_TOKEN"
                    }
                    401 => "set GITHUB_TOKEN to a valid token, or unset it",
                    _ => "try again later",
                },
                source: status.into(),
            },
            Fault::Transport(source) if !remote::is_proxy(&source) => Error::Network {
                id: id.to_owned(),
                endpoint: source
                    .url()
                    .map_or_else(|| id.to_owned(), |url| url.to_string()),
                source: source.into(),
            },
            other => remote::error(&crate::Hub::new(&self.directory), id, Some(id), other),
        }
    }
}

impl Repository {
    fn hubconf(&self) -> Result<Option<Hubconf>, Error> {
        hubconf::read(&self.path).map_err(|reason| Error::Malformed {
            id: self.id.clone(),
            file: "hubconf.toml".to_owned(),
            reason,
        })
    }

    fn python(&self) -> Result<python::Hubconf, Error> {
        if !self.path.join("hubconf.py").is_file() {
            return Err(Error::Malformed {
                id: self.id.clone(),
                file: "hubconf.toml".to_owned(),
                reason: "it is not there, nor is a hubconf.py, so nothing says what the repository offers".to_owned(),
            });
        }
        python::read(&self.path).map_err(|reason| Error::Malformed {
            id: self.id.clone(),
            file: "hubconf.py".to_owned(),
            reason,
        })
    }

    fn refuse(&self, entry: &str, reason: String) -> Error {
        Error::EntryPoint {
            id: self.id.clone(),
            entry: entry.to_owned(),
            reason,
        }
    }

    fn missing<'a>(&self, entry: &str, known: impl Iterator<Item = &'a String>) -> Error {
        let known: Vec<_> = known.map(String::as_str).collect();
        let reason = format!(
            "there is no such entry point; there are {}",
            known.join(", ")
        );
        self.refuse(entry, reason)
    }
}

/// The last part of an address's path.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// The digits in `name-digits.ending`.
fn hash_of_name(name: &str) -> Option<&str> {
    name.match_indices('-').find_map(|(at, _)| {
        let (digits, _) = name[at + 1..].split_once('.')?;
        is_hex(digits).then_some(digits)
    })
}

/// As [`TorchHub::list`] with the environment's settings.
///
/// # Errors
/// As [`TorchHub::from_env`] and [`TorchHub::list`].
pub fn list(repository: &str, options: &Options) -> Result<Vec<String>, Error> {
    TorchHub::from_env()?.list(repository, options)
}

/// As [`TorchHub::help`] with the environment's settings.
///
/// # Errors
/// As [`TorchHub::from_env`] and [`TorchHub::help`].
pub fn help(repository: &str, entry: &str, options: &Options) -> Result<String, Error> {
    TorchHub::from_env()?.help(repository, entry, options)
}

/// As [`TorchHub::load`] with the environment's settings.
///
/// # Errors
/// As [`TorchHub::from_env`] and [`TorchHub::load`].
pub fn load(
    repository: &str,
    entry: &str,
    arguments: &BTreeMap<String, Value>,
    options: &Options,
) -> Result<LoadedEntry, Error> {
    TorchHub::from_env()?.load(repository, entry, arguments, options)
}

/// As [`TorchHub::load_state_dict_from_url`] with the environment's settings.
///
/// # Errors
/// As [`TorchHub::from_env`] and [`TorchHub::load_state_dict_from_url`].
pub fn load_state_dict_from_url(url: &str, options: &StateDictOptions) -> Result<PathBuf, Error> {
    TorchHub::from_env()?.load_state_dict_from_url(url, options)
}

/// As [`TorchHub::download_url_to_file`] with the environment's settings.
///
/// # Errors
/// As [`TorchHub::from_env`] and [`TorchHub::download_url_to_file`].
pub fn download_url_to_file(url: &str, to: &Path, hash_prefix: Option<&str>) -> Result<(), Error> {
    TorchHub::from_env()?.download_url_to_file(url, to, hash_prefix)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{directory, file_name, hash_of_name};

    #[test]
    fn the_cache_is_where_torch_has_it() {
        let of = |variables: &[(&str, &str)]| {
            let get = |name: &str| {
                let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
                Some((*value).into())
            };
            directory(get, Some("/home/u".into())).unwrap()
        };
        assert_eq!(of(&[]), Path::new("/home/u/.cache/torch/hub"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/torch/hub"));
        let both = [("XDG_CACHE_HOME", "/x"), ("TORCH_HOME", "~/t")];
        assert_eq!(of(&both), Path::new("/home/u/t/hub"));
    }

    #[test]
    fn a_files_name_may_have_its_hash() {
        assert_eq!(hash_of_name("resnet18-f37072fd.pth"), Some("f37072fd"));
        assert_eq!(hash_of_name("vit-b-16-c867db91.pth"), Some("c867db91"));
        assert_eq!(hash_of_name("resnet18.pth"), None);
        assert_eq!(hash_of_name("a-b/c"), None);
        assert_eq!(file_name("https://h/a/b-12.pth?x=/y"), "b-12.pth");
    }
}
