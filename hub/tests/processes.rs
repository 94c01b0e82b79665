//! Several processes on one cache, and processes that are killed.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use salamander_hub::{FileState, Hub};
use server::{Fault, Server, noise};

/// What makes this test a process that fetches a model, as other tests start it.
const ENDPOINT: &str = "SALAMANDER_TEST_ENDPOINT";
const CACHE: &str = "SALAMANDER_TEST_CACHE";

#[test]
fn child() {
    let (Some(endpoint), Some(cache)) = (std::env::var_os(ENDPOINT), std::env::var_os(CACHE))
    else {
        return;
    };
    let mut hub = Hub::new(PathBuf::from(cache));
    hub.endpoint = endpoint.into_string().unwrap();
    hub.fetch("owner/name").unwrap();
}

fn start(endpoint: &str, cache: &Path, variables: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(ENDPOINT, endpoint)
        .env(CACHE, cache)
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[track_caller]
fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
}

fn shards() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("config.json".to_owned(), b"{}".to_vec())];
    let mut map = Vec::new();
    for number in 1..=3 {
        let name = format!("model-0000{number}-of-00003.safetensors");
        map.push(format!("\"t{number}\": \"{name}\""));
        files.push((name, noise(200_000, number)));
    }
    let index = format!("{{\"weight_map\": {{{}}}}}", map.join(", "));
    files.push((
        "model.safetensors.index.json".to_owned(),
        index.into_bytes(),
    ));
    files
}

fn serve(files: &[(String, Vec<u8>)]) -> Server {
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, content)| (&**name, &**content))
        .collect();
    Server::new(&files)
}

#[track_caller]
fn assert_whole(cache: &Path, endpoint: &str, files: &[(String, Vec<u8>)]) {
    let mut hub = Hub::new(cache);
    hub.endpoint = endpoint.to_owned();
    hub.offline = true;
    let path = hub.fetch("owner/name").unwrap();
    for (name, content) in files {
        assert!(fs::read(path.join(name)).unwrap() == *content, "{name}");
    }
    let verified = hub.verify("owner/name").unwrap();
    assert!(verified.iter().all(|file| file.state == FileState::Good));
    assert_eq!(verified.len(), files.len());
}

#[test]
fn processes_wait_for_one_another_and_fetch_each_file_once() {
    let files = shards();
    let server = serve(&files);
    for count in [2, 8] {
        let cache = tempfile::tempdir().unwrap();
        server.fail(
            "/storage/",
            Fault::Slow(50_000, Duration::from_millis(30)),
            3,
        );
        let children: Vec<_> = (0..count)
            .map(|_| start(&server.endpoint, cache.path(), &[]))
            .collect();
        children.into_iter().for_each(finish);
        assert_whole(cache.path(), &server.endpoint, &files);
        let requests = server.requests();
        let stored = requests.iter().filter(|r| r.contains("/storage/")).count();
        assert_eq!(stored, 3, "{count} processes");
    }
}

/// Processes are killed at moments drawn anew, `SALAMANDER_KILLS` times, 100 unless set.
#[test]
fn a_cache_heals_from_processes_that_were_killed() {
    let kills: u32 = std::env::var("SALAMANDER_KILLS").map_or(100, |value| value.parse().unwrap());
    let files = shards();
    let server = serve(&files);
    // The server's pace, not the machine's, says how long a fetch takes.
    let pause = Fault::Slow(20_000, Duration::from_millis(10));
    server.fail("/storage/", pause, usize::MAX);
    let cache = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    finish(start(&server.endpoint, cache.path(), &[]));
    // So the moments fall into all of it.
    let whole = begin.elapsed();
    let moments = noise(2 * kills as usize, 99);
    let mut killed = 0;
    for moment in moments.chunks(2) {
        let moment = f64::from(u16::from_le_bytes([moment[0], moment[1]])) / 65536.0;
        let mut child = start(&server.endpoint, cache.path(), &[]);
        std::thread::sleep(whole.mul_f64(moment));
        child.kill().unwrap();
        let finished = child.wait().unwrap().success();
        killed += u32::from(!finished);
        // What is there under its final name is whole.
        let blobs = cache.path().join("models--owner--name/blobs");
        for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !name.contains('.') {
                let content = fs::read(entry.path()).unwrap();
                assert!(name == server::sha256(&content) || name == server::git(&content));
            }
        }
        // What a killed one left is the next one's start; from a whole cache none would fetch.
        if finished || moment < 0.3 {
            fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap_or_default();
        }
    }
    assert!(
        killed > kills / 10,
        "{killed} of {kills} were killed before their end"
    );
    finish(start(&server.endpoint, cache.path(), &[]));
    assert_whole(cache.path(), &server.endpoint, &files);
    let hub = Hub::new(cache.path());
    hub.gc(false).unwrap();
    assert_eq!(hub.garbage(true).unwrap(), []);
    assert_whole(cache.path(), &server.endpoint, &files);
}

#[test]
fn a_proxy_is_used() {
    let files = shards();
    let server = serve(&files);
    let cache = tempfile::tempdir().unwrap();
    // No such host: only the proxy knows the way.
    let variables = [("HTTP_PROXY", &*server.endpoint), ("NO_PROXY", "")];
    finish(start("http://hub.invalid", cache.path(), &variables));
    assert_whole(cache.path(), &server.endpoint, &files);

    server.fail("", Fault::Status(407, ""), usize::MAX);
    let cache = tempfile::tempdir().unwrap();
    let refused = start("http://hub.invalid", cache.path(), &variables);
    let output = refused.wait_with_output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("ProxyRefused"), "{errors}");
}
