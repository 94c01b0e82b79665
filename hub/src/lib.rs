//! x
use std::path::PathBuf;
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
/// x
/// # Errors
/// x
pub fn fetch(_: &str) -> Result<PathBuf, Error> {
    Err(Error)
}
