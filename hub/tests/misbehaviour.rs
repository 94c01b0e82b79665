//! What a network and a hub can do wrong, and what becomes of it.
#![allow(clippy::unwrap_used)]

mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use salamander_hub::{Cancel, Error, Hub, Progress, Wait};
use server::{Fault, MAIN, Server, noise};
use tempfile::TempDir;

const LENGTH: usize = 300_000;

fn model() -> (Vec<u8>, Server, Hub, TempDir) {
    let weights = noise(LENGTH, 7);
    let server = Server::new(&[
        ("config.json", &b"{}"[..]),
        ("model.safetensors", &weights[..]),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(cache.path());
    hub.endpoint = server.endpoint.clone();
    (weights, server, hub, cache)
}

#[track_caller]
fn assert_whole(path: &Path, weights: &[u8]) {
    assert_eq!(fs::read_to_string(path.join("config.json")).unwrap(), "{}");
    assert!(fs::read(path.join("model.safetensors")).unwrap() == weights);
}

fn partials(cache: &Path) -> usize {
    let blobs = cache.join("models--owner--name/blobs");
    let entries = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.path().extension().is_some())
        .count()
}

/// 500 cuts: each fetch is cut five times, at bytes drawn anew.
#[test]
fn files_are_whole_after_any_number_of_cuts() {
    let (weights, server, hub, cache) = model();
    for round in 0..100 {
        server.fail("/storage/", Fault::CutAnywhere, 5);
        let path = hub.fetch("owner/name").unwrap();
        assert_eq!(server.planned(), 0, "round {round}");
        assert_whole(&path, &weights);
        assert_eq!(partials(cache.path()), 0);
        fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap();
        server.behave();
        let asked = server.requests();
        let again = asked
            .iter()
            .filter(|r| r.contains("/storage/") && r.contains(" bytes="));
        assert!(again.count() > 0, "nothing was gone on with");
    }
}

#[test]
fn a_server_without_ranges_or_lengths_is_begun_with_again() {
    let (weights, server, hub, cache) = model();
    server.fail("/storage/", Fault::Cut(200_000), 1);
    server.fail("/storage/", Fault::NoRanges, 1);
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
    fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap();

    server.fail("/storage/", Fault::NoLength, 1);
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
    fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap();

    // One that always cuts and knows no ranges is given up.
    server.fail("/storage/", Fault::Cut(1000), usize::MAX);
    let begin = Instant::now();
    server.fail("/resolve/", Fault::NoRanges, usize::MAX);
    let result = hub.fetch("owner/name");
    // Ranges are known here, so it comes to its end in pieces of 1000 bytes.
    assert_whole(&result.unwrap(), &weights);
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn an_unusable_range_begins_again() {
    for range in [
        "Content-Range: bytes 7-299999/300000",
        "Content-Range: bytes 199990-299999/300000",
        "",
        "Content-Type: multipart/byteranges; boundary=X",
        "Content-Range: nothing",
    ] {
        let (weights, server, hub, _cache) = model();
        server.fail("/storage/", Fault::Cut(200_000), 1);
        server.fail("/storage/", Fault::ContentRange(range), 1);
        assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
        let asked = server.requests();
        let ranges: Vec<bool> = asked
            .iter()
            .filter(|request| request.contains("/storage/"))
            .map(|request| request.contains(" bytes="))
            .collect();
        assert_eq!(ranges, [false, true, false], "{range}");
    }
}

#[test]
fn what_is_compressed_without_being_asked_for_is_read() {
    let (weights, server, hub, cache) = model();
    for part in ["/api/", "/config.json", "/storage/"] {
        server.fail(part, Fault::Gzip, usize::MAX);
        assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
        fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap();
        server.behave();
    }
    // After a cut there is no going on: its ranges are those of the compressed content.
    server.fail("/storage/", Fault::Cut(200_000), 1);
    server.fail("/storage/", Fault::Gzip, usize::MAX);
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);

    let error = |hub: &Hub| hub.update("owner/name").unwrap_err().to_string();
    server.behave();
    server.fail(
        "/api/",
        Fault::Status(200, "Content-Encoding: br"),
        usize::MAX,
    );
    assert!(
        error(&hub).contains("compressed by `br`"),
        "{}",
        error(&hub)
    );
    server.behave();
    server.fail(
        "/api/",
        Fault::Status(200, "Content-Encoding: gzip"),
        usize::MAX,
    );
    assert!(
        error(&hub).contains("gzip that cannot be read"),
        "{}",
        error(&hub)
    );
}

#[test]
fn mirrors_with_less_of_the_api_serve_too() {
    for lacks in [
        &["expand"][..],
        &["tree"],
        &["tree", "blobs"],
        &["sums"],
        &["expand", "tree", "blobs"],
    ] {
        let (weights, server, hub, cache) = model();
        server.state().lacks = lacks.to_vec();
        assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
        let asked = server.requests();
        let heads = asked.iter().filter(|r| r.starts_with("HEAD ")).count();
        let is_named = lacks.contains(&"blobs") || lacks.contains(&"sums");
        assert_eq!(heads, if is_named { 2 } else { 0 }, "{lacks:?}: {asked:?}");
        // The listing is kept, and the sums in it hold.
        assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
        assert_eq!(server.requests(), [""; 0]);
        fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap();
        server.fail("/storage/", Fault::WrongContent, usize::MAX);
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(matches!(error, Error::WrongHash { .. }), "{error}");
    }
    // Where nothing tells a sum, nothing is fetched.
    let (_, server, hub, _cache) = model();
    server.state().lacks = vec!["sums"];
    server.fail("/resolve/", Fault::Status(200, ""), usize::MAX);
    let error = hub.fetch("owner/name").unwrap_err().to_string();
    assert!(error.contains("names no sum"), "{error}");
    // What is not there is not looked for in other ways.
    let error = hub.fetch("owner/other").unwrap_err();
    assert!(
        matches!(&error, Error::NotFound { what, .. } if what == "repository"),
        "{error}"
    );
}

#[test]
fn a_listing_whose_pages_go_round_is_ended() {
    let (_, server, hub, _cache) = model();
    let files = [
        ("a", "1"),
        ("b", "2"),
        ("config.json", "{}"),
        ("model.safetensors", "3"),
    ];
    server.add("owner/name", &files);
    let next = format!("Link: </api/models/owner/name/tree/{MAIN}?recursive=true>; rel=\"next\"");
    server.fail("/tree/", Fault::Header(next), usize::MAX);
    let error = hub.fetch("owner/name").unwrap_err().to_string();
    assert!(error.contains("without an end"), "{error}");
    assert!(server.requests().len() < 5);
}

#[test]
fn an_id_without_an_owner_leads_to_whom_it_belongs_to() {
    let (weights, server, hub, cache) = model();
    server.state().moved = [("name", "owner/name")].into();
    for id in ["name", "name@v1", &format!("name@{MAIN}")] {
        assert_whole(&hub.fetch(id).unwrap(), &weights);
        assert!(cache.path().join("models--name").is_dir());
        server.requests();
        let path = hub.fetch(id).unwrap();
        assert_eq!(server.requests(), [""; 0], "{id}");
        assert_whole(&path, &weights);
        hub.remove("name").unwrap();
    }
    assert_whole(
        &hub.fetch(&format!("{}/owner/name/tree/v1", server.endpoint))
            .unwrap(),
        &weights,
    );
    assert!(cache.path().join("models--owner--name/refs/v1").is_file());
}

#[test]
fn a_rate_limit_that_lasts_is_told() {
    let (_, server, hub, _cache) = model();
    server.fail(
        "/api/",
        Fault::Status(429, "RateLimit: \"api\";r=0;t=271"),
        usize::MAX,
    );
    let begin = Instant::now();
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(error.to_string().contains("271 s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_damaged_copy_is_thrown_away_and_fetched_again_once() {
    for fault in [
        Fault::WrongContent,
        Fault::Shorter(10),
        Fault::Longer(10),
        Fault::Html,
    ] {
        let (weights, server, hub, cache) = model();
        server.fail("/storage/", fault.clone(), 1);
        assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
        fs::remove_dir_all(cache.path().join("models--owner--name")).unwrap();

        server.fail("/storage/", fault.clone(), usize::MAX);
        server.requests();
        let error = hub.fetch("owner/name").unwrap_err();
        let is_right = match fault {
            Fault::WrongContent => matches!(error, Error::WrongHash { .. }),
            _ => matches!(error, Error::WrongSize { .. }),
        };
        assert!(is_right, "{fault:?}: {error:?}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        let asked = server.requests();
        assert_eq!(asked.iter().filter(|r| r.contains("/storage/")).count(), 2);
        assert_eq!(partials(cache.path()), 0, "{fault:?}");
        server.behave();
        assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
    }
}

#[test]
fn small_files_are_verified_too() {
    let (weights, server, hub, _cache) = model();
    server.fail("/config.json", Fault::WrongContent, 1);
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
}

#[test]
fn an_old_beginning_of_another_content_is_found_out() {
    let (weights, server, hub, cache) = model();
    let blobs = cache.path().join("models--owner--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    for length in [1000, LENGTH, LENGTH + 5] {
        let partial = blobs.join(format!("{}.incomplete", server::sha256(&weights)));
        fs::write(&partial, vec![0; length]).unwrap();
        let path = hub.fetch("owner/name").unwrap();
        assert_whole(&path, &weights);
        hub.remove("owner/name").unwrap();
        fs::create_dir_all(&blobs).unwrap();
    }
    // A right one is gone on with.
    let partial = blobs.join(format!("{}.incomplete", server::sha256(&weights)));
    fs::write(&partial, &weights[..LENGTH - 1]).unwrap();
    server.requests();
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
    let asked = server.requests();
    let range = format!(" bytes={}-", LENGTH - 1);
    assert!(asked.iter().any(|r| r.ends_with(&range)), "{asked:?}");
}

#[test]
fn trouble_of_the_server_passes() {
    let (weights, server, hub, _cache) = model();
    server.fail("/revision/", Fault::Status(500, ""), 2);
    server.fail("/tree/", Fault::Cut(10), 1);
    server.fail("/tree/", Fault::Status(502, ""), 1);
    server.fail("/resolve/", Fault::Status(504, ""), 1);
    server.fail(
        "/storage/",
        Fault::Slow(50_000, Duration::from_millis(20)),
        1,
    );
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
    assert_eq!(server.planned(), 0);
}

#[test]
fn a_silent_connection_is_given_up_and_gone_on_with() {
    let (weights, server, mut hub, _cache) = model();
    hub.timeout = Duration::from_millis(300);
    server.fail("/storage/", Fault::Stall(100_000), 1);
    server.fail("/tree/", Fault::Stall(0), 1);
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
}

#[test]
fn answers_that_are_none_are_told() {
    let (_, server, hub, _cache) = model();
    for part in ["/revision/", "/tree/"] {
        server.fail(part, Fault::Html, 1);
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(matches!(error, Error::UnexpectedAnswer { .. }), "{error:?}");
        assert!(error.to_string().contains("HTML"), "{error}");

        server.fail(part, Fault::Shorter(5), 1);
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(matches!(error, Error::UnexpectedAnswer { .. }), "{error:?}");
        assert!(error.to_string().contains("JSON"), "{error}");

        server.fail(part, Fault::BigHeader(8 << 20), usize::MAX);
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(matches!(error, Error::Network { .. }), "{error:?}");
        server.behave();
    }
}

#[test]
fn a_listing_is_not_believed() {
    let (_, server, hub, cache) = model();
    let listing = |item: &str| {
        let path = format!("/api/models/owner/name/tree/{MAIN}");
        server.set_other(&path, format!("[{item}]").as_bytes());
    };
    let sum = "a".repeat(64);
    for item in [
        r#"{"type": "file", "path": "config.json", "size": 1, "oid": "../../x"}"#.to_owned(),
        format!(
            r#"{{"type": "file", "path": "../m.safetensors", "size": 1, "oid": "{}"}}"#,
            &sum[..40]
        ),
        format!(
            r#"{{"type": "file", "path": "m.safetensors", "size": 1, "oid": "{}", "lfs": {{"oid": "/etc/passwd", "size": 1}}}}"#,
            &sum[..40]
        ),
        r#"{"type": "file", "path": 7}"#.to_owned(),
    ] {
        listing(&item);
        let error = hub.fetch("owner/name").unwrap_err();
        let is_told = matches!(
            error,
            Error::Malformed { .. } | Error::UnsafeName { .. } | Error::UnexpectedAnswer { .. }
        );
        assert!(is_told, "{item}: {error:?}");
        assert!(!cache.path().join("models--owner--name/snapshots").exists());
    }
    // A length that no disk has is not allocated.
    listing(&format!(
        r#"{{"type": "file", "path": "model.safetensors", "size": {}, "oid": "{}"}}"#,
        u64::MAX,
        &sum[..40]
    ));
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error:?}");
}

#[test]
fn redirects_end() {
    let (_, server, hub, _cache) = model();
    let status = Fault::Status(302, "Location: /owner/name/resolve/main/config.json");
    server.fail("/resolve/", status, usize::MAX);
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
}

#[test]
fn the_cause_of_a_failure_is_told() {
    let (_, _, mut hub, _cache) = model();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    hub.endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Not HTTP at all.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
    for endpoint in ["no address", "mailto:x", "ftp://host"] {
        hub.endpoint = endpoint.to_owned();
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let (weights, _, hub, cache) = model();
    let blobs = cache.path().join("models--owner--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", server::sha256(&weights)));
    // Whatever is written there finds the disk full.
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("salamander hub gc"), "{error}");
    fs::remove_file(&partial).unwrap();
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
}

#[test]
fn progress_is_heard_and_shards_come_at_the_same_time() {
    let shards: Vec<(String, Vec<u8>)> = (1..=4)
        .map(|n| {
            (
                format!("model-0000{n}-of-00004.safetensors"),
                noise(50_000, n),
            )
        })
        .collect();
    let map: Vec<String> = shards
        .iter()
        .enumerate()
        .map(|(index, (name, _))| format!("\"t{index}\": \"{name}\""))
        .collect();
    let index = format!("{{\"weight_map\": {{{}}}}}", map.join(", "));
    let mut files = vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.into_bytes()),
    ];
    files.extend(
        shards
            .iter()
            .map(|(name, content)| (&**name, content.clone())),
    );
    let server = Server::new(&files);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(cache.path());
    hub.endpoint = server.endpoint.clone();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    hub.progress = Progress::new(move |event| hearing.lock().unwrap().push(format!("{event:?}")));
    // Each shard takes 10 × 60 ms.
    server.fail("/storage/", Fault::Slow(5000, Duration::from_millis(60)), 4);
    let begin = Instant::now();
    let path = hub.fetch("owner/name").unwrap();
    let took = begin.elapsed();
    assert!(
        took < Duration::from_millis(1800),
        "one after the other: {took:?}"
    );
    for (name, content) in &shards {
        assert!(fs::read(path.join(name)).unwrap() == *content);
    }
    let heard = heard.lock().unwrap();
    let count = |what: &str| heard.iter().filter(|event| event.starts_with(what)).count();
    assert_eq!(count("Planned"), 1, "{heard:?}");
    let planned = heard
        .iter()
        .find(|event| event.starts_with("Planned"))
        .unwrap();
    // The index was fetched before, to know the shards.
    assert!(planned.contains("files: 5, bytes: 200002"), "{planned}");
    assert_eq!((count("Started"), count("Finished")), (6, 6), "{heard:?}");
    assert!(
        heard
            .iter()
            .any(|e| e.contains("Advanced") && e.contains("done: 50000"))
    );
}

#[test]
fn a_fetch_can_be_cancelled_and_gone_on_with() {
    let (weights, server, mut hub, cache) = model();
    for fault in [
        Fault::Stall(100_000),
        Fault::Slow(1000, Duration::from_millis(50)),
        Fault::Status(503, "Retry-After: 30"),
    ] {
        hub.cancel = Cancel::new();
        server.fail("/storage/", fault.clone(), 1);
        let cancel = hub.cancel.clone();
        let begin = Instant::now();
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel();
        });
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(
            matches!(error, Error::Cancelled { .. }),
            "{fault:?}: {error:?}"
        );
        assert!(begin.elapsed() < Duration::from_secs(2), "{fault:?}");
        canceller.join().unwrap();
        server.behave();
    }
    assert_eq!(partials(cache.path()), 1);
    hub.cancel = Cancel::new();
    assert_whole(&hub.fetch("owner/name").unwrap(), &weights);
}

#[test]
fn a_lock_of_another_process_is_waited_for() {
    let (weights, _, mut hub, cache) = model();
    let lock = format!(
        ".locks/models--owner--name/{}.lock",
        server::sha256(&weights)
    );
    let lock = cache.path().join(lock);
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let waits = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&waits);
    hub.progress = Progress::new(move |event| {
        if let salamander_hub::Event::Waiting {
            wait: Wait::OtherProcess,
            ..
        } = event
        {
            *counting.lock().unwrap() += 1;
        }
    });
    let fetching = std::thread::spawn(move || hub.fetch("owner/name"));
    std::thread::sleep(Duration::from_millis(400));
    assert!(!fetching.is_finished());
    drop(held);
    assert_whole(&fetching.join().unwrap().unwrap(), &weights);
    assert_eq!(*waits.lock().unwrap(), 1);
}

#[test]
fn a_fetch_may_be_called_from_an_asynchronous_runtime() {
    let (weights, _, hub, _cache) = model();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let path = runtime.block_on(async { hub.fetch("owner/name") }).unwrap();
    assert_whole(&path, &weights);
}
