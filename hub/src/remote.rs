//! What the hub says: which commit a revision is, its files, what models there are.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::debug;

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
    id: Option<String>,
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

/// A file in what the hub says of a repository; its length and sums are there if they were asked for, and the server
/// knows how.
#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<tree::Lfs>,
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

    /// An address of the API about a model.
    fn api<'p>(&self, id: &'p ModelId, parts: impl IntoIterator<Item = &'p str>) -> Url {
        self.url(
            ["api", "models"]
                .into_iter()
                .chain(id.segments())
                .chain(parts),
        )
    }

    fn request(&self, url: Url) -> Request {
        Request::new(url).authorized(self.authorization.as_ref())
    }

    fn get(&self, what: &str, url: Url) -> Result<Answer, Fault> {
        self.client.get(what, &self.request(url))
    }

    /// What the hub says of a revision, asked for with a query that not every mirror knows.
    fn revision(&self, id: &ModelId, revision: &str, query: &str) -> Result<Revision, Fault> {
        let mut url = self.api(id, ["revision", revision]);
        url.set_query(Some(query));
        let answer = match self.get(&id.text, url.clone()) {
            Err(Fault::Status(status)) if status.is_unknown_address() => {
                debug!(id = id.text, query, "the server does not know the query");
                url.set_query(None);
                self.get(&id.text, url)?
            }
            other => other?,
        };
        answer.json()
    }

    /// The commit that a revision is now, and the id under which the hub has the model's files: for a model without
    /// an owner, that of the owner whom it belongs to now.
    pub(crate) fn locate(&self, id: &ModelId) -> Result<(ModelId, String), Error> {
        if is_commit(&id.revision) && id.owner.is_some() {
            return Ok((id.clone(), id.revision.clone()));
        }
        let found = self.revision(id, &id.revision, "expand=sha");
        let found = found.and_then(|revision| {
            // It becomes a path.
            let sha = revision.sha.map(|sha| sha.to_ascii_lowercase());
            let sha = sha.filter(|sha| is_commit(sha)).ok_or(Fault::Unexpected {
                url: self.api(id, ["revision", &id.revision]).to_string(),
                reason: "no commit".to_owned(),
            })?;
            let place = match revision.id {
                Some(name) if id.owner.is_none() => id.renamed(&name),
                _ => id.clone(),
            };
            Ok((place, sha))
        });
        found.map_err(|fault| error(self.hub, &id.text, None, fault))
    }

    /// The commit that a revision is now.
    pub(crate) fn commit(&self, id: &ModelId) -> Result<String, Error> {
        Ok(self.locate(id)?.1)
    }

    /// The files of a commit.
    pub(crate) fn tree(&self, id: &ModelId, commit: &str) -> Result<Tree, Error> {
        let fault = |fault| error(self.hub, &id.text, None, fault);
        let mut url = self.api(id, ["tree", commit]);
        url.set_query(Some("recursive=true"));
        let mut tree = Tree::new();
        let mut pages = BTreeSet::new();
        while pages.len() < MOST_PAGES && pages.insert(url.clone()) {
            let answer = match self.get(&id.text, url) {
                Err(Fault::Status(status)) if tree.is_empty() && status.is_unknown_address() => {
                    return self.siblings(id, commit);
                }
                other => other.map_err(fault)?,
            };
            for item in answer.json::<Vec<tree::Item>>().map_err(fault)? {
                // Some mirrors list names alone.
                match item.entry() {
                    Some(Some(entry)) => tree::add(&mut tree, &id.text, item.path, entry)?,
                    Some(None) => {
                        let entry = self.entry(id, commit, &item.path)?;
                        tree::add(&mut tree, &id.text, item.path, entry)?;
                    }
                    None => {}
                }
            }
            match self.next(&answer) {
                Some(next) => url = next,
                None if tree.is_empty() => return self.siblings(id, commit),
                None => return Ok(tree),
            }
        }
        Err(fault(Fault::Unexpected {
            url: self.endpoint.to_string(),
            reason: "a listing without an end".to_owned(),
        }))
    }

    /// The files of a commit from a server that has no listing of its own: from what it says of the repository, and,
    /// where that lacks lengths and sums, of each file.
    fn siblings(&self, id: &ModelId, commit: &str) -> Result<Tree, Error> {
        debug!(id = id.text, "the server has no listing");
        let revision = self
            .revision(id, commit, "blobs=true")
            .map_err(|fault| error(self.hub, &id.text, None, fault))?;
        let mut tree = Tree::new();
        for sibling in revision.siblings {
            tree::check_name(&id.text, &sibling.rfilename)?;
            let entry = match (sibling.size, sibling.blob_id) {
                (Some(size), Some(blob_id)) => tree::Entry::new(size, blob_id, sibling.lfs),
                _ => self.entry(id, commit, &sibling.rfilename)?,
            };
            tree::add(&mut tree, &id.text, sibling.rfilename, entry)?;
        }
        Ok(tree)
    }

    /// What the answer to a request for a file says of it.
    fn entry(&self, id: &ModelId, commit: &str, name: &str) -> Result<tree::Entry, Error> {
        tree::check_name(&id.text, name)?;
        let url = self.file(id, commit, name);
        let is_enough = |headers: &HeaderMap| headers.contains_key("x-linked-etag");
        let headers = self.client.head(name, &self.request(url), is_enough);
        let headers = headers.map_err(|fault| error(self.hub, &id.text, Some(name), fault))?;
        let header = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| headers.get(*name))?;
            Some(value.to_str().ok()?.trim())
        };
        // For what is in another store, the first of the two is the content's, the second the redirect's.
        let etag = header(["x-linked-etag", "etag"]).unwrap_or_default();
        let sum = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let size = header(["x-linked-size", "content-length"]);
        let size = size.and_then(|size| size.parse().ok());
        let known = size.and_then(|size| tree::Entry::of_sum(size, sum));
        known.ok_or_else(|| tree::no_sum(&id.text, name))
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
        let parts = id.segments().chain(["resolve", commit]);
        self.url(parts.chain(name.split('/')))
    }

    /// What the hub says of a model, as it says it.
    pub(crate) fn info(&self, id: &ModelId) -> Result<Value, Error> {
        let url = self.api(id, ["revision", &id.revision]);
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
