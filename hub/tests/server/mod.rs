//! A hub on this machine that speaks the APIs of Hugging Face and GitHub, and misbehaves on demand.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Digest as _;

/// The commit that `main` is.
pub(crate) const MAIN: &str = "1111111111111111111111111111111111111111";
/// The commit that `v1` is.
pub(crate) const V1: &str = "2222222222222222222222222222222222222222";
/// How many files a page of a listing has, few, so that there are several pages.
const PAGE: usize = 3;

type Content = Arc<Vec<u8>>;

/// A content with its sums, which are made once.
#[derive(Clone)]
pub(crate) struct Stored {
    content: Content,
    sha256: String,
    git: String,
}

impl Stored {
    fn new(content: &[u8]) -> Self {
        Self {
            sha256: sha256(content),
            git: git(content),
            content: Arc::new(content.to_vec()),
        }
    }
}

/// How an answer goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The connection ends at a byte drawn from this state.
    CutAnywhere,
    /// The body comes in pieces of so many bytes, with a pause between.
    Slow(usize, Duration),
    /// Nothing comes after so many bytes, and the connection stays.
    Stall(usize),
    /// The first byte is another one.
    WrongContent,
    /// The body, and the length that is told of it, lack so many bytes.
    Shorter(usize),
    /// The body has more bytes than it is to have.
    Longer(usize),
    /// Another status, with headers.
    Status(u16, &'static str),
    /// A page of HTML instead.
    Html,
    /// Ranges are not known.
    NoRanges,
    /// No length is told; the connection ends with the body.
    NoLength,
    /// A header of so many bytes.
    BigHeader(usize),
    /// Another header, instead of one of that name.
    Header(String),
    /// The body is compressed, whatever was asked for.
    Gzip,
    /// The range that is given is called so; nothing for no header at all.
    ContentRange(&'static str),
}

/// A fault of the answers whose path has a part, so many times.
#[derive(Debug)]
struct Planned {
    part: String,
    fault: Fault,
    times: usize,
}

/// What the server has.
#[derive(Default)]
pub(crate) struct State {
    /// The files of each commit of a repository.
    pub(crate) commits: BTreeMap<String, BTreeMap<&'static str, BTreeMap<String, Stored>>>,
    /// The commit of each branch and tag.
    pub(crate) refs: BTreeMap<&'static str, &'static str>,
    /// Other contents by their paths.
    pub(crate) others: BTreeMap<String, Stored>,
    /// Only who has this token gets an answer.
    pub(crate) token: Option<&'static str>,
    /// Where links to a next page lead, unless to this server.
    pub(crate) next_at: Option<&'static str>,
    /// What this mirror does not know: `expand`, `blobs` and `tree` of the API, and `sums` in listings.
    pub(crate) lacks: Vec<&'static str>,
    /// Ids without an owner, and where they lead.
    pub(crate) moved: BTreeMap<&'static str, &'static str>,
    /// Entries of a search.
    pub(crate) found: Vec<Value>,
    faults: Vec<Planned>,
    requests: Vec<String>,
    random: u64,
}

impl State {
    fn draw(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    /// The same server under another name, where large files are.
    storage: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// A hub whose `owner/name` has the files at `main` and `v1`.
    pub(crate) fn new<C: AsRef<[u8]>>(files: &[(&str, C)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            storage: format!("http://localhost:{port}"),
            state: Arc::default(),
        };
        server.state().refs = [("main", MAIN), ("v1", V1)].into();
        server.add("owner/name", files);
        let accepting = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepting.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        server
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn add<C: AsRef<[u8]>>(&self, id: &str, files: &[(&str, C)]) {
        let files: BTreeMap<_, _> = files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), Stored::new(content.as_ref())))
            .collect();
        let commits = [(MAIN, files.clone()), (V1, files)].into();
        self.state().commits.insert(id.to_owned(), commits);
    }

    /// Makes another content of a file at a commit of `owner/name`.
    pub(crate) fn set(&self, commit: &'static str, name: &str, content: &[u8]) {
        let mut state = self.state();
        let commits = state.commits.get_mut("owner/name").unwrap();
        let files = commits.entry(commit).or_default();
        files.insert(name.to_owned(), Stored::new(content));
    }

    pub(crate) fn set_other(&self, path: &str, content: &[u8]) {
        let stored = Stored::new(content);
        self.state().others.insert(path.to_owned(), stored);
    }

    /// The next `times` answers to paths with that part go wrong.
    pub(crate) fn fail(&self, part: &str, fault: Fault, times: usize) {
        let part = part.to_owned();
        self.state().faults.push(Planned { part, fault, times });
    }

    pub(crate) fn behave(&self) {
        self.state().faults.clear();
    }

    /// How many of the planned faults are still to come.
    pub(crate) fn planned(&self) -> usize {
        self.state()
            .faults
            .iter()
            .map(|planned| planned.times)
            .sum()
    }

    /// The requests since the last call, each with its method, path and, if there is one, its token and range.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// A request on a connection of its own. A client that goes away is no concern of the server.
    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        let headers: BTreeMap<String, String> = lines
            .by_ref()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let (name, value) = line.split_once(": ")?;
                Some((name.to_ascii_lowercase(), value.to_owned()))
            })
            .collect();
        drop(lines);
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        // As a proxy is asked.
        let target = target
            .strip_prefix("http://")
            .map_or(target, |rest| &rest[rest.find('/').unwrap()..]);
        let (mut response, fault) = {
            let mut state = self.state();
            let mut line = format!("{method} {target}");
            for name in ["authorization", "range"] {
                if let Some(value) = headers.get(name) {
                    line += &format!(" {value}");
                }
            }
            state.requests.push(line);
            let planned = state
                .faults
                .iter_mut()
                .find(|planned| planned.times > 0 && target.contains(&planned.part));
            let mut fault = planned.map(|planned| {
                planned.times -= 1;
                planned.fault.clone()
            });
            let mut response = self.respond(&state, target, &headers);
            if response.ranges && !matches!(fault, Some(Fault::NoRanges)) {
                response.cut_to_range(headers.get("range"));
            }
            if let Some(Fault::CutAnywhere) = fault {
                let at = state.draw(response.body.len());
                fault = Some(Fault::Cut(at));
            }
            (response, fault)
        };
        let mut sent = usize::MAX;
        match fault {
            Some(Fault::Cut(at) | Fault::Stall(at)) => sent = at,
            Some(Fault::WrongContent) => {
                let mut body = response.body.to_vec();
                if let Some(first) = body.first_mut() {
                    *first ^= 1;
                }
                response.body = Arc::new(body);
            }
            Some(Fault::Shorter(bytes)) => {
                let length = response.body.len().saturating_sub(bytes);
                response.body = Arc::new(response.body[..length].to_vec());
            }
            Some(Fault::Longer(bytes)) => {
                let mut body = response.body.to_vec();
                body.extend(std::iter::repeat_n(b'x', bytes));
                response.body = Arc::new(body);
            }
            Some(Fault::Status(status, header)) => {
                response = Response::new(status, r#"{"error": "refused"}"#);
                response.headers.push(header.to_owned());
            }
            Some(Fault::Html) => {
                response = Response::new(200, "<!DOCTYPE html><html>Sign in</html>");
                response.headers.push("Content-Type: text/html".to_owned());
            }
            Some(Fault::Header(ref header)) => {
                let name = header.split(':').next().unwrap();
                response.headers.retain(|header| !header.starts_with(name));
                response.headers.push(header.clone());
            }
            Some(Fault::Gzip) => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(&response.body).unwrap();
                response.body = Arc::new(encoder.finish().unwrap());
                response.headers.push("Content-Encoding: gzip".to_owned());
            }
            Some(Fault::ContentRange(range)) => {
                for header in &mut response.headers {
                    if header.starts_with("Content-Range") {
                        range.clone_into(header);
                    }
                }
            }
            Some(Fault::BigHeader(bytes)) => {
                response
                    .headers
                    .push(format!("X-Big: {}", "x".repeat(bytes)));
            }
            _ => {}
        }
        let mut head = format!(
            "HTTP/1.1 {} Status\r\nConnection: close\r\n",
            response.status
        );
        if !matches!(fault, Some(Fault::NoLength)) {
            head += &format!("Content-Length: {}\r\n", response.body.len());
        }
        for header in response.headers.iter().filter(|header| !header.is_empty()) {
            head += &format!("{header}\r\n");
        }
        head += "\r\n";
        let _ = stream.write_all(head.as_bytes());
        if method == "HEAD" {
            return;
        }
        let body = &response.body[..response.body.len().min(sent)];
        match fault {
            Some(Fault::Slow(bytes, pause)) => {
                for piece in body.chunks(bytes.max(1)) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            }
            _ => {
                let _ = stream.write_all(body);
            }
        }
        if matches!(fault, Some(Fault::Stall(_))) {
            // Until the client goes.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
            let _ = stream.read(&mut [0]);
        }
    }

    fn respond(&self, state: &State, target: &str, headers: &BTreeMap<String, String>) -> Response {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = unescape(path);
        if let Some(stored) = state.others.get(&path) {
            // Lists at GitHub have one page.
            if query.ends_with("&page=2") {
                return Response::new(200, "[]");
            }
            let mut response = Response::of(stored);
            let etag = format!("\"{}\"", stored.sha256);
            if headers.get("if-none-match") == Some(&etag) {
                response = Response::new(304, "");
            }
            response.headers.push(format!("ETag: {etag}"));
            response.ranges = true;
            return response;
        }
        if let Some(rest) = path.strip_prefix("/storage/") {
            return Response::storage(state, rest);
        }
        if let Some(token) = state.token
            && headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {token}"))
        {
            let mut response = Response::new(401, r#"{"error": "Invalid username or password."}"#);
            response
                .headers
                .push("X-Error-Message: Invalid credentials in Authorization header".to_owned());
            return response;
        }
        if path == "/api/models" {
            return Response::new(200, Value::from(state.found.clone()).to_string());
        }
        let hub = self.hub(state, &path, query);
        hub.unwrap_or_else(|code| {
            let mut response = Response::new(404, r#"{"error": "not found"}"#);
            response.headers.push(format!("X-Error-Code: {code}"));
            response
        })
    }

    /// Hugging Face's answers, or its code for what it does not have.
    fn hub(&self, state: &State, path: &str, query: &str) -> Result<Response, &'static str> {
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let lacks = |part: &str| state.lacks.contains(&part);
        if let ["api", "models", name, rest @ ..] = &words[..]
            && let Some(place) = state.moved.get(name)
        {
            let mut response = Response::new(307, "");
            let location = format!("Location: /api/models/{place}/{}?{query}", rest.join("/"));
            response.headers.push(location);
            return Ok(response);
        }
        let (id, kind, rest) = match &words[..] {
            ["api", "models", owner, name, kind, rest @ ..] => {
                (format!("{owner}/{name}"), *kind, rest)
            }
            [owner, name, "resolve", rest @ ..] => (format!("{owner}/{name}"), "resolve", rest),
            _ => return Err("RepoNotFound"),
        };
        let commits = state.commits.get(&id).ok_or("RepoNotFound")?;
        let commit = |revision: &str| {
            let named = state.refs.get(revision).copied();
            let sha = named.or_else(|| commits.keys().find(|key| **key == revision).copied());
            sha.filter(|sha| commits.contains_key(sha))
                .ok_or("RevisionNotFound")
        };
        match kind {
            "revision" if lacks("expand") && query.contains("expand=") => Ok(Response::new(
                404,
                r#"{"errors": [{"message": "Not Found"}]}"#,
            )),
            "tree" if lacks("tree") => Ok(Response::new(404, "")),
            "revision" => {
                let sha = commit(&rest.join("/"))?;
                let has_sums = query.contains("blobs=") && !lacks("blobs");
                let sibling = |(name, stored): (&String, &Stored)| {
                    let size = stored.content.len();
                    match has_sums {
                        true if is_large(name) => {
                            json!({"rfilename": name, "size": size, "blobId": git(b"pointer"),
                            "lfs": {"sha256": stored.sha256, "size": size}})
                        }
                        true => json!({"rfilename": name, "size": size, "blobId": stored.git}),
                        false => json!({"rfilename": name}),
                    }
                };
                let siblings: Vec<_> = commits[sha].iter().map(sibling).collect();
                let info = json!({"id": id, "sha": sha, "siblings": siblings, "downloads": 7,
                    "pipeline_tag": "text-classification", "tags": [], "private": false});
                Ok(Response::new(200, info.to_string()))
            }
            "tree" => {
                let files = &commits[commit(&rest.join("/"))?];
                let cursor = query.split("cursor=").nth(1);
                let start: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
                let entries = files.iter().skip(start).take(PAGE).map(|(path, stored)| {
                        let size = stored.content.len();
                    if lacks("sums") {
                        json!({"type": "file", "path": path})
                    } else if is_large(path) {
                        let lfs = json!({"oid": stored.sha256, "size": size, "pointerSize": 130});
                        let pointer = format!("oid sha256:{}", stored.sha256);
                        json!({"type": "file", "oid": git(pointer.as_bytes()), "size": size, "lfs": lfs, "path": path})
                    } else {
                        json!({"type": "file", "oid": stored.git, "size": size, "path": path})
                    }
                });
                let entries: Vec<_> = entries.collect();
                let mut response = Response::new(200, json!(entries).to_string());
                let next = start + PAGE;
                if next < files.len() {
                    let host = state.next_at.unwrap_or(&self.endpoint);
                    let link = format!("<{host}{path}?recursive=true&cursor={next}>; rel=\"next\"");
                    response.headers.push(format!("Link: {link}"));
                }
                Ok(response)
            }
            "resolve" => {
                let (revision, name) = rest.split_first().ok_or("EntryNotFound")?;
                let sha = commit(revision)?;
                let name = name.join("/");
                let stored = commits[sha].get(&name).ok_or("EntryNotFound")?;
                let mut response = Response::of(stored);
                response.headers.push(format!("X-Repo-Commit: {sha}"));
                if is_large(&name) {
                    // Large files are elsewhere.
                    response.status = 302;
                    response.body = Arc::new(b"elsewhere".to_vec());
                    response.headers.extend([
                        format!("Location: {}/storage/{id}/{sha}/{name}", self.storage),
                        format!("X-Linked-Etag: \"{}\"", stored.sha256),
                        format!("X-Linked-Size: {}", stored.content.len()),
                    ]);
                } else {
                    response.headers.push(format!("ETag: \"{}\"", stored.git));
                    response.ranges = true;
                }
                Ok(response)
            }
            _ => Err("RepoNotFound"),
        }
    }
}

struct Response {
    status: u16,
    headers: Vec<String>,
    body: Content,
    /// Whether a part can be had.
    ranges: bool,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Arc::new(body.into()),
            ranges: false,
        }
    }

    fn of(stored: &Stored) -> Self {
        Self {
            body: Arc::clone(&stored.content),
            ..Self::new(200, "")
        }
    }

    fn storage(state: &State, rest: &str) -> Self {
        let mut words = rest.splitn(4, '/');
        let mut word = || words.next().unwrap_or_default();
        let (owner, name, sha, file) = (word(), word(), word(), word());
        let commits = state.commits.get(&format!("{owner}/{name}"));
        let Some(stored) = commits.and_then(|commits| commits.get(sha)?.get(file)) else {
            return Self::new(404, "");
        };
        Self {
            status: 200,
            headers: vec![format!("ETag: \"storage-{}\"", stored.sha256)],
            body: Arc::clone(&stored.content),
            ranges: true,
        }
    }

    fn cut_to_range(&mut self, range: Option<&String>) {
        let length = self.body.len();
        self.headers.push("Accept-Ranges: bytes".to_owned());
        let start = range.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let Some(start): Option<usize> = start else {
            return;
        };
        if start >= length {
            self.status = 416;
            self.headers
                .push(format!("Content-Range: bytes */{length}"));
            self.body = Arc::default();
        } else {
            self.status = 206;
            self.headers.push(format!(
                "Content-Range: bytes {start}-{}/{length}",
                length - 1
            ));
            self.body = Arc::new(self.body[start..].to_vec());
        }
    }
}

/// Whether the hub keeps a file in large-file storage.
fn is_large(name: &str) -> bool {
    [".safetensors", ".bin", ".gguf"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

fn unescape(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(&tail[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&sha2::Sha256::digest(content))
}

/// The name that git gives a content.
pub(crate) fn git(content: &[u8]) -> String {
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {}\0", content.len()));
    hasher.update(content);
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A content that compresses badly and is different at each offset.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = State {
        random: seed,
        ..State::default()
    };
    (0..length).map(|_| state.draw(256) as u8).collect()
}
