//! Texts that are compressed as a whole, by gzip or Zstandard.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::SpooledData;

use crate::error::FormatError;
use crate::map;
use crate::write::{Compression, Draft};
use crate::zip::INFLATED_MARGIN;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// The widest window that is kept; Zstandard's own tools ask before they keep more.
const MOST_WINDOW: u64 = 128 << 20;
/// Of an inflated text.
const MOST_IN_MEMORY: usize = 16 << 20;

/// How a file is compressed, by its first bytes.
pub(crate) fn find(map: &[u8]) -> Option<Compression> {
    if map.starts_with(GZIP) {
        Some(Compression::Gzip)
    } else if map.starts_with(ZSTD) {
        Some(Compression::Zstd)
    } else {
        None
    }
}

/// The text in a compressed file; a long one in a temporary file, so that its pages can be let go of.
///
/// # Errors
/// The stream is broken, there is more in it than twice the file and a margin, or there is no room for it.
pub(crate) fn inflate(
    path: &Path,
    map: &[u8],
    compression: Compression,
) -> Result<Bytes, FormatError> {
    let refuse = |reason: String| FormatError::Malformed {
        path: path.to_owned(),
        format: compression.name(),
        offset: None,
        reason,
    };
    let most = map.len().saturating_mul(2).saturating_add(INFLATED_MARGIN) as u64;
    let mut text = tempfile::spooled_tempfile(MOST_IN_MEMORY);
    let mut read = |stream: &mut dyn Read| {
        let read = io::copy(&mut stream.take(most + 1), &mut text);
        read.map_err(|error| refuse(format!("it cannot be inflated: {error}")))
    };
    let stored = Passing { rest: map, read: 0 };
    let length = match compression {
        Compression::Gzip => read(&mut flate2::read::MultiGzDecoder::new(stored))?,
        Compression::Zstd => {
            use ruzstd::decoding::StreamingDecoder;
            let stream = StreamingDecoder::new_with_max_window_size(stored, MOST_WINDOW);
            read(&mut stream.map_err(|error| refuse(error.to_string()))?)?
        }
    };
    if length > most {
        return Err(refuse(format!(
            "its {} bytes inflate to more than the {most} that are allowed; unpack it first",
            map.len()
        )));
    }
    match text.into_inner() {
        SpooledData::InMemory(text) => Ok(text.into_inner().into()),
        SpooledData::OnDisk(file) => map::map(path, &file),
    }
}

/// Bytes of a map that are let go of as they are read, since they count as memory until then.
struct Passing<'a> {
    rest: &'a [u8],
    /// How many at the beginning have been read.
    read: usize,
}

impl Read for Passing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const PIECE: usize = 4 << 20;
        let count = (&self.rest[self.read..]).read(into)?;
        self.read += count;
        if self.read >= PIECE || count == 0 {
            let (done, rest) = self.rest.split_at(self.read);
            map::release(done);
            (self.rest, self.read) = (rest, 0);
        }
        Ok(count)
    }
}

/// Gives a text its name, compressed if that is wished.
pub(crate) fn place(
    text: Draft,
    path: &Path,
    compression: Option<Compression>,
) -> Result<Vec<PathBuf>, FormatError> {
    let Some(compression) = compression else {
        return Ok(vec![text.place()?]);
    };
    let text = text.finish()?;
    let source = File::open(text.temporary()).map_err(FormatError::io(path))?;
    let mut out = Draft::create(path)?;
    match compression {
        Compression::Gzip => {
            let mut stream = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
            let copied = io::copy(&mut io::BufReader::new(source), &mut stream);
            copied
                .and_then(|_| stream.finish())
                .map_err(FormatError::io(path))?;
        }
        Compression::Zstd => {
            let failed = RefCell::new(None);
            let (source, drain) = (Infallible(source, &failed), Infallible(&mut out, &failed));
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress(source, drain, level);
            if let Some(error) = failed.into_inner() {
                return Err(FormatError::io(path)(error));
            }
        }
    }
    Ok(vec![out.place()?])
}

/// A stream that keeps its first error for later: the encoder would panic at one.
struct Infallible<'a, S>(S, &'a RefCell<Option<io::Error>>);

impl<S> Infallible<'_, S> {
    fn kept(&self, result: io::Result<usize>, instead: usize) -> io::Result<usize> {
        Ok(result.unwrap_or_else(|error| {
            self.1.borrow_mut().get_or_insert(error);
            instead
        }))
    }
}

impl<S: Read> Read for Infallible<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let result = self.0.read(into);
        self.kept(result, 0)
    }
}

impl<S: Write> Write for Infallible<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.0.write(bytes);
        self.kept(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
