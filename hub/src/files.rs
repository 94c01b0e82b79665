//! Files that are there whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Cancel;

/// Writes a file under a temporary name and renames it.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    write_by_way_of(directory.unwrap_or(Path::new(".")), path, content)
}

/// The same with the temporary file in a directory of the same file system.
pub(crate) fn write_by_way_of(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    for directory in [Some(temporary), path.parent()].into_iter().flatten() {
        fs::create_dir_all(directory)?;
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    // Others may read the cache: the usual permissions, instead of the owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(temporary)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

/// A file's length, also through a link; `None` if there is none.
pub(crate) fn size(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Removes a file, which may be absent.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How often a lock is asked for that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// A lock between processes, for as long as this lives. The system takes it back from a process that ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] Option<File>);

impl Lock {
    /// Waits for the lock of that file; `None` if it was cancelled. `waiting` is told once if it has to wait.
    pub(crate) fn acquire(
        path: &Path,
        cancel: &Cancel,
        waiting: impl FnOnce(),
    ) -> io::Result<Option<Self>> {
        let file = open(path)?;
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(Some(file)))),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have none. Verification then finds what two writers spoil.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Some(Self(None)));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if cancel.is_cancelled() {
                return Ok(None);
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
    }

    /// The lock of that file, unless another process holds it.
    pub(crate) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Self(None)))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

/// The files below a directory, with their names relative to it, `/` between the parts. Links to files count, links to
/// directories are not followed.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, directory)) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let name = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                pending.push((format!("{name}/"), entry.path()));
            } else {
                found.push((name, entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name is the same path on every system and stays in its directory.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.contains(|c: char| c == '\\' || c == ':' || c.is_control())
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a name points out of its directory.
pub(crate) fn leaves(name: &str) -> bool {
    name.starts_with(['/', '\\']) || name.split(['/', '\\']).any(|part| part == "..")
}
