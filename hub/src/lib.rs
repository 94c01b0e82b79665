//! Model ids to files on disk: [`fetch`] takes `owner/name` or `owner/name@revision` to a directory
//! with the files that an inference needs.
//!
//! The directory is a snapshot in the cache that Python's `huggingface_hub` uses, in the same
//! layout, so a model that either of them has fetched is there for the other.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HOME` | where cache and token are, `~/.cache/huggingface` if unset |
//! | `HF_HUB_CACHE` | where the cache is, `$HF_HOME/hub` if unset |
//! | `HF_ENDPOINT` | the hub's address, `https://huggingface.co` if unset |
//! | `HF_TOKEN` | the access token; if unset, the one that `hf auth login` left in `$HF_HOME` |
//! | `HF_HUB_OFFLINE` | `1` for the cache alone, without any request |
//!
//! ```no_run
//! let directory = salamander_hub::fetch("sentence-transformers/all-MiniLM-L6-v2")?;
//! # Ok::<(), salamander_hub::Error>(())
//! ```
//!
//! Nothing is printed; what is fetched is told in [`tracing`] events.

mod cache;
mod env;
mod error;
mod hub;
mod id;
mod remote;
mod select;

use std::path::PathBuf;

pub use error::Error;
pub use hub::Hub;

/// The directory with the model `id`, fetched if it is not in the cache.
///
/// `id` is `owner/name`, or `owner/name@revision` with a branch, a tag or a commit. The settings
/// come from the environment; with others, use [`Hub::fetch`].
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::fetch`].
pub fn fetch(id: &str) -> Result<PathBuf, Error> {
    Hub::from_env()?.fetch(id)
}
