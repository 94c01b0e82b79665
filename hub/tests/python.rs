//! The cache shared with Python's `huggingface_hub`, where that is installed.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod server;

use std::fs;
use std::path::Path;
use std::process::Command;

use salamander_hub::{FileState, Hub};
use server::{MAIN, Server, noise};

fn python() -> String {
    std::env::var("SALAMANDER_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Whether there is a Python with the package.
fn is_there() -> bool {
    let found = Command::new(python())
        .args(["-c", "import huggingface_hub"])
        .output();
    let is_there = found.is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!(
            "skipped: {} has no huggingface_hub (SALAMANDER_PYTHON names another)",
            python()
        );
    }
    is_there
}

#[track_caller]
fn run(server: &Server, cache: &Path, offline: bool, program: &str) -> String {
    let output = Command::new(python())
        .args(["-c", program])
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HUB_CACHE", cache)
        .env("HF_HOME", cache.join("home"))
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("NO_PROXY", "127.0.0.1,localhost")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn hub(server: &Server, cache: &Path) -> Hub {
    let mut hub = Hub::new(cache);
    hub.endpoint = server.endpoint.clone();
    hub
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", noise(100_000, 3)),
        ("sub/notes.txt", b"not needed".to_vec()),
        ("vocab.txt", b"a\nb\n".to_vec()),
    ]
}

#[test]
fn python_finds_what_we_fetched() {
    if !is_there() {
        return;
    }
    let server = Server::new(&files());
    let cache = tempfile::tempdir().unwrap();
    let path = hub(&server, cache.path()).fetch("owner/name").unwrap();
    server.requests();
    let program = "
from huggingface_hub import snapshot_download, hf_hub_download, scan_cache_dir, try_to_load_from_cache
print(snapshot_download('owner/name', allow_patterns=['*.json', '*.safetensors', 'vocab.txt']))
print(hf_hub_download('owner/name', 'model.safetensors'))
print(try_to_load_from_cache('owner/name', 'vocab.txt'))
info = scan_cache_dir()
assert not info.warnings, info.warnings
repo, = info.repos
revision, = repo.revisions
print(repo.repo_id, repo.nb_files, revision.commit_hash, sorted(revision.refs))
";
    let said = run(&server, cache.path(), true, program);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(Path::new(lines[0]), path);
    assert_eq!(Path::new(lines[1]), path.join("model.safetensors"));
    assert_eq!(Path::new(lines[2]), path.join("vocab.txt"));
    assert_eq!(lines[3], format!("owner/name 3 {MAIN} ['main']"));
    assert_eq!(server.requests(), [""; 0]);

    // Online, it takes our contents and fetches only what we left out.
    let said = run(
        &server,
        cache.path(),
        false,
        "
from huggingface_hub import snapshot_download
print(snapshot_download('owner/name'))
",
    );
    assert_eq!(Path::new(&said), path);
    assert!(path.join("sub/notes.txt").is_file());
    let requests = server.requests();
    let fetched = requests
        .iter()
        .filter(|r| r.starts_with("GET") && r.contains("/resolve/"));
    let fetched: Vec<_> = fetched.collect();
    assert!(
        fetched.iter().all(|r| r.contains("sub/notes.txt")),
        "{fetched:?}"
    );
}

#[test]
fn we_find_what_python_fetched() {
    if !is_there() {
        return;
    }
    let server = Server::new(&files());
    let cache = tempfile::tempdir().unwrap();
    let program = "
from huggingface_hub import snapshot_download
print(snapshot_download('owner/name'))
";
    let path = run(&server, cache.path(), false, program);
    let mut ours = hub(&server, cache.path());
    server.requests();
    assert_eq!(ours.fetch("owner/name").unwrap(), Path::new(&path));
    let requests = server.requests();
    assert!(
        !requests.iter().any(|r| r.contains("/resolve/")),
        "{requests:?}"
    );
    ours.offline = true;
    assert_eq!(ours.fetch("owner/name").unwrap(), Path::new(&path));
    let verified = ours.verify("owner/name").unwrap();
    assert_eq!(verified.len(), 4);
    assert!(
        verified.iter().all(|file| file.state == FileState::Good),
        "{verified:?}"
    );
    let listed = ours.list().unwrap();
    assert_eq!(
        (&*listed[0].id, listed[0].revisions[0].files),
        ("owner/name", 4)
    );

    // Single files, as transformers fetches them: we complete them.
    let cache = tempfile::tempdir().unwrap();
    let program = "
from huggingface_hub import hf_hub_download
hf_hub_download('owner/name', 'config.json')
print(hf_hub_download('owner/name', 'model.safetensors'))
";
    let file = run(&server, cache.path(), false, program);
    let mut ours = hub(&server, cache.path());
    ours.offline = true;
    let path = ours.fetch("owner/name").unwrap();
    assert_eq!(path.join("model.safetensors"), Path::new(&file));
    ours.offline = false;
    server.requests();
    assert_eq!(ours.fetch("owner/name").unwrap(), path);
    assert!(path.join("vocab.txt").is_file());
    assert!(!server.requests().iter().any(|r| r.contains("/storage/")));
}

#[test]
fn both_lock_the_same_files() {
    if !is_there() {
        return;
    }
    let server = Server::new(&files());
    let cache = tempfile::tempdir().unwrap();
    hub(&server, cache.path()).fetch("owner/name").unwrap();
    let program = "
import os
from huggingface_hub import constants
names = os.listdir(os.path.join(constants.HF_HUB_CACHE, '.locks', 'models--owner--name'))
from huggingface_hub.utils import WeakFileLock
for name in names:
    path = os.path.join(constants.HF_HUB_CACHE, '.locks', 'models--owner--name', name)
    with WeakFileLock(path, timeout=5):
        pass
print(len(names))
";
    assert_eq!(run(&server, cache.path(), true, program), "3");
    let names = fs::read_dir(cache.path().join(".locks/models--owner--name")).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let files = files();
    let mut expected = vec![
        format!("{}.lock", server::git(&files[0].1)),
        format!("{}.lock", server::sha256(&files[1].1)),
        format!("{}.lock", server::git(&files[3].1)),
    ];
    expected.sort();
    assert_eq!(names, expected);
}
