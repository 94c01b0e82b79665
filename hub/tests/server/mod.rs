//! A hub on this machine, with the repositories of a map.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

/// The commit that `main` is.
pub(crate) const MAIN: &str = "1111111111111111111111111111111111111111";
/// The commit that `v1` is.
pub(crate) const V1: &str = "2222222222222222222222222222222222222222";
/// How many files a page of a listing has, few, so that there are several pages.
const PAGE: usize = 3;

/// The one repository, `owner/name`.
#[derive(Default)]
pub(crate) struct Repository {
    /// The files of each commit.
    pub(crate) commits: BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>,
    /// Paths in requests that are answered with a status, and whether `HEAD` is, too.
    pub(crate) statuses: Vec<(&'static str, u16, bool)>,
    /// A file whose body ends after half of it.
    pub(crate) cut: Option<&'static str>,
    /// A header that each failure has.
    pub(crate) header: Option<&'static str>,
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) repository: Arc<Mutex<Repository>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A hub whose `main` and `v1` have the files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let files: BTreeMap<_, _> = files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
            .collect();
        let repository = Repository {
            commits: [(MAIN, files.clone()), (V1, files)].into(),
            ..Repository::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            repository: Arc::new(Mutex::new(repository)),
            requests: Arc::default(),
        };
        let endpoint = server.endpoint.clone();
        let repository = Arc::clone(&server.repository);
        let requests = Arc::clone(&server.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (endpoint, repository) = (endpoint.clone(), Arc::clone(&repository));
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || answer(stream, &endpoint, &repository, &requests));
            }
        });
        server
    }

    /// The requests since the last call, each with its method, path and, if there is one, its
    /// token.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

struct Response {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }
}

/// A request on a connection of its own. A client that goes away is no concern of the server.
fn answer(
    mut stream: TcpStream,
    endpoint: &str,
    repository: &Mutex<Repository>,
    requests: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut token = String::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            token = format!(" {value}");
        }
    }
    drop(lines);
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    requests
        .lock()
        .unwrap()
        .push(format!("{method} {target}{token}"));

    let repository = repository.lock().unwrap();
    let response = respond(&repository, endpoint, method, target);
    let Response {
        status,
        headers,
        body,
    } = response;
    let mut head = format!(
        "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head += "\r\n";
    let cut = repository.cut.is_some_and(|name| target.ends_with(name));
    let sent = match method {
        "HEAD" => &[],
        _ if cut => &body[..body.len() / 2],
        _ => &body[..],
    };
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(sent);
}

fn respond(repository: &Repository, endpoint: &str, method: &str, target: &str) -> Response {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    for (part, status, head) in &repository.statuses {
        if path.contains(part) && (method != "HEAD" || *head) {
            let mut response = Response::new(*status, r#"{"error": "refused"}"#);
            response
                .headers
                .extend(repository.header.map(str::to_owned));
            return response;
        }
    }
    let missing = || Response::new(404, r#"{"error": "not found"}"#);
    let commit = |revision: &str| match revision {
        "main" => Some(MAIN),
        "v1" => Some(V1),
        MAIN => Some(MAIN),
        V1 => Some(V1),
        _ => None,
    };
    if let Some(revision) = path.strip_prefix("/api/models/owner/name/revision/") {
        let Some(sha) = commit(revision) else {
            return missing();
        };
        return Response::new(200, json!({"id": "owner/name", "sha": sha}).to_string());
    }
    if let Some(revision) = path.strip_prefix("/api/models/owner/name/tree/") {
        let Some(files) = commit(revision).and_then(|sha| repository.commits.get(sha)) else {
            return missing();
        };
        let start: usize = query
            .split("cursor=")
            .nth(1)
            .map_or(0, |cursor| cursor.parse().unwrap());
        let entries: Vec<_> = files
            .iter()
            .skip(start)
            .take(PAGE)
            .map(|(path, content)| {
                let (oid, size) = (etag(content), content.len());
                json!({"type": "file", "oid": oid, "size": size, "path": path})
            })
            .collect();
        let mut response = Response::new(200, json!(entries).to_string());
        let next = start + PAGE;
        if next < files.len() {
            let link = format!("<{endpoint}{path}?recursive=true&cursor={next}>; rel=\"next\"");
            response.headers.push(format!("Link: {link}"));
        }
        return response;
    }
    if let Some(rest) = path.strip_prefix("/owner/name/resolve/") {
        let (revision, name) = rest.split_once('/').unwrap();
        let Some(sha) = commit(revision) else {
            return missing();
        };
        let Some(content) = repository.commits[sha].get(name) else {
            return missing();
        };
        let etag = etag(content);
        let mut headers = vec![format!("X-Repo-Commit: {sha}")];
        // Large files are elsewhere.
        if name.ends_with(".safetensors") {
            headers.push(format!("Location: {endpoint}/storage/{sha}/{name}"));
            headers.push(format!("X-Linked-Etag: \"{etag}\""));
            headers.push(format!("X-Linked-Size: {}", content.len()));
            let mut response = Response::new(302, "elsewhere");
            response.headers = headers;
            return response;
        }
        headers.push(format!("ETag: \"{etag}\""));
        let mut response = Response::new(200, content.as_slice());
        response.headers = headers;
        return response;
    }
    if let Some(rest) = path.strip_prefix("/storage/") {
        let (sha, name) = rest.split_once('/').unwrap();
        return Response::new(200, repository.commits[sha][name].as_slice());
    }
    missing()
}

/// A name for a content.
fn etag(content: &[u8]) -> String {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:040x}")
}
