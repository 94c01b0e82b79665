//! A repository's zip archive to a directory, whatever names are in it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use crate::files::{is_plain, leaves};
use crate::{Cancel, Error};

/// More files and bytes than a repository of code has.
const MOST_FILES: usize = 200_000;
const MOST_BYTES: u64 = 8 << 30;

/// Unpacks the archive below `directory`; gives the one directory in which all its files are.
///
/// A link becomes a file that holds where it leads, as with Python's `zipfile`.
///
/// # Errors
/// The archive is damaged, too large, or has a name that leaves the directory.
pub(super) fn unpack(
    id: &str,
    archive: &Path,
    directory: &Path,
    cancel: &Cancel,
) -> Result<PathBuf, Error> {
    let malformed = |reason: String| Error::Malformed {
        id: id.to_owned(),
        file: archive.display().to_string(),
        reason: format!("{reason}; fetch it again"),
    };
    let file = File::open(archive).map_err(Error::io(id, archive))?;
    let mut zip = ZipArchive::new(file).map_err(|e| malformed(format!("no zip archive: {e}")))?;
    if zip.len() > MOST_FILES {
        return Err(malformed(format!("{} files are too many", zip.len())));
    }
    let mut root: Option<String> = None;
    let mut left = MOST_BYTES;
    for index in 0..zip.len() {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { id: id.to_owned() });
        }
        let mut member = zip
            .by_index(index)
            .map_err(|e| malformed(format!("damaged: {e}")))?;
        let name = member
            .name()
            .map_err(|e| malformed(format!("a name: {e}")))?
            .into_owned();
        let plain = name.trim_end_matches('/');
        if leaves(&name) || !is_plain(plain) {
            return Err(Error::UnsafeName {
                id: id.to_owned(),
                name,
            });
        }
        let top = plain.split('/').next().unwrap_or(plain).to_owned();
        if *root.get_or_insert_with(|| top.clone()) != top {
            return Err(malformed("files outside of the one directory".to_owned()));
        }
        let path = directory.join(plain);
        if name.ends_with('/') {
            fs::create_dir_all(&path).map_err(Error::io(id, &path))?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(id, parent))?;
        }
        let mut file = File::options()
            .write(true)
            // A name that comes twice would replace what was unpacked.
            .create_new(true)
            .open(&path)
            .map_err(Error::io(id, &path))?;
        let written =
            copy(&mut member, &mut file, left).map_err(|(is_read, error)| match is_read {
                true => malformed(format!("`{name}`: {error}")),
                false => Error::io(id, &path)(error),
            })?;
        left = left
            .checked_sub(written)
            .filter(|left| *left > 0)
            .ok_or_else(|| malformed("more bytes than a repository has".to_owned()))?;
    }
    let root = root.ok_or_else(|| malformed("empty".to_owned()))?;
    Ok(directory.join(root))
}

/// Copies at most `limit` bytes; an error is told with whether it came from reading.
fn copy(
    from: &mut impl Read,
    to: &mut impl io::Write,
    limit: u64,
) -> Result<u64, (bool, io::Error)> {
    let mut buffer = vec![0; 1 << 16];
    let mut copied = 0;
    while copied < limit {
        let count = from.read(&mut buffer).map_err(|error| (true, error))?;
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count])
            .map_err(|error| (false, error))?;
        copied += count as u64;
    }
    Ok(copied)
}

/// The only file of a zip archive, if `path` is one with just one file: weights that their authors have packed.
pub(super) fn only_member(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    // What is no archive is not searched for an archive's end.
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    if magic != *b"PK\x03\x04" {
        return None;
    }
    let mut zip = ZipArchive::new(file).ok()?;
    if zip.len() != 1 {
        return None;
    }
    let member = zip.by_index(0).ok()?;
    let name = member.name().ok()?.into_owned();
    (!name.ends_with('/')).then_some(name)
}

/// Unpacks the only file of an archive.
///
/// # Errors
/// As [`unpack`].
pub(super) fn unpack_only(id: &str, archive: &Path, to: &Path) -> Result<(), Error> {
    let malformed = |reason: String| Error::Malformed {
        id: id.to_owned(),
        file: archive.display().to_string(),
        reason,
    };
    let file = File::open(archive).map_err(Error::io(id, archive))?;
    let mut zip = ZipArchive::new(file).map_err(|e| malformed(e.to_string()))?;
    let mut member = zip.by_index(0).map_err(|e| malformed(e.to_string()))?;
    let mut file = File::create(to).map_err(Error::io(id, to))?;
    copy(&mut member, &mut file, u64::MAX).map_err(|(is_read, error)| match is_read {
        true => malformed(error.to_string()),
        false => Error::io(id, to)(error),
    })?;
    Ok(())
}
