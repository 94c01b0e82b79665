use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use hf_hub::HFError;

/// A model that cannot be fetched, with the reason and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no model id.
    #[error("`{id}`: no model id: {reason}; write `owner/name` or `owner/name@revision`")]
    InvalidId {
        /// What was asked for.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The hub has no such repository, revision or file.
    #[error(
        "`{id}`: {endpoint} has no such repository or revision; check the spelling, and if it is private, set HF_TOKEN to a token that may read it"
    )]
    NotFound {
        /// What was asked for.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// The hub's answer.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The hub wants a token, or the token may not read the repository.
    #[error(
        "`{id}`: access refused ({status}); check the spelling (the hub says so of what it does not have, too), accept the terms at {endpoint}/{page} if the model is gated, and set HF_TOKEN to a token that may read it"
    )]
    AccessRefused {
        /// What was asked for.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// `owner/name`, where the model's page is.
        page: String,
        /// The HTTP status, 401 or 403.
        status: u16,
        /// The hub's answer.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The hub has had too many requests from this address or token.
    #[error("`{id}`: rate limited by the hub; {}, or set HF_TOKEN for a higher limit", wait(*retry_after))]
    RateLimited {
        /// What was asked for.
        id: String,
        /// How long to wait, if the hub says it.
        retry_after: Option<Duration>,
        /// The hub's answer.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// There is to be no request, and the cache has no complete snapshot.
    #[error(
        "`{id}`: not (completely) in the cache {}, and the hub client is offline; fetch it once with HF_HUB_OFFLINE unset",
        cache.display()
    )]
    NotCached {
        /// What was asked for.
        id: String,
        /// The cache's directory.
        cache: PathBuf,
    },
    /// The repository names a file that would be written outside of its snapshot.
    #[error(
        "`{id}`: the repository names the file {name:?}, which would leave the cache; do not use this repository"
    )]
    UnsafeName {
        /// What was asked for.
        id: String,
        /// The file's name.
        name: String,
    },
    /// The repository has no weights in the safetensors format.
    #[error(
        "`{id}`: the repository has no safetensors weights ({}); choose another repository or revision, or convert the weights and open the directory",
        found(others)
    )]
    NoSafetensors {
        /// What was asked for.
        id: String,
        /// The weight files that it has in other formats.
        others: Vec<String>,
    },
    /// The repository has several weight files and none is named as the one to take.
    #[error(
        "`{id}`: neither `model.safetensors` nor `model.safetensors.index.json` is there, and several other files could be meant: {}; choose another repository or revision",
        candidates.join(", ")
    )]
    AmbiguousWeights {
        /// What was asked for.
        id: String,
        /// The files that could be meant.
        candidates: Vec<String>,
    },
    /// A file that names other files is not what its format demands.
    #[error("`{id}`: `{file}`: {reason}; choose another revision, or tell the model's authors")]
    Malformed {
        /// What was asked for.
        id: String,
        /// The file's name in the repository.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that was fetched is not as long as the repository says.
    #[error(
        "`{id}`: `{file}` came with {actual} bytes instead of {expected}; it was removed, try again"
    )]
    WrongSize {
        /// What was asked for.
        id: String,
        /// The file's name in the repository.
        file: String,
        /// Its length by the repository's listing.
        expected: u64,
        /// The length that came.
        actual: u64,
    },
    /// Another process holds the lock of a file for a long time.
    #[error("`{id}`: another process has held {} for minutes; wait for it or end it", lock.display())]
    Locked {
        /// What was asked for.
        id: String,
        /// The lock's file.
        lock: PathBuf,
    },
    /// The hub cannot be reached, or its answer cannot be used.
    #[error(
        "`{id}`: cannot be fetched from {endpoint}; check the connection, proxy and HF_ENDPOINT, and try again"
    )]
    Network {
        /// What was asked for.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// What failed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The operating system refused.
    #[error("`{id}`: {}: cannot be read or written; check its permissions and the free space", path.display())]
    Io {
        /// What was asked for.
        id: String,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The environment does not say where the cache is.
    #[error("no home directory, so no place for the cache; set HF_HOME or HF_HUB_CACHE")]
    NoCache,
}

fn wait(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(time) => format!("try again in {} s", time.as_secs()),
        None => "try again later".to_owned(),
    }
}

fn found(others: &[String]) -> String {
    match others {
        [] => "nor any others".to_owned(),
        others => format!("it has {}", others.join(", ")),
    }
}

/// Whether the cache may stand in for the hub: no connection, or the hub itself is in trouble.
pub(crate) fn is_unreachable(error: &HFError) -> bool {
    match error {
        HFError::Request { source, .. } => {
            source.is_connect() || source.is_timeout() || source.is_request() || source.is_body()
        }
        HFError::Http { context } => {
            context.status.is_server_error() || context.status.as_u16() == 429
        }
        HFError::RateLimited { .. } => true,
        _ => false,
    }
}

/// The status and the hub's own code of an error that came as an HTTP response.
pub(crate) fn response(error: &HFError) -> Option<(u16, Option<&str>)> {
    let context = match error {
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::RateLimited { context, .. } => Some(context),
        HFError::RepoNotFound { context, .. }
        | HFError::RevisionNotFound { context, .. }
        | HFError::EntryNotFound { context, .. } => context.as_ref(),
        _ => None,
    }?;
    Some((context.status.as_u16(), context.error_code.as_deref()))
}
