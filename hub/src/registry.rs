//! Registries: an index of models in one JSON document, in a file or on a server.
//!
//! ```json
//! {
//!   "version": 1,
//!   "models": [{
//!     "name": "sentiment", "version": "1.2.0",
//!     "author": "…", "license": "mit", "description": "…",
//!     "category": "text", "architecture": "bert", "task": "text-classification",
//!     "parameters": 1000000, "downloads": 7, "metrics": {"accuracy": 0.82},
//!     "files": [{"name": "model.safetensors", "url": "sentiment/model.safetensors", "bytes": 4000000, "sha256": "…"}]
//!   }]
//! }
//! ```
//!
//! A file's address may be relative to the index's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;

use crate::digest::{self, Algorithm, Digest, is_hex};
use crate::download::{Wanted, download};
use crate::files::{self, Lock};
use crate::http::{Client, Fault, Request, on_own_thread};
use crate::progress::{Event, Wait};
use crate::{Error, Hub, remote};

/// The version of the format.
const VERSION: u32 = 1;

/// An index of models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    version: u32,
    /// The models.
    pub models: Vec<RegisteredModel>,
    /// Where it is from.
    #[serde(skip)]
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Default)]
enum Source {
    #[default]
    Nowhere,
    File(PathBuf),
    Url(Url),
}

/// A version of a model in a registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisteredModel {
    /// Its name, with or without an owner.
    pub name: String,
    /// Its version, by <https://semver.org>.
    pub version: Version,
    /// Who made it.
    #[serde(default)]
    pub author: String,
    /// The license's name.
    #[serde(default)]
    pub license: String,
    /// What it is.
    #[serde(default)]
    pub description: String,
    /// What it is about: `vision`, `text`, `audio`, …
    #[serde(default)]
    pub category: String,
    /// Its architecture: `bert`.
    #[serde(default)]
    pub architecture: String,
    /// Its task: `text-classification`.
    #[serde(default)]
    pub task: String,
    /// How many parameters it has.
    #[serde(default)]
    pub parameters: u64,
    /// How often it was fetched.
    #[serde(default)]
    pub downloads: u64,
    /// How well it does.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Its files.
    #[serde(default)]
    pub files: Vec<RegisteredFile>,
    /// What else the index says.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A file of a model in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredFile {
    /// Its name in the model's directory.
    pub name: String,
    /// Where it is, relative to the index if it is no whole address.
    pub url: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in small hexadecimal digits.
    pub sha256: String,
}

impl RegisteredModel {
    /// The bytes of its files together.
    pub fn bytes(&self) -> u64 {
        let bytes = self.files.iter().map(|file| file.bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

/// What models to look for in a registry. Letters' case is all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Words that the name, description, author, task or architecture have, all of them.
    pub text: String,
    /// The category.
    pub category: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// The architecture.
    pub architecture: Option<String>,
    /// The license.
    pub license: Option<String>,
    /// The order.
    pub sort: SortBy,
    /// How many at most; all unless set.
    pub limit: Option<usize>,
    /// Whether older versions are found, too.
    pub all_versions: bool,
}

/// The order of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SortBy {
    /// The most fetched first.
    #[default]
    Downloads,
    /// By name.
    Name,
    /// The largest first.
    Size,
    /// The highest figure of this name first; models without one last.
    Metric(String),
}

impl Registry {
    /// One without models.
    pub fn new() -> Self {
        Self {
            version: VERSION,
            models: Vec::new(),
            source: Source::Nowhere,
        }
    }

    /// Reads an index from a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no index.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let text = fs::read(path).map_err(Error::io(&name, path))?;
        let mut registry = Self::parse(&name, &text)?;
        registry.source = Source::File(path.to_owned());
        Ok(registry)
    }

    fn parse(name: &str, json: &[u8]) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed {
            id: "the registry".to_owned(),
            file: name.to_owned(),
            reason,
        };
        let registry: Self = serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
        if registry.version != VERSION {
            return Err(malformed(format!(
                "version {} is not supported, {VERSION} is; use a newer Salamander",
                registry.version
            )));
        }
        for model in &registry.models {
            if !files::is_plain(&model.name) {
                return Err(malformed(format!("`{}` is no name", model.name)));
            }
            for file in &model.files {
                if files::leaves(&file.name) || !files::is_plain(&file.name) {
                    return Err(Error::UnsafeName {
                        id: model.name.clone(),
                        name: file.name.clone(),
                    });
                }
                if file.sha256.len() != 64 || !is_hex(&file.sha256) {
                    let (model, file) = (&model.name, &file.name);
                    return Err(malformed(format!("`{model}`: `{file}` has no SHA-256")));
                }
            }
        }
        Ok(registry)
    }

    /// The index as JSON.
    ///
    /// # Errors
    /// A metric is not finite.
    pub fn to_json(&self) -> Result<String, Error> {
        serde_json::to_string_pretty(self).map_err(|error| Error::Refused {
            option: "the registry".to_owned(),
            reason: error.to_string(),
        })
    }

    /// The models that are asked for.
    pub fn search(&self, query: &Query) -> Vec<&RegisteredModel> {
        let is = |wanted: &Option<String>, value: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        let words: Vec<String> = query
            .text
            .split_whitespace()
            .map(str::to_lowercase)
            .collect();
        let mut found: Vec<&RegisteredModel> = self
            .models
            .iter()
            .filter(|model| {
                let texts = [
                    &model.name,
                    &model.description,
                    &model.author,
                    &model.task,
                    &model.architecture,
                ];
                let text = texts.map(|text| text.to_lowercase()).join("\n");
                is(&query.category, &model.category)
                    && is(&query.task, &model.task)
                    && is(&query.architecture, &model.architecture)
                    && is(&query.license, &model.license)
                    && words.iter().all(|word| text.contains(word))
            })
            .collect();
        let is_latest = |model: &&RegisteredModel| {
            let newest = self.models.iter().filter(|other| other.name == model.name);
            newest.map(|other| &other.version).max() == Some(&model.version)
        };
        if !query.all_versions {
            found.retain(is_latest);
        }
        found.sort_by(|a, b| {
            let order = match &query.sort {
                SortBy::Downloads => b.downloads.cmp(&a.downloads),
                SortBy::Name => std::cmp::Ordering::Equal,
                SortBy::Size => b.bytes().cmp(&a.bytes()),
                SortBy::Metric(name) => {
                    let value = |model: &RegisteredModel| {
                        *model.metrics.get(name).unwrap_or(&f64::NEG_INFINITY)
                    };
                    value(b).total_cmp(&value(a))
                }
            };
            let by_name = || a.name.cmp(&b.name).then_with(|| b.version.cmp(&a.version));
            order.then_with(by_name)
        });
        found.truncate(query.limit.unwrap_or(usize::MAX));
        found
    }

    /// The newest version of `name` or `name@requirement`, where a requirement is that of Cargo: `1.2`, `^1`, `=1.2.3`,
    /// `>=1, <3`. Versions before a release are taken if the requirement names one.
    ///
    /// # Errors
    /// There is no such model or version, or the requirement is none.
    pub fn get(&self, name: &str) -> Result<&RegisteredModel, Error> {
        let refuse = |reason: String| Error::Refused {
            option: format!("the model `{name}`"),
            reason,
        };
        let (plain, requirement) = match name.split_once('@') {
            Some((name, text)) => {
                let parsed = VersionReq::parse(text);
                let parsed = parsed.map_err(|e| refuse(format!("`{text}` is no version: {e}")))?;
                (name, parsed)
            }
            None => (name, VersionReq::STAR),
        };
        let all: Vec<_> = self
            .models
            .iter()
            .filter(|model| model.name == plain)
            .collect();
        let fits = |model: &&&RegisteredModel| requirement.matches(&model.version);
        let newest = all.iter().filter(fits).max_by_key(|model| &model.version);
        newest.copied().ok_or_else(|| {
            let versions: Vec<_> = all.iter().map(|model| model.version.to_string()).collect();
            refuse(match &versions[..] {
                [] => "the registry has no model of that name; search it for another".to_owned(),
                versions => format!("it has the versions {}", versions.join(", ")),
            })
        })
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// The index in a file or at an address. What came from an address is kept in the cache, and asked for again only
    /// as far as it has changed; if the server cannot be reached, the kept one is taken.
    ///
    /// # Errors
    /// It cannot be had, or is no index.
    pub fn registry(&self, source: &str) -> Result<Registry, Error> {
        if !source.starts_with("http://") && !source.starts_with("https://") {
            return Registry::open(Path::new(source));
        }
        let url: Url = source.parse().map_err(|error| Error::Refused {
            option: format!("the registry `{source}`"),
            reason: format!("it is no address: {error}"),
        })?;
        let kept = self.cache.join("registry");
        let kept = kept.join(format!("{}.json", digest::sha256(source.as_bytes())));
        let etag_file = kept.with_extension("etag");
        let read = || -> Option<Result<Registry, Error>> {
            let text = fs::read(&kept).ok()?;
            Some(Registry::parse(source, &text))
        };
        let not_cached = || Error::NotCached {
            id: source.to_owned(),
            cache: self.cache.clone(),
        };
        let mut registry = if self.offline {
            read().ok_or_else(not_cached)??
        } else {
            let mut request = Request::new(url.clone());
            // Without the index, its mark would bring nothing.
            if kept.is_file()
                && let Ok(etag) = fs::read_to_string(&etag_file)
            {
                request = request.with(IF_NONE_MATCH, etag.trim());
            }
            let error = |fault| remote::error(self, source, None, fault);
            let answer = on_own_thread(|| {
                let client = Client::new(self.settings(&self.cancel)).map_err(error)?;
                client.get(source, &request).map_err(error)
            });
            match answer {
                Ok(answer) if answer.status == 304 => read().ok_or_else(not_cached)??,
                Ok(answer) => {
                    let registry = Registry::parse(source, &answer.content)?;
                    let io = || Error::io(source, &kept);
                    // The mark goes first, so that it is never older than what it marks.
                    files::remove(&etag_file).map_err(io())?;
                    files::write(&kept, &answer.content).map_err(io())?;
                    if let Some(etag) = answer.header(ETAG) {
                        files::write(&etag_file, etag.as_bytes()).map_err(io())?;
                    }
                    registry
                }
                Err(error) if error.is_unreachable() => {
                    info!(source, %error, "the kept index is used");
                    match read() {
                        Some(registry) => registry?,
                        None => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        };
        registry.source = Source::Url(url);
        Ok(registry)
    }

    /// The directory with a registry's model, fetched if it is not there: `name` or `name@requirement`, see
    /// [`Registry::get`].
    ///
    /// # Errors
    /// As [`Registry::get`]; a file cannot be had or does not have its sum.
    pub fn fetch_registered(&self, registry: &Registry, name: &str) -> Result<PathBuf, Error> {
        let model = registry.get(name)?;
        let id = format!("{}@{}", model.name, model.version);
        let root = self.cache.join("registry").join("models");
        let directory = root.join(&model.name).join(model.version.to_string());
        let missing: Vec<&RegisteredFile> = model
            .files
            .iter()
            .filter(|file| files::size(&directory.join(&file.name)) != Some(file.bytes))
            .collect();
        if !missing.is_empty() {
            if self.offline && !matches!(registry.source, Source::File(_)) {
                return Err(Error::NotCached {
                    id,
                    cache: self.cache.clone(),
                });
            }
            self.progress.tell(Event::Planned {
                files: missing.len(),
                bytes: missing
                    .iter()
                    .fold(0, |sum, file| file.bytes.saturating_add(sum)),
            });
            let lock = root.join(".locks").join(format!(
                "{}-{}.lock",
                model.name.replace('/', "--"),
                model.version
            ));
            let waiting = || {
                self.progress.tell(Event::Waiting {
                    file: &id,
                    wait: Wait::OtherProcess,
                });
            };
            let held =
                Lock::acquire(&lock, &self.cancel, waiting).map_err(Error::io(&id, &lock))?;
            let _held = held.ok_or_else(|| Error::Cancelled { id: id.clone() })?;
            on_own_thread(|| {
                let fetch =
                    |file: &&RegisteredFile| self.registered(registry, &id, &directory, file);
                missing.iter().try_for_each(fetch)
            })?;
        }
        self.record(&json!({"event": "opened", "id": id, "path": directory}))?;
        Ok(directory)
    }

    fn registered(
        &self,
        registry: &Registry,
        id: &str,
        directory: &Path,
        file: &RegisteredFile,
    ) -> Result<(), Error> {
        let to = directory.join(&file.name);
        if files::size(&to) == Some(file.bytes) {
            return Ok(());
        }
        let parent = to.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(Error::io(id, parent))?;
        let partial = parent.join(format!(".{}.partial", file.sha256));
        let refuse = || Error::Refused {
            option: format!("the address `{}`", file.url),
            reason: format!("it is none, nor is it relative to the index of `{id}`"),
        };
        let url: Option<Url> = file.url.parse().ok();
        let url = match (&registry.source, url) {
            (_, Some(url)) => url,
            (Source::Url(base), None) => base.join(&file.url).map_err(|_| refuse())?,
            (Source::File(index), None) => {
                let from = index.parent().unwrap_or(Path::new(".")).join(&file.url);
                fs::copy(&from, &partial).map_err(Error::io(id, &from))?;
                let sum = digest::of_file(&partial, Algorithm::Sha256, &self.cancel, |_| {});
                let sum = sum.map_err(Error::io(id, &partial))?;
                let actual = sum.ok_or_else(|| Error::Cancelled { id: id.to_owned() })?;
                if actual != file.sha256 {
                    files::remove(&partial).map_err(Error::io(id, &partial))?;
                    return Err(Error::WrongHash {
                        id: id.to_owned(),
                        file: file.name.clone(),
                        expected: file.sha256.clone(),
                        actual,
                    });
                }
                return fs::rename(&partial, &to).map_err(Error::io(id, &to));
            }
            (Source::Nowhere, None) => return Err(refuse()),
        };
        let error = |fault: Fault| remote::error(self, id, Some(&file.name), fault);
        let client = Client::new(self.settings(&self.cancel)).map_err(error)?;
        let wanted = Wanted {
            name: &file.name,
            url,
            authorization: None,
            size: Some(file.bytes),
            digest: Some(Digest::sha256(&*file.sha256)),
        };
        download(&client, &wanted, &partial).map_err(error)?;
        fs::rename(&partial, &to).map_err(Error::io(id, &to))?;
        self.progress.tell(Event::Finished { file: &file.name });
        self.record(&json!({
            "event": "fetched",
            "id": id,
            "file": file.name,
            "bytes": file.bytes,
            "sum": file.sha256,
            "url": wanted.url.as_str(),
        }))
    }
}
