use std::fmt;
use std::path::PathBuf;

use tracing::{debug, info};

use crate::id::ModelId;
use crate::remote::Remote;
use crate::{Error, cache, env};

/// Where models are fetched from and to.
///
/// ```no_run
/// let mut hub = salamander_hub::Hub::new("/data/models");
/// hub.offline = true;
/// let directory = hub.fetch("google-bert/bert-base-uncased@main")?;
/// # Ok::<(), salamander_hub::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hub {
    /// The hub's address, `https://huggingface.co` unless set.
    pub endpoint: String,
    /// The directory with the cache, in the layout of Python's `huggingface_hub`.
    pub cache: PathBuf,
    /// The access token, for private and gated models. Without one, none is sent.
    pub token: Option<String>,
    /// Whether there is to be no request, so that only what is in the cache can be had.
    pub offline: bool,
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
        }
    }

    /// The hub, cache and token that the environment names, as Python's `huggingface_hub` reads it.
    ///
    /// # Errors
    /// Neither `HF_HUB_CACHE` nor `HF_HOME` is set, and there is no home directory.
    pub fn from_env() -> Result<Self, Error> {
        env::hub(|name| std::env::var_os(name), std::env::home_dir())
    }

    /// The directory with the model `id`, which is `owner/name` or `owner/name@revision`.
    ///
    /// It has the configuration, the tokenizer, the modules of sentence-transformers and the
    /// weights in the safetensors format, as far as the repository has them. What the cache has is
    /// not fetched again. If [`offline`](Self::offline) is set, or the hub cannot be reached, is in
    /// trouble or limits the rate, the cached snapshot is taken as it is, provided that its weights
    /// are complete.
    ///
    /// # Errors
    /// The id is none, the hub does not have the model or does not give it, the repository has no
    /// weights that can be used, or network or disk fail: see [`Error`]. No half file is left under
    /// its final name.
    pub fn fetch(&self, id: &str) -> Result<PathBuf, Error> {
        let id = ModelId::parse(id)?;
        if self.offline {
            return cache::snapshot(&self.cache, &id).ok_or_else(|| Error::NotCached {
                id: id.text.clone(),
                cache: self.cache.clone(),
            });
        }
        match Remote::open(self, &id) {
            Ok(remote) => remote.fetch(),
            Err(failure) if failure.unreachable => match cache::snapshot(&self.cache, &id) {
                Some(path) => {
                    let reason = &failure.error as &dyn std::error::Error;
                    info!(id = id.text, reason, "the cached snapshot is used");
                    Ok(path)
                }
                None => Err(failure.error),
            },
            Err(failure) => {
                debug!(id = id.text, "the hub refused");
                Err(failure.error)
            }
        }
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
            .finish()
    }
}
