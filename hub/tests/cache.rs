//! What is done with the models in the cache.
#![allow(clippy::unwrap_used)]

mod server;

use std::fs;
use std::path::Path;
use std::time::Instant;

use salamander_hub::{Error, FileState, GarbageReason, Hub, Search, Sort};
use serde_json::json;
use server::{MAIN, Server, V1, noise};
use tempfile::TempDir;

fn fetched() -> (Server, Hub, TempDir) {
    let server = Server::new(&[
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", noise(1000, 1)),
    ]);
    server.set(V1, "model.safetensors", &noise(2000, 2));
    let cache = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(cache.path());
    hub.endpoint = server.endpoint.clone();
    hub.fetch("owner/name").unwrap();
    hub.fetch("owner/name@v1").unwrap();
    (server, hub, cache)
}

#[test]
fn models_are_listed_with_their_sizes() {
    let (_, hub, cache) = fetched();
    let models = hub.list().unwrap();
    assert_eq!(models.len(), 1);
    let model = &models[0];
    assert_eq!((&*model.id, model.bytes), ("owner/name", 3002));
    let mut revisions: Vec<_> = model
        .revisions
        .iter()
        .map(|r| (&*r.commit, r.refs.join(","), r.files, r.bytes))
        .collect();
    revisions.sort();
    let expected = [
        (MAIN, "main".to_owned(), 2, 1002),
        (V1, "v1".to_owned(), 2, 2002),
    ];
    assert_eq!(revisions, expected);
    assert!(model.modified.elapsed().unwrap().as_secs() < 60);
    let nothing = Hub::new(cache.path().join("nothing"));
    assert_eq!(nothing.list().unwrap(), []);
}

#[test]
fn a_model_or_a_revision_is_removed() {
    let (_, mut hub, cache) = fetched();
    assert_eq!(hub.remove("owner/name@v1").unwrap(), 2000);
    hub.offline = true;
    hub.fetch("owner/name").unwrap();
    let error = hub.fetch("owner/name@v1").unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    assert_eq!(hub.remove("owner/name").unwrap(), 1002);
    assert_eq!(hub.list().unwrap(), []);
    for id in ["owner/name", "owner/other", "owner/name@v1"] {
        let error = hub.remove(id).unwrap_err();
        assert!(matches!(error, Error::NotCached { .. }), "{error}");
    }
    let left: Vec<_> = fs::read_dir(cache.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn garbage_is_told_before_it_is_removed() {
    let (server, hub, cache) = fetched();
    assert_eq!(hub.garbage(true).unwrap(), []);
    let repository = cache.path().join("models--owner--name");
    let blob = repository.join("blobs").join("c".repeat(64));
    fs::write(&blob, "unreferenced").unwrap();
    fs::write(blob.with_extension("incomplete"), "half").unwrap();
    // What is being fetched is none.
    let busy = repository
        .join("blobs")
        .join(format!("{}.incomplete", "d".repeat(64)));
    fs::write(&busy, "busy").unwrap();
    let locks = cache.path().join(".locks/models--owner--name");
    let lock = fs::File::create(locks.join(format!("{}.lock", "d".repeat(64)))).unwrap();
    lock.lock().unwrap();
    // The commit that `main` was.
    server.state().refs.insert("main", V1);
    hub.update("owner/name").unwrap();
    let snapshot = repository.join("snapshots").join(MAIN);

    let mut found: Vec<_> = hub.garbage(true).unwrap();
    found.sort_by_key(|garbage| garbage.bytes);
    let found: Vec<_> = found
        .iter()
        .map(|g| (g.reason, g.bytes, &*g.path))
        .collect();
    let incomplete = blob.with_extension("incomplete");
    let expected = [
        (GarbageReason::Incomplete, 4, &*incomplete),
        (GarbageReason::Unreferenced, 12, &*blob),
        (GarbageReason::Detached, 1000, &*snapshot),
    ];
    assert_eq!(found, expected);
    assert_eq!(hub.garbage(false).unwrap().len(), 2);
    assert_eq!(hub.gc(false).unwrap(), 16);
    assert!(snapshot.is_dir() && busy.is_file() && !blob.exists());
    assert_eq!(hub.gc(true).unwrap(), 1000);
    assert!(!snapshot.exists() && busy.is_file());
    hub.verify("owner/name").unwrap();
    drop(lock);
    assert_eq!(hub.gc(false).unwrap(), 4);
}

#[test]
fn damaged_files_are_found_and_repaired() {
    let (_, hub, _cache) = fetched();
    let path = hub.fetch("owner/name").unwrap();
    let verified = hub.verify("owner/name").unwrap();
    assert_eq!(verified.len(), 4);
    assert!(verified.iter().all(|file| file.state == FileState::Good));

    let blob = fs::canonicalize(path.join("model.safetensors")).unwrap();
    let mut content = fs::read(&blob).unwrap();
    content[500] ^= 1;
    fs::write(&blob, &content).unwrap();
    fs::remove_file(fs::canonicalize(path.join("config.json")).unwrap()).unwrap();
    let states = |id: &str| -> Vec<_> {
        let verified = hub.verify(id).unwrap();
        verified
            .into_iter()
            .map(|file| (file.file, file.state))
            .collect()
    };
    let damaged = [
        ("config.json".to_owned(), FileState::Missing),
        ("model.safetensors".to_owned(), FileState::Damaged),
    ];
    assert_eq!(states("owner/name@main"), damaged);
    hub.repair("owner/name").unwrap();
    let verified = hub.verify("owner/name").unwrap();
    assert!(
        verified.iter().all(|file| file.state == FileState::Good),
        "{verified:?}"
    );
    assert!(fs::read(path.join("model.safetensors")).unwrap() == noise(1000, 1));
}

#[test]
fn a_search_asks_and_lists() {
    let (server, mut hub, _cache) = fetched();
    server.state().found = (0..5)
        .map(|n| json!({"id": format!("o/m{n}"), "downloads": 10 - n, "pipeline_tag": "fill-mask", "likes": 1, "gated": "manual", "new": true}))
        .collect();
    server.requests();
    let search = Search {
        text: "a b&c".to_owned(),
        task: Some("fill-mask".to_owned()),
        library: Some("transformers".to_owned()),
        author: Some("o".to_owned()),
        sort: Sort::Likes,
        limit: 3,
    };
    let found = hub.search(&search).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!((&*found[0].id, found[0].downloads), ("o/m0", 10));
    assert_eq!(found[0].task.as_deref(), Some("fill-mask"));
    assert_eq!(found[0].other["new"], json!(true));
    let expected = "GET /api/models?search=a+b%26c&pipeline_tag=fill-mask&filter=transformers&author=o&sort=likes&direction=-1&limit=3";
    assert_eq!(server.requests(), [expected]);
    hub.offline = true;
    assert!(matches!(hub.search(&search), Err(Error::NotCached { .. })));
}

#[test]
fn a_model_is_shown_online_and_off() {
    let (_, mut hub, _cache) = fetched();
    let shown = hub.show("owner/name").unwrap();
    assert_eq!(shown["commit"], MAIN);
    assert_eq!(shown["hub"]["downloads"], 7);
    let file = &shown["files"][1];
    assert_eq!(file["name"], "model.safetensors");
    assert_eq!(file["bytes"], 1000);
    assert_eq!(file["sha256"], server::sha256(&noise(1000, 1)));
    assert_eq!(file["cached"], true);
    hub.offline = true;
    let offline = hub.show("owner/name").unwrap();
    assert_eq!(offline["files"], shown["files"]);
    assert!(matches!(
        hub.show("owner/other"),
        Err(Error::NotCached { .. })
    ));
}

#[test]
fn a_cached_model_costs_no_request_and_little_time() {
    let (server, hub, _cache) = fetched();
    server.requests();
    let begin = Instant::now();
    let rounds = 100;
    for _ in 0..rounds {
        hub.fetch("owner/name").unwrap();
    }
    let each = begin.elapsed() / rounds;
    assert!(each.as_micros() < 5000, "{each:?}");
    assert_eq!(server.requests(), [""; 0]);
}

/// A cache that another user made, and that cannot be written.
#[cfg(unix)]
#[test]
fn a_cache_need_not_be_writable() {
    use std::os::unix::fs::PermissionsExt;
    let (server, hub, cache) = fetched();
    let repository = cache.path().join("models--owner--name");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&repository, 0o555);
    set(cache.path(), 0o555);
    server.requests();
    hub.fetch("owner/name").unwrap();
    assert_eq!(server.requests(), [""; 0]);
    set(cache.path(), 0o755);
    set(&repository, 0o755);
}
