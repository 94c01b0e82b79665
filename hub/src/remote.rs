//! What the hub says: which commit a revision is, its files, what models there are.

use std::collections::BTreeMap;

use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::{Answer, Client, Fault, Request, Status};
use crate::id::{ModelId, is_commit};
use crate::tree::{self, Tree};
use crate::{Error, Hub};

/// More pages than any listing has.
const MOST_PAGES: usize = 10_000;

/// The hub as one thread speaks to it.
pub(crate) struct Remote<'a> {
    hub: &'a Hub,
    pub(crate) client: Client,
    endpoint: Url,
    pub(crate) authorization: Option<HeaderValue>,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Revision {
    sha: Option<String>,
}

impl<'a> Remote<'a> {
    /// `what` is named by errors.
    pub(crate) fn new(
        hub: &'a Hub,
        what: &str,
        settings: crate::http::Settings,
    ) -> Result<Self, Error> {
        let fault = |fault| error(hub, what, None, fault);
        let unusable = |reason: String| {
            fault(Fault::Unexpected {
                url: hub.endpoint.clone(),
                reason,
            })
        };
        let endpoint: Url = hub
            .endpoint
            .parse()
            .map_err(|e| unusable(format!("nothing: it is no address ({e})")))?;
        if endpoint.cannot_be_a_base() {
            return Err(unusable("nothing: it is no address".to_owned()));
        }
        let authorization = match &hub.token {
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let mut value = value.map_err(|source| Error::InvalidToken {
                    id: what.to_owned(),
                    endpoint: hub.endpoint.clone(),
                    source: source.into(),
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            hub,
            client: Client::new(settings).map_err(fault)?,
            endpoint,
            authorization,
        })
    }

    /// An address at the hub; what the parts have of `/`, `?` and the like is escaped.
    fn url<'p>(&self, parts: impl IntoIterator<Item = &'p str>) -> Url {
        let mut url = self.endpoint.clone();
        // It can be a base, which `new` has made sure of.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    fn get(&self, what: &str, url: Url) -> Result<Answer, Fault> {
        let request = Request::new(url).authorized(self.authorization.as_ref());
        self.client.get(what, &request)
    }

    /// The commit that a revision is now.
    pub(crate) fn commit(&self, id: &ModelId) -> Result<String, Error> {
        if is_commit(&id.revision) {
            return Ok(id.revision.clone());
        }
        let mut url = self.url([
            "api",
            "models",
            &id.owner,
            &id.name,
            "revision",
            &id.revision,
        ]);
        url.set_query(Some("expand=sha"));
        let found = self.get(&id.text, url).and_then(|answer| {
            let revision: Revision = answer.json()?;
            // It becomes a path.
            let sha = revision.sha.filter(|sha| is_commit(sha));
            sha.ok_or_else(|| answer.unexpected("no commit".to_owned()))
        });
        found.map_err(|fault| error(self.hub, &id.text, None, fault))
    }

    /// The files of a commit.
    pub(crate) fn tree(&self, id: &ModelId, commit: &str) -> Result<Tree, Error> {
        let fault = |fault| error(self.hub, &id.text, None, fault);
        let mut url = self.url(["api", "models", &id.owner, &id.name, "tree", commit]);
        url.set_query(Some("recursive=true"));
        let mut tree = Tree::new();
        for _ in 0..MOST_PAGES {
            let answer = self.get(&id.text, url).map_err(fault)?;
            tree::add(&mut tree, &id.text, answer.json().map_err(fault)?)?;
            match self.next(&answer) {
                Some(next) => url = next,
                None => return Ok(tree),
            }
        }
        Err(fault(Fault::Unexpected {
            url: self.endpoint.to_string(),
            reason: "a listing without an end".to_owned(),
        }))
    }

    /// The page that follows. Only its query is taken, so that the token stays with the hub, and mirrors whose links
    /// lead to the hub that they mirror work.
    fn next(&self, answer: &Answer) -> Option<Url> {
        let next = self.endpoint.join(answer.next()?).ok()?;
        let mut url = answer.url.clone();
        url.set_query(next.query());
        Some(url)
    }

    /// Where a file's content is.
    pub(crate) fn file(&self, id: &ModelId, commit: &str, name: &str) -> Url {
        let parts = [&*id.owner, &*id.name, "resolve", commit];
        self.url(parts.into_iter().chain(name.split('/')))
    }

    /// What the hub says of a model, as it says it.
    pub(crate) fn info(&self, id: &ModelId) -> Result<Value, Error> {
        let url = self.url([
            "api",
            "models",
            &id.owner,
            &id.name,
            "revision",
            &id.revision,
        ]);
        let found = self.get(&id.text, url).and_then(|answer| answer.json());
        found.map_err(|fault| error(self.hub, &id.text, None, fault))
    }

    pub(crate) fn search(&self, search: &Search) -> Result<Vec<FoundModel>, Error> {
        let fault = |fault| error(self.hub, &search.text, None, fault);
        let mut url = self.url(["api", "models"]);
        {
            let mut query = url.query_pairs_mut();
            let mut add = |name: &str, value: &Option<String>| {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            };
            add(
                "search",
                &Some(search.text.clone()).filter(|text| !text.is_empty()),
            );
            add("pipeline_tag", &search.task);
            add("filter", &search.library);
            add("author", &search.author);
            query.append_pair("sort", search.sort.name());
            query.append_pair("direction", "-1");
            query.append_pair("limit", &search.limit.to_string());
        }
        let mut found: Vec<FoundModel> = Vec::new();
        while found.len() < search.limit {
            let answer = self.get(&search.text, url).map_err(fault)?;
            let page: Vec<FoundModel> = answer.json().map_err(fault)?;
            let is_last = page.is_empty();
            found.extend(page);
            match self.next(&answer) {
                Some(next) if !is_last => url = next,
                _ => break,
            }
        }
        found.truncate(search.limit);
        Ok(found)
    }
}

/// What models to look for on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// A part of the name; empty for any.
    pub text: String,
    /// A task, such as `text-classification`.
    pub task: Option<String>,
    /// A library, such as `transformers`.
    pub library: Option<String>,
    /// The owner.
    pub author: Option<String>,
    /// The order.
    pub sort: Sort,
    /// How many at most.
    pub limit: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            text: String::new(),
            task: None,
            library: None,
            author: None,
            sort: Sort::Downloads,
            limit: 20,
        }
    }
}

/// The order of what was found, the most or the latest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sort {
    /// By downloads in the last 30 days.
    #[default]
    Downloads,
    /// By likes.
    Likes,
    /// By the last change.
    Modified,
    /// By the day it was made.
    Created,
    /// By what is much looked at now.
    Trending,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::Likes => "likes",
            Self::Modified => "lastModified",
            Self::Created => "createdAt",
            Self::Trending => "trendingScore",
        }
    }
}

/// A model that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FoundModel {
    /// `owner/name`.
    pub id: String,
    /// The task.
    #[serde(default, rename(deserialize = "pipeline_tag"))]
    pub task: Option<String>,
    /// The library.
    #[serde(default, rename(deserialize = "library_name"))]
    pub library: Option<String>,
    /// Downloads in the last 30 days.
    #[serde(default)]
    pub downloads: u64,
    /// Likes.
    #[serde(default)]
    pub likes: u64,
    /// When it was last changed, in ISO 8601.
    #[serde(default, rename(deserialize = "lastModified"))]
    pub modified: Option<String>,
    /// What else it is labelled with.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether only some accounts may read it.
    #[serde(default)]
    pub private: bool,
    /// `false`, or how access is granted.
    #[serde(default)]
    pub gated: Value,
    /// What else the hub says.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a fault means for a model or one of its files.
pub(crate) fn error(hub: &Hub, id: &str, file: Option<&str>, fault: Fault) -> Error {
    let endpoint = hub.endpoint.trim_end_matches('/').to_owned();
    let page = id.split('@').next().unwrap_or(id).to_owned();
    let id = id.to_owned();
    let file = || file.unwrap_or("the listing").to_owned();
    match fault {
        Fault::Cancelled => Error::Cancelled { id },
        Fault::Status(status) => refused(id, endpoint, page, status),
        Fault::Transport(source) if is_proxy(&source) => Error::ProxyRefused {
            id,
            source: source.into(),
        },
        Fault::Transport(source) => Error::Network {
            id,
            endpoint,
            source: source.into(),
        },
        Fault::Unexpected { url, reason } => Error::UnexpectedAnswer { id, url, reason },
        Fault::WrongSize { expected, actual } => Error::WrongSize {
            id,
            file: file(),
            expected,
            actual,
        },
        Fault::WrongHash { expected, actual } => Error::WrongHash {
            id,
            file: file(),
            expected,
            actual,
        },
        Fault::Disk { path, source } => Error::io(&id, &path)(source),
    }
}

fn refused(id: String, endpoint: String, page: String, status: Status) -> Error {
    let code = status.code.clone();
    let is_wrong_token = status.message.contains("Invalid credentials")
        || status.message.contains("Invalid username or password");
    let retry_after = status.retry_after;
    let number = status.status;
    let source = status.into();
    let not_found = |what: &str, source| Error::NotFound {
        id: id.clone(),
        endpoint: endpoint.clone(),
        what: what.to_owned(),
        source,
    };
    match (number, code.as_deref()) {
        (_, Some("RepoNotFound")) => not_found("repository", source),
        (_, Some("RevisionNotFound")) => not_found("revision", source),
        (_, Some("EntryNotFound")) => not_found("file", source),
        (_, Some("GatedRepo")) => Error::Gated {
            id,
            endpoint,
            page,
            source,
        },
        (404, _) => not_found("repository or revision", source),
        (401, _) if is_wrong_token => Error::InvalidToken {
            id,
            endpoint,
            source,
        },
        (401 | 403, _) => Error::AccessRefused {
            id,
            endpoint,
            page,
            status: number,
            source,
        },
        (407, _) => Error::ProxyRefused { id, source },
        (429, _) => Error::RateLimited {
            id,
            retry_after,
            source,
        },
        _ => Error::Network {
            id,
            endpoint,
            source,
        },
    }
}

/// Whether a proxy wants a password before it connects; the client says so in the text of a cause alone.
pub(crate) fn is_proxy(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string() == "proxy authorization required" {
            return true;
        }
        source = cause.source();
    }
    false
}
