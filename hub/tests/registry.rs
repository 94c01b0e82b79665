//! Registries in files and on a server.
#![allow(clippy::unwrap_used)]

mod server;

use std::fs;

use salamander_hub::registry::{Query, Registry, SortBy};
use salamander_hub::{Error, Hub};
use serde_json::{Value, json};
use server::{Fault, Server, noise, sha256};

fn index(url: &str, weights: &[u8]) -> Value {
    let model = |name: &str, version: &str, downloads: u64, accuracy: f64| {
        json!({
            "name": name, "version": version, "author": "Ada", "license": "MIT",
            "description": "Says what a text feels", "category": "text", "architecture": "bert",
            "task": "text-classification", "parameters": 10, "downloads": downloads,
            "metrics": {"accuracy": accuracy}, "homepage": "kept",
            "files": [{"name": "sub/model.safetensors", "url": url, "bytes": weights.len(), "sha256": sha256(weights)}],
        })
    };
    let mut vision = model("eye", "0.1.0", 100, 0.7);
    vision["category"] = json!("vision");
    vision["task"] = json!("image-classification");
    vision["files"] = json!([]);
    json!({"version": 1, "models": [
        model("ada/feel", "1.2.0", 5, 0.8),
        model("ada/feel", "1.10.0", 5, 0.9),
        model("ada/feel", "2.0.0-beta.1", 1, 0.95),
        model("plain", "0.3.1", 50, 0.5),
        vision,
    ]})
}

#[test]
fn models_are_found_by_words_fields_and_versions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.json");
    fs::write(&path, index("x", b"").to_string()).unwrap();
    let registry = Registry::open(&path).unwrap();
    let names = |query: Query| -> Vec<String> {
        let found = registry.search(&query);
        found
            .iter()
            .map(|m| format!("{} {}", m.name, m.version))
            .collect()
    };
    assert_eq!(
        names(Query::default()),
        ["eye 0.1.0", "plain 0.3.1", "ada/feel 2.0.0-beta.1"]
    );
    let text = Query {
        text: "FEELS ada".to_owned(),
        category: Some("Text".to_owned()),
        ..Query::default()
    };
    assert_eq!(
        names(text.clone()),
        ["plain 0.3.1", "ada/feel 2.0.0-beta.1"]
    );
    let limited = Query {
        limit: Some(1),
        sort: SortBy::Metric("accuracy".to_owned()),
        ..text.clone()
    };
    assert_eq!(names(limited), ["ada/feel 2.0.0-beta.1"]);
    let all = Query {
        all_versions: true,
        sort: SortBy::Name,
        text: "feel".to_owned(),
        task: Some("text-classification".to_owned()),
        ..Query::default()
    };
    assert_eq!(
        names(all),
        [
            "ada/feel 2.0.0-beta.1",
            "ada/feel 1.10.0",
            "ada/feel 1.2.0",
            "plain 0.3.1"
        ]
    );
    assert_eq!(
        names(Query {
            license: Some("gpl".to_owned()),
            ..Query::default()
        }),
        [""; 0]
    );

    let version = |name: &str| registry.get(name).map(|model| model.version.to_string());
    assert_eq!(version("ada/feel").unwrap(), "1.10.0");
    assert_eq!(version("ada/feel@1.2").unwrap(), "1.10.0");
    assert_eq!(version("ada/feel@=1.2.0").unwrap(), "1.2.0");
    assert_eq!(version("ada/feel@~1.2").unwrap(), "1.2.0");
    assert_eq!(version("ada/feel@2.0.0-beta").unwrap(), "2.0.0-beta.1");
    for (name, part) in [
        ("none", "no model"),
        ("ada/feel@3", "1.2.0, 1.10.0"),
        ("plain@x.y", "no version"),
    ] {
        let error = version(name).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // What is read is written, unknown fields too.
    let again: Value = serde_json::from_str(&registry.to_json().unwrap()).unwrap();
    assert_eq!(again, index("x", b""));
}

#[test]
fn an_index_that_is_none_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.json");
    let mut escaping = index("x", b"");
    escaping["models"][0]["files"][0]["name"] = json!("../x");
    let mut unsummed = index("x", b"");
    unsummed["models"][0]["files"][0]["sha256"] = json!("12");
    let mut name = index("x", b"");
    name["models"][0]["name"] = json!("../../x");
    for text in [
        "{".to_owned(),
        "{\"version\": 2, \"models\": []}".to_owned(),
        escaping.to_string(),
        unsummed.to_string(),
        name.to_string(),
    ] {
        fs::write(&path, &text).unwrap();
        let error = Registry::open(&path).unwrap_err();
        let is_told = matches!(error, Error::Malformed { .. } | Error::UnsafeName { .. });
        assert!(is_told, "{error:?}");
    }
}

#[test]
fn a_served_index_is_asked_for_only_as_far_as_it_changed() {
    let weights = noise(5000, 4);
    let server = Server::new::<&str>(&[]);
    let index_of = |name| index(name, &weights).to_string();
    server.set_other("/models/index.json", index_of("files/m.bin").as_bytes());
    server.set_other("/models/files/m.bin", &weights);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(cache.path());
    hub.endpoint = server.endpoint.clone();
    let url = format!("{}/models/index.json", server.endpoint);
    let first = hub.registry(&url).unwrap();
    assert_eq!(hub.registry(&url).unwrap(), first);

    let directory = hub.fetch_registered(&first, "ada/feel@1").unwrap();
    assert!(directory.ends_with("ada/feel/1.10.0"));
    assert!(fs::read(directory.join("sub/model.safetensors")).unwrap() == weights);
    server.requests();
    assert_eq!(
        hub.fetch_registered(&first, "ada/feel@1").unwrap(),
        directory
    );
    assert_eq!(server.requests(), [""; 0]);

    // A damaged copy is not taken.
    server.fail("/m.bin", Fault::WrongContent, usize::MAX);
    let error = hub.fetch_registered(&first, "plain").unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error:?}");
    server.behave();

    // A change is seen, and a server in trouble is not waited for.
    let mut changed = index("files/m.bin", &weights);
    changed["models"][0]["downloads"] = json!(9);
    server.set_other("/models/index.json", changed.to_string().as_bytes());
    assert_eq!(hub.registry(&url).unwrap().models[0].downloads, 9);
    server.fail("/index.json", Fault::Status(500, ""), usize::MAX);
    assert_eq!(hub.registry(&url).unwrap().models[0].downloads, 9);
    hub.offline = true;
    assert_eq!(hub.registry(&url).unwrap().models[0].downloads, 9);
    assert!(matches!(
        hub.registry("http://localhost/none"),
        Err(Error::NotCached { .. })
    ));
}

#[test]
fn a_local_registry_has_its_files_beside_it() {
    let weights = noise(5000, 4);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.json");
    fs::write(&path, index("m.bin", &weights).to_string()).unwrap();
    fs::write(directory.path().join("m.bin"), &weights).unwrap();
    let hub = Hub::new(directory.path().join("cache"));
    let registry = hub.registry(path.to_str().unwrap()).unwrap();
    let model = hub.fetch_registered(&registry, "plain").unwrap();
    assert!(fs::read(model.join("sub/model.safetensors")).unwrap() == weights);
    fs::write(directory.path().join("m.bin"), noise(5000, 5)).unwrap();
    let error = hub.fetch_registered(&registry, "ada/feel").unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error:?}");
}
