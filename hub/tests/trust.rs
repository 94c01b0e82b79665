//! Lock files, signatures and the audit file.
#![allow(clippy::unwrap_used)]

mod server;

use std::fs;
use std::path::Path;

use salamander_hub::{Error, Hub, PublicKey, SecretKey, verify_signature};
use serde_json::Value;
use server::{MAIN, Server, V1, noise};
use tempfile::TempDir;

fn model() -> (Server, Hub, TempDir) {
    let server = Server::new(&[
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", noise(1000, 1)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(cache.path().join("hub"));
    hub.endpoint = server.endpoint.clone();
    (server, hub, cache)
}

#[test]
fn a_lock_file_pins_commit_and_sums() {
    let (server, mut hub, cache) = model();
    let lock = cache.path().join("salamander.lock");
    let locked = hub.lock("owner/name", &lock).unwrap();
    assert_eq!((&*locked.revision, &*locked.commit), ("main", MAIN));
    assert_eq!(locked.files["config.json"], server::sha256(b"{}"));
    let text = fs::read_to_string(&lock).unwrap();
    assert!(
        text.contains("id = \"owner/name\"") && text.contains(MAIN),
        "{text}"
    );

    // What the branch has become does not matter, on this machine or a new one.
    server.set(V1, "model.safetensors", &noise(1000, 2));
    server.state().refs.insert("main", V1);
    for cache in [hub.cache.clone(), cache.path().join("other")] {
        let mut hub = hub.clone();
        hub.cache = cache;
        hub.lock_file = Some(lock.clone());
        let path = hub.fetch("owner/name").unwrap();
        assert!(path.ends_with(MAIN));
        assert_eq!(hub.fetch(&format!("owner/name@{MAIN}")).unwrap(), path);
        // An update says what has changed.
        let error = hub.update("owner/name").unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error:?}");
        let said = error.to_string();
        for word in [
            MAIN,
            V1,
            "`model.safetensors` changed to",
            "hub lock owner/name",
        ] {
            assert!(said.contains(word), "{said}");
        }
        assert!(!said.contains("`config.json`"), "{said}");
        for id in ["owner/other", "owner/name@v1"] {
            let error = hub.fetch(id).unwrap_err();
            assert!(error.to_string().contains("does not pin"), "{error}");
        }
    }
    // To pin anew is to take the change.
    let again = hub.lock("owner/name", &lock).unwrap();
    assert_eq!(again.commit, V1);
    hub.lock_file = Some(lock.clone());
    assert!(hub.update("owner/name").unwrap().ends_with(V1));
    hub.lock_file = None;
    hub.lock("owner/name@v1", &lock).unwrap();
    let text = fs::read_to_string(&lock).unwrap();
    assert_eq!(text.matches("[[model]]").count(), 2, "{text}");
}

#[test]
fn a_content_that_is_not_the_pinned_one_is_an_error() {
    let (server, mut hub, cache) = model();
    let lock = cache.path().join("salamander.lock");
    hub.lock("owner/name", &lock).unwrap();
    hub.lock_file = Some(lock.clone());
    // A hub that gives something else under the same commit.
    server.set(MAIN, "config.json", b"{\"evil\": 1}");
    server.set(MAIN, "vocab.txt", b"added");
    hub.cache = cache.path().join("other");
    let error = hub.fetch("owner/name").unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("`config.json` has the sum"), "{said}");
    assert!(said.contains("`vocab.txt` was added"), "{said}");

    for (text, part) in [
        ("version = 2", "version 2"),
        ("model = 1", "salamander hub lock"),
        ("[[", "salamander hub lock"),
    ] {
        fs::write(&lock, text).unwrap();
        let error = hub.fetch("owner/name").unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    fs::remove_file(&lock).unwrap();
    assert!(matches!(hub.fetch("owner/name"), Err(Error::Io { .. })));
}

#[test]
fn a_pinned_key_wants_a_signature() {
    let (server, mut hub, cache) = model();
    let key = SecretKey::generate(&cache.path().join("key")).unwrap();
    let other = SecretKey::generate(&cache.path().join("other")).unwrap();
    assert_eq!(
        SecretKey::read(&cache.path().join("key")).unwrap().public(),
        key.public()
    );
    assert!(SecretKey::generate(&cache.path().join("key")).is_err());
    assert!(
        !format!("{key:?}").contains(fs::read_to_string(cache.path().join("key")).unwrap().trim())
    );

    // The authors' directory.
    let directory = cache.path().join("model");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("config.json"), "{}").unwrap();
    fs::write(directory.join("model.safetensors"), noise(1000, 1)).unwrap();
    assert_eq!(key.sign(&directory).unwrap(), 2);
    verify_signature(&directory, &[other.public(), key.public()]).unwrap();

    hub.keys = vec![("owner".to_owned(), key.public())];
    let not_trusted = |hub: &Hub, part: &str| {
        let error = hub.fetch("owner/name").unwrap_err();
        assert!(matches!(error, Error::NotTrusted { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    };
    not_trusted(&hub, "not signed");
    let sums = fs::read(directory.join("SHA256SUMS")).unwrap();
    let signature = fs::read(directory.join("SHA256SUMS.sig")).unwrap();
    // Now the hub has it, too: another commit, for a commit does not change.
    for (name, content) in [("SHA256SUMS", &sums), ("SHA256SUMS.sig", &signature)] {
        server.set(V1, name, content);
    }
    let signed = hub.fetch("owner/name@v1").unwrap();
    assert!(signed.join("SHA256SUMS.sig").exists());
    // And each time that it is opened.
    let weights = fs::canonicalize(signed.join("model.safetensors")).unwrap();
    let content = fs::read(&weights).unwrap();
    fs::write(&weights, noise(1000, 5)).unwrap();
    let error = hub.fetch("owner/name@v1").unwrap_err().to_string();
    assert!(error.contains("`model.safetensors` has the sum"), "{error}");
    fs::write(&weights, content).unwrap();

    hub.keys = vec![("owner/name".to_owned(), other.public())];
    let error = hub.fetch("owner/name@v1").unwrap_err().to_string();
    assert!(error.contains("not signed with the pinned key"), "{error}");
    hub.keys = vec![("someone".to_owned(), other.public())];
    hub.fetch("owner/name@v1").unwrap();

    // Files that the list lacks, and a list that is none.
    fs::write(directory.join("extra.json"), "{}").unwrap();
    let error = verify_signature(&directory, &[key.public()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("`extra.json` is not among"), "{error}");
    for text in ["", "ed25519:00", "ed25519:zz", "é"] {
        fs::write(directory.join("SHA256SUMS.sig"), text).unwrap();
        let error = verify_signature(&directory, &[key.public()]).unwrap_err();
        assert!(matches!(error, Error::NotTrusted { .. }), "{error:?}");
    }
    let text = key.public().to_string();
    assert_eq!(text.parse::<PublicKey>().unwrap(), key.public());
    for text in ["", "ed25519:", &text[8..], "rsa:00"] {
        assert!(text.parse::<PublicKey>().is_err());
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn an_audit_file_gets_a_line_for_each_event() {
    let (_, mut hub, cache) = model();
    let audit = cache.path().join("log/audit.jsonl");
    hub.audit = Some(audit.clone());
    hub.fetch("owner/name").unwrap();
    hub.fetch("owner/name").unwrap();
    hub.verify("owner/name").unwrap();
    let lines = lines(&audit);
    let events: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        ["fetched", "fetched", "opened", "opened", "verified"]
    );
    let fetched = &lines[1];
    assert_eq!(fetched["file"], "model.safetensors");
    assert_eq!(fetched["sum"], server::sha256(&noise(1000, 1)));
    assert_eq!(fetched["commit"], MAIN);
    assert_eq!(fetched["bytes"], 1000);
    assert!(fetched["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(lines[4]["damaged"], 0);
    // It must be written, or nothing is given.
    hub.audit = Some(cache.path().to_owned());
    assert!(matches!(hub.fetch("owner/name"), Err(Error::Io { .. })));
}
