//! Models fetched from a hub on this machine.
#![allow(clippy::unwrap_used)]

mod server;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use salamander_hub::{Error, Hub};
use server::{Fault, MAIN, Server, V1};
use tempfile::TempDir;

const MODEL: [(&str, &str); 6] = [
    ("README.md", "nothing that is read"),
    ("config.json", "{}"),
    ("model.safetensors", "the weights"),
    ("pytorch_model.bin", "the same weights"),
    ("tokenizer.json", "{\"model\": 1}"),
    ("vocab.txt", "a\nb\n"),
];
const FETCHED: [&str; 4] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocab.txt",
];

fn hub(server: &Server) -> (Hub, TempDir) {
    let cache = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(cache.path());
    hub.endpoint = server.endpoint.clone();
    (hub, cache)
}

/// An address where nothing listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The files below a directory with their contents, links followed, without what is only there while they are
/// fetched.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        let Ok(entries) = fs::read_dir(next) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap();
                let name = name.to_str().unwrap().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn names(directory: &Path) -> Vec<String> {
    files(directory).into_keys().collect()
}

fn resolved(requests: &[String]) -> usize {
    requests.iter().filter(|r| r.contains("/resolve/")).count()
}

#[test]
fn what_is_fetched_is_there_without_a_network() {
    let server = Server::new(&MODEL);
    let (mut hub, cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    let repository = cache.path().join("models--owner--name");
    assert_eq!(path, repository.join("snapshots").join(MAIN));
    assert_eq!(
        fs::read_to_string(repository.join("refs/main")).unwrap(),
        MAIN
    );
    assert_eq!(names(&path), FETCHED);
    let contents = files(&path);
    for (name, content) in MODEL.iter().filter(|(name, _)| FETCHED.contains(name)) {
        assert_eq!(contents[*name], *content);
    }
    assert_eq!(names(&repository.join("blobs")).len(), FETCHED.len());
    assert!(resolved(&server.requests()) > 0);

    hub.offline = true;
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
    assert_eq!(hub.fetch(&format!("owner/name@{MAIN}")).unwrap(), path);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn a_second_fetch_makes_no_request() {
    let server = Server::new(&MODEL);
    let (hub, _cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    assert!(resolved(&server.requests()) > 0);
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
    assert_eq!(server.requests(), [""; 0]);

    // What was lost is fetched again, and what was cut short is replaced.
    fs::remove_file(path.join("vocab.txt")).unwrap();
    fs::write(path.join("config.json"), "{").unwrap();
    hub.fetch("owner/name").unwrap();
    assert_eq!(files(&path)["config.json"], "{}");
    assert_eq!(files(&path)["vocab.txt"], "a\nb\n");
}

#[test]
fn a_branch_stays_until_it_is_updated() {
    let server = Server::new(&MODEL);
    let (mut hub, _cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    server.set(V1, "config.json", b"{\"new\": 1}");
    server.state().refs.insert("main", V1);
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
    let updated = hub.update("owner/name").unwrap();
    assert!(updated.ends_with(V1));
    assert_eq!(files(&updated)["config.json"], "{\"new\": 1}");
    assert_eq!(hub.fetch("owner/name").unwrap(), updated);

    // An update that cannot be asked for is none.
    hub.endpoint = nowhere();
    let error = hub.update("owner/name").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
}

#[test]
fn a_revision_has_its_own_snapshot_and_shares_contents() {
    let server = Server::new(&MODEL);
    server.set(V1, "config.json", b"{\"old\": 1}");
    let (mut hub, cache) = hub(&server);
    hub.fetch("owner/name").unwrap();
    server.requests();
    let path = hub.fetch("owner/name@v1").unwrap();
    assert!(path.ends_with(V1));
    assert_eq!(files(&path)["config.json"], "{\"old\": 1}");
    let requests = server.requests();
    assert!(!requests.iter().any(|r| r.contains("/storage/")));
    let blobs = cache.path().join("models--owner--name/blobs");
    assert_eq!(names(&blobs).len(), FETCHED.len() + 1);

    // A commit is known, so the hub is not asked which one it is.
    assert_eq!(hub.fetch(&format!("owner/name@{V1}")).unwrap(), path);
    assert!(!server.requests().iter().any(|r| r.contains("/revision/")));
    let refs = cache.path().join("models--owner--name/refs");
    assert_eq!(names(&refs), ["main", "v1"]);

    hub.offline = true;
    assert_eq!(hub.fetch("owner/name@v1").unwrap(), path);
    let error = hub.fetch("owner/name@v2").unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
}

#[test]
fn all_shards_of_an_index_are_fetched() {
    let index = r#"{"metadata": {}, "weight_map": {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
        "c": "model-00001-of-00002.safetensors"}}"#;
    let server = Server::new(&[
        ("config.json", "{}"),
        ("consolidated.safetensors", "all of it once more"),
        ("model-00001-of-00002.safetensors", "one"),
        ("model-00002-of-00002.safetensors", "two"),
        ("model.safetensors.index.json", index),
    ]);
    let (mut hub, _cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names(&path), expected);

    // Without one of its shards, the snapshot is not complete.
    fs::remove_file(path.join(expected[2])).unwrap();
    hub.offline = true;
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
}

#[test]
fn the_modules_of_sentence_transformers_are_fetched() {
    let modules = r#"[
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
    let server = Server::new(&[
        ("1_Pooling/config.json", "{\"pooling\": 1}"),
        ("2_Dense/config.json", "{\"dense\": 1}"),
        ("2_Dense/model.safetensors", "the dense layer"),
        ("2_Dense/pytorch_model.bin", "the dense layer"),
        ("config.json", "{}"),
        ("config_sentence_transformers.json", "{\"version\": 1}"),
        ("model.safetensors", "the encoder"),
        ("modules.json", modules),
        ("onnx/config.json", "{\"onnx\": 1}"),
        ("onnx/model.onnx", "the encoder"),
        ("sentence_bert_config.json", "{\"length\": 1}"),
    ]);
    let (mut hub, _cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    let expected = [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
    ];
    assert_eq!(names(&path), expected);
    hub.offline = true;
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
}

#[test]
fn other_formats_are_fetched_where_there_is_no_safetensors() {
    let files = [
        ("config.json", "{}"),
        ("pytorch_model.bin", "weights"),
        ("model.onnx", ""),
    ];
    let server = Server::new(&files);
    let (hub, _cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    assert_eq!(names(&path), ["config.json", "pytorch_model.bin"]);
}

#[test]
fn no_weights_are_told_before_anything_is_fetched() {
    let server = Server::new(&[("config.json", "{}"), ("rust_model.ot", "weights")]);
    let (hub, cache) = hub(&server);
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::NoWeights { .. }), "{error}");
    assert!(error.to_string().contains("rust_model.ot"), "{error}");
    assert_eq!(names(cache.path()), [""; 0]);
}

#[test]
fn patterns_choose_among_several_weights() {
    let files = [
        ("config.json", "{}"),
        ("m.Q4_0.gguf", "four"),
        ("m.Q8_0.gguf", "eight"),
    ];
    let server = Server::new(&files);
    let (hub, _cache) = hub(&server);
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(
        error.to_string().contains("m.Q4_0.gguf, m.Q8_0.gguf"),
        "{error}"
    );
    let path = hub
        .fetch_files("owner/name", &["*.json", "*Q4_?.gguf"])
        .unwrap();
    assert_eq!(names(&path), ["config.json", "m.Q4_0.gguf"]);
    let error = hub.fetch_files("owner/name", &["*.bin"]).unwrap_err();
    assert!(matches!(error, Error::NoMatch { .. }), "{error}");
    assert!(error.to_string().contains("m.Q8_0.gguf"), "{error}");
}

#[test]
fn a_mirror_is_asked_for_its_own_pages() {
    let server = Server::new(&MODEL);
    server.state().next_at = Some("https://hub.invalid");
    let (hub, _cache) = hub(&server);
    assert_eq!(names(&hub.fetch("owner/name").unwrap()), FETCHED);
}

#[test]
fn the_token_is_sent_if_there_is_one_and_only_then() {
    let server = Server::new(&MODEL);
    let (mut hub, _cache) = hub(&server);
    hub.token = Some("hf_secret".to_owned());
    assert!(!format!("{hub:?}").contains("secret"));
    hub.fetch("owner/name").unwrap();
    let sent = |r: &String| r.ends_with(" Bearer hf_secret");
    // Large files are on another host, which the token does not go to.
    let requests = server.requests();
    for request in &requests {
        assert_eq!(sent(request), !request.contains("/storage/"), "{request}");
    }
    assert!(requests.iter().any(|r| r.contains("/storage/")));

    hub.token = None;
    hub.fetch("owner/name@v1").unwrap();
    assert!(!server.requests().iter().any(|r| r.contains("Bearer")));
}

#[test]
fn an_unknown_repository_or_revision_is_not_found() {
    let server = Server::new(&MODEL);
    let (hub, cache) = hub(&server);
    let commit = format!("owner/name@{}", "3".repeat(40));
    for id in ["owner/other", "owner/name@v2", &commit] {
        let error = hub.fetch(id).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains(id) && message.contains("HF_TOKEN"),
            "{message}"
        );
        assert!(error.source().is_some());
    }
    assert_eq!(names(cache.path()), [""; 0]);
}

#[test]
fn refused_access_says_what_to_do() {
    for (status, part) in [
        (401, "/api/"),
        (403, "/tree/"),
        (401, "/resolve/"),
        (403, "/resolve/"),
    ] {
        let server = Server::new(&MODEL);
        server.fail(part, Fault::Status(status, ""), usize::MAX);
        let (hub, cache) = hub(&server);
        let error = hub.fetch("owner/name").unwrap_err();
        let Error::AccessRefused { status: found, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*found, status);
        let message = error.to_string();
        let page = format!("{}/owner/name", hub.endpoint);
        for word in ["owner/name", "terms", "HF_TOKEN", &page] {
            assert!(message.contains(word), "{message}");
        }
        let left = names(cache.path());
        assert!(
            left.iter()
                .all(|name| name.ends_with(".lock") || name.contains("/trees/")),
            "{left:?}"
        );
    }
}

#[test]
fn each_refusal_is_its_own_error() {
    let server = Server::new(&MODEL);
    let (mut hub, _cache) = hub(&server);
    type Is = fn(&Error) -> bool;
    let cases: [(u16, &str, Is, &str); 6] = [
        (
            401,
            "X-Error-Code: RepoNotFound",
            |e| matches!(e, Error::NotFound { .. }),
            "repository",
        ),
        (
            404,
            "X-Error-Code: RevisionNotFound",
            |e| matches!(e, Error::NotFound { .. }),
            "revision",
        ),
        (
            404,
            "X-Error-Code: EntryNotFound",
            |e| matches!(e, Error::NotFound { .. }),
            "file",
        ),
        (
            403,
            "X-Error-Code: GatedRepo",
            |e| matches!(e, Error::Gated { .. }),
            "accept its terms",
        ),
        (
            407,
            "",
            |e| matches!(e, Error::ProxyRefused { .. }),
            "HTTPS_PROXY",
        ),
        (
            418,
            "",
            |e| matches!(e, Error::Network { .. }),
            "connection",
        ),
    ];
    for (status, header, is, said) in cases {
        server.behave();
        server.fail("/api/", Fault::Status(status, header), usize::MAX);
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(is(&error), "{status} {header}: {error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    server.behave();
    server.state().token = Some("right");
    for token in [Some("wrong"), None, Some("no\nheader")] {
        hub.token = token.map(str::to_owned);
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(matches!(error, Error::InvalidToken { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
    hub.token = Some("right".to_owned());
    hub.fetch("owner/name").unwrap();
}

#[test]
fn a_limited_rate_is_waited_for_as_long_as_there_is_patience() {
    let server = Server::new(&MODEL);
    let (mut hub, _cache) = hub(&server);
    hub.patience = Duration::from_secs(5);
    server.fail("/api/", Fault::Status(429, "Retry-After: 7"), usize::MAX);
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::RateLimited { .. }), "{error:?}");
    assert!(error.to_string().contains("again in 7 s"), "{error}");

    server.behave();
    server.fail("/api/", Fault::Status(429, "Retry-After: 1"), 1);
    server.fail("/storage/", Fault::Status(503, "Retry-After: 0"), 2);
    let begin = Instant::now();
    let path = hub.fetch("owner/name").unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.planned(), 0);
    assert_eq!(names(&path), FETCHED);
}

#[test]
fn names_that_leave_the_cache_are_refused() {
    for name in [
        "../config.json",
        "../../evil.safetensors",
        "/tmp/config.json",
        "..\\config.json",
    ] {
        let server = Server::new(&MODEL);
        server.set(MAIN, name, b"evil");
        let (hub, cache) = hub(&server);
        let error = hub.fetch("owner/name").unwrap_err();
        let Error::UnsafeName { name: found, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(found, name);
        assert_eq!(resolved(&server.requests()), 0);
        assert_eq!(names(cache.path()), [""; 0]);
    }
}

#[test]
fn an_unreachable_hub_leaves_the_cache() {
    let server = Server::new(&MODEL);
    let (mut hub, _cache) = hub(&server);
    let path = hub.fetch("owner/name").unwrap();
    hub.endpoint = nowhere();
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
    assert_eq!(hub.fetch(&format!("owner/name@{MAIN}")).unwrap(), path);

    let error = hub.fetch("owner/name@v1").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("owner/name@v1") && message.contains(&hub.endpoint),
        "{message}"
    );
    assert!(error.source().is_some());

    // The same goes for a hub that is in trouble itself.
    hub.endpoint = server.endpoint.clone();
    server.fail("/api/", Fault::Status(503, ""), usize::MAX);
    assert_eq!(hub.fetch("owner/name").unwrap(), path);

    // Without a listing, as older tools leave it, what is there is taken; else the hub completes it.
    fs::remove_dir_all(path.parent().unwrap().parent().unwrap().join("trees")).unwrap();
    fs::remove_file(path.join("vocab.txt")).unwrap();
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
    assert!(!path.join("vocab.txt").exists());
    server.behave();
    assert_eq!(hub.fetch("owner/name").unwrap(), path);
    assert!(path.join("vocab.txt").exists());
}

#[test]
fn what_came_before_a_failure_is_gone_on_with() {
    let weights = server::noise(100_000, 1);
    let server = Server::new(&[
        ("config.json", &b"{}"[..]),
        ("model.safetensors", &weights[..]),
    ]);
    server.fail("/storage/", Fault::Cut(60_000), 1);
    server.fail("/storage/", Fault::Status(500, ""), usize::MAX);
    let (mut hub, cache) = hub(&server);
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error:?}");
    let repository = cache.path().join("models--owner--name");
    assert!(
        !repository
            .join("snapshots")
            .join(MAIN)
            .join("model.safetensors")
            .exists()
    );
    assert!(!repository.join("refs").exists());

    // Neither is it taken for the model later, and a second attempt completes it.
    hub.offline = true;
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    hub.offline = false;
    server.behave();
    server.requests();
    let path = hub.fetch("owner/name").unwrap();
    assert!(fs::read(path.join("model.safetensors")).unwrap() == weights);
    let requests = server.requests();
    assert!(
        requests.iter().any(|r| r.ends_with(" bytes=60000-")),
        "{requests:?}"
    );
}

#[test]
fn fetches_at_the_same_time_do_not_disturb_each_other() {
    let server = Server::new(&MODEL);
    let (hub, _cache) = hub(&server);
    let paths: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| hub.fetch("owner/name")))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap().unwrap())
            .collect()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert_eq!(names(&paths[0]), FETCHED);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = Server::new(&MODEL);
    let (mut hub, cache) = hub(&server);
    hub.cache = cache.path().join("file");
    fs::write(&hub.cache, "no directory").unwrap();
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(
        error.to_string().contains(hub.cache.to_str().unwrap()),
        "{error}"
    );
}
