//! One address to one file: gone on with after a cut, verified, and begun again once if it came damaged.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::header::{self, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use tracing::{debug, info};

use crate::digest::{Algorithm, Digest, Hasher, update_from};
use crate::http::{Attempts, Client, Encoding, Fault, Request};
use crate::progress::Event;

/// A file that is wanted.
pub(crate) struct Wanted<'a> {
    /// What it is called in events.
    pub(crate) name: &'a str,
    pub(crate) url: Url,
    pub(crate) authorization: Option<&'a HeaderValue>,
    /// Its length, if it is known.
    pub(crate) size: Option<u64>,
    /// Its sum, if it is known; one of git's needs the length.
    pub(crate) digest: Option<Digest>,
}

/// How many copies are fetched of a file that comes damaged.
const COPIES: u32 = 2;

/// Fetches the file to `partial`, going on with what is there if the file's sum is known. Gives the sum of what came,
/// SHA-256 unless another was asked for.
///
/// If it fails, what came stays in `partial`, unless that is damaged.
pub(crate) fn download(
    client: &Client,
    wanted: &Wanted<'_>,
    partial: &Path,
) -> Result<String, Fault> {
    let mut copy = 1;
    loop {
        match one_copy(client, wanted, partial) {
            Err(fault @ (Fault::WrongSize { .. } | Fault::WrongHash { .. })) => {
                info!(file = wanted.name, ?fault, "damaged");
                crate::files::remove(partial).map_err(disk(partial))?;
                if copy == COPIES {
                    return Err(fault);
                }
                copy += 1;
            }
            Err(fault) => {
                // Nothing came that could be gone on with.
                if crate::files::size(partial) == Some(0) {
                    crate::files::remove(partial).map_err(disk(partial))?;
                }
                return Err(fault);
            }
            sum => return sum,
        }
    }
}

fn disk(path: &Path) -> impl Fn(io::Error) -> Fault {
    |source| Fault::Disk {
        path: path.to_owned(),
        source,
    }
}

/// A file as far as it has come.
struct Partial {
    file: File,
    sum: Sum,
    /// How many bytes are written.
    done: u64,
    /// Whether the server gives the ranges that are asked for.
    has_ranges: bool,
}

impl Partial {
    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.file.write_all(&bytes)?;
        self.done += bytes.len() as u64;
        self.sum.update(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.sum.restart();
        self.done = 0;
        Ok(())
    }
}

/// How many pieces may wait to be summed.
const WAITING: usize = 16;

/// A sum that is made on a thread of its own: it takes about as long as receiving and writing.
struct Sum {
    /// `None` begins anew.
    pieces: SyncSender<Option<Bytes>>,
    thread: JoinHandle<Hasher>,
}

impl Sum {
    /// Goes on from `begun`; a restart goes back to `fresh`.
    fn new(begun: Hasher, fresh: Hasher) -> Self {
        let (pieces, received) = sync_channel::<Option<Bytes>>(WAITING);
        let thread = std::thread::spawn(move || {
            let mut hasher = begun;
            for piece in received {
                match piece {
                    Some(bytes) => hasher.update(&bytes),
                    None => hasher = fresh.clone(),
                }
            }
            hasher
        });
        Self { pieces, thread }
    }

    fn update(&self, bytes: Bytes) {
        // It ends before this only by a panic, which `finish` passes on.
        let _ = self.pieces.send(Some(bytes));
    }

    fn restart(&self) {
        let _ = self.pieces.send(None);
    }

    fn finish(self) -> String {
        drop(self.pieces);
        match self.thread.join() {
            Ok(hasher) => hasher.finish(),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn one_copy(client: &Client, wanted: &Wanted<'_>, partial: &Path) -> Result<String, Fault> {
    let progress = &client.settings.progress;
    let algorithm = wanted
        .digest
        .as_ref()
        .map_or(Algorithm::Sha256, |digest| digest.algorithm);
    let fresh = Hasher::new(algorithm, wanted.size.unwrap_or_default());
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(partial)
        .map_err(disk(partial))?;
    let mut begun = fresh.clone();
    let mut done = 0;
    let there = file.metadata().map_err(disk(partial))?.len();
    // Without a sum, nothing would tell an old beginning from a new one.
    let is_usable = wanted.digest.is_some() && wanted.size.is_some_and(|size| there <= size);
    if there > 0 && is_usable {
        let cancel = &client.settings.cancel;
        let summed = update_from(&mut begun, &mut file, cancel, &mut |_| {});
        done = summed.map_err(disk(partial))?.ok_or(Fault::Cancelled)?;
    } else if there > 0 {
        file.set_len(0).map_err(disk(partial))?;
    }
    let mut copy = Partial {
        file,
        sum: Sum::new(begun, fresh),
        done,
        has_ranges: true,
    };
    progress.tell(Event::Started {
        file: wanted.name,
        bytes: wanted.size,
        done: copy.done,
    });

    let mut attempts = Attempts::new(&client.settings);
    // A server that does not know ranges lets it begin again and again: that alone brings nothing.
    let mut furthest = copy.done;
    // Of the first answer, so that what comes after a cut is of the same content.
    let mut validator = None;
    let mut is_complete = wanted.size == Some(copy.done);
    while !is_complete {
        match client.block_on(receive(client, wanted, &mut copy, &mut validator)) {
            Ok(end) => {
                is_complete = end;
                if !end && copy.done <= furthest {
                    let expected = wanted.size.unwrap_or_default();
                    let actual = copy.done;
                    return Err(Fault::WrongSize { expected, actual });
                }
            }
            Err(Received::Fault(fault)) => {
                let has_advanced = copy.done > furthest;
                if has_advanced {
                    attempts.reset();
                }
                let delay = attempts.after(fault)?;
                debug!(file = wanted.name, done = copy.done, "cut");
                if !has_advanced {
                    client.block_on(client.wait(wanted.name, delay))?;
                }
            }
            Err(Received::Disk(source)) => return Err(disk(partial)(source)),
        }
        furthest = furthest.max(copy.done);
    }
    copy.file.flush().map_err(disk(partial))?;
    let actual = copy.sum.finish();
    match &wanted.digest {
        Some(digest) if !digest.accepts(&actual) => Err(Fault::WrongHash {
            expected: digest.hex.clone(),
            actual,
        }),
        _ => Ok(actual),
    }
}

/// Why an answer did not bring the file to its end.
enum Received {
    Fault(Fault),
    Disk(io::Error),
}

impl From<Fault> for Received {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Takes one answer; whether the file is whole with it.
async fn receive(
    client: &Client,
    wanted: &Wanted<'_>,
    copy: &mut Partial,
    validator: &mut Option<String>,
) -> Result<bool, Received> {
    if copy.done > 0 && !copy.has_ranges {
        copy.restart().map_err(Received::Disk)?;
    }
    let mut response = ask(client, wanted, copy.done, validator.as_deref()).await?;
    let is_range = |response: &Response| response.status() == StatusCode::PARTIAL_CONTENT;
    if copy.done > 0 && !continues(&response, copy.done) {
        // The server does not know ranges or gives another one, or the content has changed.
        copy.restart().map_err(Received::Disk)?;
        if is_range(&response) {
            copy.has_ranges = false;
            debug!(file = wanted.name, "unusable range");
            response = ask(client, wanted, 0, None).await?;
        }
    }
    let unexpected = |reason: String| Fault::Unexpected {
        url: wanted.url.to_string(),
        reason,
    };
    if is_range(&response) && !continues(&response, copy.done) {
        return Err(unexpected("another range than the one that was asked for".to_owned()).into());
    }
    let mut decoder = match Encoding::of(response.headers()).map_err(unexpected)? {
        Encoding::Identity => None,
        // Its ranges would be those of the compressed content.
        Encoding::Gzip => {
            copy.has_ranges = false;
            Some(MultiGzDecoder::new(Vec::new()))
        }
    };
    let total = match content_range(&response) {
        Some((_, total)) if is_range(&response) => total,
        _ if decoder.is_some() => None,
        _ => response.content_length(),
    };
    if let (Some(expected), Some(actual)) = (wanted.size, total)
        && actual != expected
    {
        return Err(Fault::WrongSize { expected, actual }.into());
    }
    if validator.is_none() {
        *validator = strong_validator(&response);
    }
    let corrupt = |error: io::Error| unexpected(format!("gzip that cannot be read ({error})"));
    while let Some(chunk) = client
        .unless_cancelled(response.chunk())
        .await?
        .map_err(Fault::Transport)?
    {
        let content = match &mut decoder {
            None => chunk,
            Some(decoder) => {
                decoder.write_all(&chunk).map_err(corrupt)?;
                std::mem::take(decoder.get_mut()).into()
            }
        };
        receive_content(client, wanted, copy, content)?;
    }
    if let Some(mut decoder) = decoder {
        // An end before its own is a cut.
        if decoder.try_finish().is_err() {
            return Ok(false);
        }
        receive_content(
            client,
            wanted,
            copy,
            std::mem::take(decoder.get_mut()).into(),
        )?;
    }
    match wanted.size.or(total) {
        // A body without a length of its own ends with the connection, so this may be a cut.
        Some(size) if copy.done < size => Ok(false),
        _ => Ok(true),
    }
}

/// Writes what came of the content, unless there is more than there is to be.
fn receive_content(
    client: &Client,
    wanted: &Wanted<'_>,
    copy: &mut Partial,
    content: Bytes,
) -> Result<(), Received> {
    let actual = copy.done + content.len() as u64;
    if let Some(expected) = wanted.size
        && actual > expected
    {
        return Err(Fault::WrongSize { expected, actual }.into());
    }
    copy.write(content).map_err(Received::Disk)?;
    client.settings.progress.tell(Event::Advanced {
        file: wanted.name,
        done: copy.done,
    });
    Ok(())
}

/// Asks for the content from a byte on.
async fn ask(
    client: &Client,
    wanted: &Wanted<'_>,
    from: u64,
    validator: Option<&str>,
) -> Result<Response, Received> {
    let mut request = Request::new(wanted.url.clone()).authorized(wanted.authorization);
    if from > 0 {
        request = request.with(header::RANGE, &format!("bytes={from}-"));
        if let Some(validator) = validator {
            request = request.with(header::IF_RANGE, validator);
        }
    }
    match client.attempt(&request).await {
        Err(Fault::Status(status)) if status.status == 416 && from > 0 => {
            // The content is shorter than what is here of it, so that is of another one.
            Err(Fault::WrongSize {
                expected: wanted.size.unwrap_or_default(),
                actual: from,
            }
            .into())
        }
        other => Ok(other?),
    }
}

/// Whether the answer goes on from that byte.
fn continues(response: &Response, from: u64) -> bool {
    let is_plain = matches!(Encoding::of(response.headers()), Ok(Encoding::Identity));
    response.status() == StatusCode::PARTIAL_CONTENT
        && is_plain
        && content_range(response).is_some_and(|(start, _)| start == from)
}

/// The first byte and the whole length that `Content-Range` names.
fn content_range(response: &Response) -> Option<(u64, Option<u64>)> {
    let value = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

/// What tells this content from another at the same address.
fn strong_validator(response: &Response) -> Option<String> {
    let text = |name| response.headers().get(name)?.to_str().ok();
    let etag = text(header::ETAG).filter(|etag| !etag.starts_with("W/"));
    etag.or_else(|| text(header::LAST_MODIFIED))
        .map(str::to_owned)
}
