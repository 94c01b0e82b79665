//! Model ids to files on disk: [`fetch`] takes `owner/name` or `owner/name@revision` to a directory
//! with the files that an inference needs, each verified by its sum.
//!
//! The directory is a snapshot in the cache that Python's `huggingface_hub` uses, in the same
//! layout, so a model that either of them has fetched is there for the other. What is there is
//! taken without a request.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HOME` | where cache and token are, `~/.cache/huggingface` if unset |
//! | `HF_HUB_CACHE` | where the cache is, `$HF_HOME/hub` if unset |
//! | `HF_ENDPOINT` | the hub's address, `https://huggingface.co` if unset |
//! | `HF_TOKEN` | the access token; if unset, the one that `hf auth login` left in `$HF_HOME` |
//! | `HF_HUB_OFFLINE` | `1` for the cache alone, without any request |
//! | `HF_HUB_DOWNLOAD_TIMEOUT` | how many seconds a connection may be silent, 20 if unset |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` | as everywhere |
//! | `SALAMANDER_LOCK` | a lock file that pins commits and sums, see [`Hub::lock`] |
//! | `SALAMANDER_KEYS` | the keys that models must be signed with, `$HF_HOME/trusted_keys` if unset |
//! | `SALAMANDER_AUDIT` | a file that gets a line of JSON for what is fetched, verified and opened |
//!
//! ```no_run
//! let directory = salamander_hub::fetch("sentence-transformers/all-MiniLM-L6-v2")?;
//! # Ok::<(), salamander_hub::Error>(())
//! ```
//!
//! Nothing is printed; an application hears what happens by [`Hub::progress`], and in [`tracing`] events.

mod audit;
mod cache;
pub mod card;
mod digest;
mod download;
mod env;
mod error;
mod files;
mod http;
mod hub;
mod id;
mod lock_file;
mod progress;
pub mod registry;
mod remote;
mod select;
mod signature;
pub mod torch;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::RwLock;

pub use cache::{CachedModel, CachedRevision, FileState, Garbage, GarbageReason, VerifiedFile};
pub use error::Error;
pub use hub::Hub;
pub use lock_file::LockedModel;
pub use progress::{Cancel, Event, Progress, Wait};
pub use remote::{FoundModel, Search, Sort};
pub use signature::{PublicKey, SecretKey, set_key, verify_signature};

static DEFAULT: RwLock<Option<Hub>> = RwLock::new(None);

/// Makes a hub the one that [`fetch`] uses, and with it every `open` that takes an id.
pub fn set_default(hub: Hub) {
    let mut default = DEFAULT
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    *default = Some(hub);
}

/// The hub that [`set_default`] was given, or else the environment's.
///
/// # Errors
/// As [`Hub::from_env`].
pub fn default() -> Result<Hub, Error> {
    let default = DEFAULT
        .read()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    match &*default {
        Some(hub) => Ok(hub.clone()),
        None => Hub::from_env(),
    }
}

/// The directory with the model `id`, fetched if it is not in the cache.
///
/// `id` is `owner/name`, or `owner/name@revision` with a branch, a tag or a commit. With other settings than the
/// [`default`] ones, use [`Hub::fetch`].
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::fetch`].
pub fn fetch(id: &str) -> Result<PathBuf, Error> {
    default()?.fetch(id)
}

/// Adds to the audit file, if the [`default`] hub has one, that a model directory was opened that no id led to.
///
/// # Errors
/// The audit file cannot be written.
pub fn record_opened(directory: &Path) -> Result<(), Error> {
    match default() {
        Ok(hub) => hub.record(&serde_json::json!({"event": "opened", "path": directory})),
        // A directory needs no cache, and so no environment that says where it is.
        Err(_) if std::env::var_os("SALAMANDER_AUDIT").is_none() => Ok(()),
        Err(error) => Err(error),
    }
}
