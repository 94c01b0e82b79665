use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an error came from.
type Source = Box<dyn StdError + Send + Sync>;

/// What cannot be fetched, read or trusted, with the reason and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no model id.
    #[error(
        "`{id}`: no model id: {reason}; write `owner/name`, `owner/name@revision` or the address of the model's page"
    )]
    InvalidId {
        /// What was asked for.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The hub has no such repository, revision or file.
    #[error(
        "`{id}`: {endpoint} has no such {what}; check the spelling, and if it is private, set HF_TOKEN to a token that may read it"
    )]
    NotFound {
        /// What was asked for.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// `repository`, `revision`, `file …`, or `repository or revision` where the hub does not say which.
        what: String,
        /// The hub's answer.
        #[source]
        source: Source,
    },
    /// The model's authors want their terms accepted.
    #[error(
        "`{id}`: the model is gated; accept its terms at {endpoint}/{page}, and set HF_TOKEN to a token of that account"
    )]
    Gated {
        /// What was asked for.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// `owner/name`, where the model's page is.
        page: String,
        /// The hub's answer.
        #[source]
        source: Source,
    },
    /// The hub does not know the token.
    #[error(
        "`{id}`: {endpoint} does not accept the token; set HF_TOKEN to a valid one, or unset it for a public model"
    )]
    InvalidToken {
        /// What was asked for.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// The hub's answer.
        #[source]
        source: Source,
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
        source: Source,
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
        source: Source,
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
    /// The repository or archive names a file that would be written outside of its directory.
    #[error("`{id}`: it names the file {name:?}, which would leave its directory; do not use it")]
    UnsafeName {
        /// What was asked for.
        id: String,
        /// The file's name.
        name: String,
    },
    /// The repository has no weights in a format and a folder that are read.
    #[error(
        "`{id}`: the repository has no weights where they are looked for, in its root or in `onnx/` ({}); choose another repository or revision, or fetch a folder with `salamander hub download {id} --include 'FOLDER/*'` and open it",
        found(others)
    )]
    NoWeights {
        /// What was asked for.
        id: String,
        /// The weight files that it has in other formats and folders.
        others: Vec<String>,
    },
    /// The repository has several weight files and none is named as the one to take.
    #[error(
        "`{id}`: several weight files could be meant: {}; take one with `salamander hub download {id} --include NAME`, and open the directory that it prints",
        candidates.join(", ")
    )]
    AmbiguousWeights {
        /// What was asked for.
        id: String,
        /// The files that could be meant.
        candidates: Vec<String>,
    },
    /// No file of the repository is one of those that were asked for.
    #[error(
        "`{id}`: no file matches {}; it has {}",
        patterns.join(", "),
        found(files)
    )]
    NoMatch {
        /// What was asked for.
        id: String,
        /// The patterns.
        patterns: Vec<String>,
        /// Some of the files that are there.
        files: Vec<String>,
    },
    /// A file is not what its format demands.
    #[error("`{id}`: `{file}`: {reason}")]
    Malformed {
        /// What was asked for.
        id: String,
        /// The file's name.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file came, twice, with another length than it is to have.
    #[error(
        "`{id}`: `{file}` has {actual} bytes where it comes from instead of {expected}; it was thrown away, try again later or tell the model's authors"
    )]
    WrongSize {
        /// What was asked for.
        id: String,
        /// The file's name.
        file: String,
        /// The length that it is to have.
        expected: u64,
        /// The length that came.
        actual: u64,
    },
    /// A file came, twice, with another content than it is to have.
    #[error(
        "`{id}`: `{file}` came with the sum {actual} instead of {expected}; it was thrown away, try again later or tell the model's authors"
    )]
    WrongHash {
        /// What was asked for.
        id: String,
        /// The file's name.
        file: String,
        /// The sum that it is to have, or what it begins with.
        expected: String,
        /// The sum of what came.
        actual: String,
    },
    /// A server answers, and not with what was asked for.
    #[error(
        "`{id}`: {url} answers with {reason}; a login page, a proxy or HF_ENDPOINT may stand between"
    )]
    UnexpectedAnswer {
        /// What was asked for.
        id: String,
        /// What was requested.
        url: String,
        /// What came instead.
        reason: String,
    },
    /// The proxy refuses.
    #[error(
        "`{id}`: the proxy refuses (407); put its user and password into HTTPS_PROXY or HTTP_PROXY"
    )]
    ProxyRefused {
        /// What was asked for.
        id: String,
        /// What it says.
        #[source]
        source: Source,
    },
    /// The server cannot be reached, or breaks off again and again.
    #[error(
        "`{id}`: cannot be fetched from {endpoint}; check the connection, proxy and HF_ENDPOINT, and try again (what came is kept)"
    )]
    Network {
        /// What was asked for.
        id: String,
        /// The server's address.
        endpoint: String,
        /// What failed.
        #[source]
        source: Source,
    },
    /// A server refuses that is not the hub.
    #[error("`{id}`: {source}; {advice}")]
    Server {
        /// What was asked for.
        id: String,
        /// What to do.
        advice: &'static str,
        /// The server's answer.
        source: Source,
    },
    /// The disk is full.
    #[error(
        "`{id}`: {}: no space left; make room (`salamander hub gc` says what can go) or set HF_HUB_CACHE to another disk, and fetch again (what came is kept)",
        path.display()
    )]
    DiskFull {
        /// What was asked for.
        id: String,
        /// The file that could not be written.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("`{id}`: {}: cannot be read or written; check its permissions", path.display())]
    Io {
        /// What was asked for.
        id: String,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The application ended the fetch.
    #[error("`{id}`: cancelled; what came is kept, and the next fetch goes on from there")]
    Cancelled {
        /// What was asked for.
        id: String,
    },
    /// The environment does not say where the cache is.
    #[error(
        "no home directory, so no place for the cache; set HF_HOME or HF_HUB_CACHE (TORCH_HOME for torch.hub)"
    )]
    NoCache,
    /// The lock file does not allow it.
    #[error("`{id}`: {}: {reason}", lock.display())]
    Locked {
        /// What was asked for.
        id: String,
        /// The lock file.
        lock: PathBuf,
        /// What differs, and what to do.
        reason: String,
    },
    /// A model of an owner whose key is pinned is not signed with it.
    #[error("`{id}`: {reason}; do not use it unless you know why")]
    NotTrusted {
        /// What was asked for.
        id: String,
        /// What is wrong with the signature.
        reason: String,
    },
    /// A repository that nobody has said to trust.
    #[error(
        "`{id}`: the repository does not belong to the list of trusted repositories; if you trust it, run `salamander hub trust {id}`, or load it with `trust_repo` true or an application's own question"
    )]
    UntrustedRepository {
        /// `owner/repo`.
        id: String,
    },
    /// A repository of code has no such entry point, or one that cannot be used.
    #[error("`{id}`: `{entry}`: {reason}")]
    EntryPoint {
        /// The repository.
        id: String,
        /// The entry point.
        entry: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An option asks for what is not done here.
    #[error("{option}: {reason}")]
    Refused {
        /// The option.
        option: String,
        /// Why, and what to do instead.
        reason: String,
    },
}

impl Error {
    /// An error of the operating system with a file.
    pub(crate) fn io(id: &str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let (id, path) = (id.to_owned(), path.to_owned());
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { id, path }
            }
            _ => Self::Io { id, path, source },
        }
    }

    /// Whether the cache may stand in: there is no connection, or the hub itself is in trouble.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Network { .. }
                | Self::RateLimited { .. }
                | Self::ProxyRefused { .. }
                | Self::UnexpectedAnswer { .. }
        )
    }
}

fn wait(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(time) => format!("try again in {} s", time.as_secs()),
        None => "try again later".to_owned(),
    }
}

fn found(others: &[String]) -> String {
    match others {
        [] => "no others either".to_owned(),
        others => format!("it has {}", others.join(", ")),
    }
}
