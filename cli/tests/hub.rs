//! `salamander hub` and `salamander card`, as a person and a program would call them.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "hub")]

#[path = "../../hub/tests/server/mod.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use server::{MAIN, Server, noise};
use tempfile::TempDir;

struct Machine {
    server: Server,
    home: TempDir,
}

impl Machine {
    fn new() -> Self {
        let server = Server::new(&[
            (
                "README.md",
                b"---\nlicense: mit\n---\n\n# A name\n".to_vec(),
            ),
            ("config.json", b"{}".to_vec()),
            ("model.safetensors", noise(5000, 1)),
        ]);
        let home = tempfile::tempdir().unwrap();
        Self { server, home }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_salamander"))
            .args(arguments)
            .env("HF_ENDPOINT", &self.server.endpoint)
            .env("HF_HOME", self.home.path().join("hf"))
            .env("TORCH_HOME", self.home.path().join("torch"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env_remove("HF_TOKEN")
            .env_remove("HF_HUB_OFFLINE")
            .current_dir(self.home.path())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        assert_eq!(errors, "", "a pipe gets no remarks and no bars");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.says(arguments);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.starts_with("error: ") && !errors.contains("panicked"),
            "{errors}"
        );
        errors
    }
}

#[test]
fn a_model_is_fetched_listed_verified_and_removed() {
    let machine = Machine::new();
    let path = machine.says(&["hub", "download", "owner/name"]);
    let path = Path::new(path.trim());
    assert!(path.ends_with(MAIN) && path.join("model.safetensors").exists());
    assert_eq!(
        machine.objects(&["hub", "download", "owner/name", "--json"])[0]["path"],
        json!(path)
    );

    let table = machine.says(&["hub", "list"]);
    assert!(table.starts_with("MODEL"), "{table}");
    for word in ["owner/name", "main", &MAIN[..12], "4.88 KiB", "now"] {
        assert!(table.contains(word), "{table}");
    }
    let listed = machine.objects(&["hub", "list", "--json"]);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["bytes"]),
        (&json!("owner/name"), &json!(5002))
    );

    let table = machine.says(&["hub", "show", "owner/name"]);
    assert!(
        table.contains("cached") && table.contains("model.safetensors"),
        "{table}"
    );
    let shown = machine.objects(&["hub", "show", "owner/name", "--json", "--offline"]);
    assert_eq!(shown[0]["commit"], MAIN);

    machine.says(&["hub", "verify", "owner/name"]);
    let blob = fs::canonicalize(path.join("model.safetensors")).unwrap();
    fs::write(&blob, noise(5000, 2)).unwrap();
    let output = machine.run(&["hub", "verify", "owner/name"]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("damaged")
    );
    let repaired = machine.objects(&["hub", "verify", "owner/name", "--repair", "--json"]);
    assert!(
        repaired.iter().any(|file| file["repaired"] == true),
        "{repaired:?}"
    );
    machine.says(&["hub", "verify", "owner/name"]);

    fs::write(blob.with_file_name("f".repeat(64)), "no use").unwrap();
    let found = machine.says(&["hub", "gc"]);
    assert!(
        found.contains("6 B") && found.contains("no snapshot"),
        "{found}"
    );
    let freed = machine.objects(&["hub", "gc", "--yes", "--json"]);
    assert_eq!(freed.last().unwrap()["freed"], 6);
    assert!(
        machine
            .says(&["hub", "remove", "owner/name"])
            .contains("4.88 KiB freed")
    );
    let error = machine.fails(&["hub", "remove", "owner/name"]);
    assert!(error.contains("owner/name"), "{error}");
    assert_eq!(machine.says(&["hub", "list"]), "");
    let error = machine.fails(&["hub", "download", "owner/none"]);
    assert!(error.contains("no such repository"), "{error}");
    let error = machine.fails(&["hub", "download", "owner/name", "--offline"]);
    assert!(error.contains("offline"), "{error}");
}

#[test]
fn every_command_takes_an_id() {
    let machine = Machine::new();
    // The weights are noise, which is told of the file that was fetched.
    let error = machine.fails(&["inspect", "owner/name"]);
    assert!(error.contains("model.safetensors"), "{error}");
    let error = machine.fails(&["run", "fill-mask", "--model", "owner/none", "text"]);
    assert!(error.contains("owner/none"), "{error}");
}

#[test]
fn models_are_found() {
    let machine = Machine::new();
    machine.server.state().found = vec![json!({"id": "o/m", "downloads": 12, "likes": 3})];
    let table = machine.says(&["hub", "search", "two", "words", "--limit", "1"]);
    assert!(table.contains("o/m") && table.contains("12"), "{table}");
    let requests = machine.server.requests();
    assert!(requests[0].contains("search=two+words"), "{requests:?}");
    let error = machine.fails(&["hub", "search", "x", "--sort", "size"]);
    assert!(error.contains("trending"), "{error}");

    let weights = noise(100, 1);
    let index = json!({"version": 1, "models": [{
        "name": "tiny", "version": "1.0.0", "category": "text", "description": "Tiny one",
        "files": [{"name": "w.bin", "url": "w.bin", "bytes": 100, "sha256": server::sha256(&weights)}],
    }]});
    fs::write(machine.home.path().join("index.json"), index.to_string()).unwrap();
    fs::write(machine.home.path().join("w.bin"), &weights).unwrap();
    let registry = ["--registry", "index.json"];
    let table = machine.says(&[&["hub", "search", "--category", "text"], &registry[..]].concat());
    assert!(table.contains("tiny") && table.contains("1.0.0"), "{table}");
    let path = machine.says(&[&["hub", "download", "tiny@1"], &registry[..]].concat());
    assert!(fs::read(Path::new(path.trim()).join("w.bin")).unwrap() == weights);
}

#[test]
fn models_are_locked_signed_and_trusted() {
    let machine = Machine::new();
    machine.says(&["hub", "lock", "owner/name"]);
    let lock = fs::read_to_string(machine.home.path().join("salamander.lock")).unwrap();
    assert!(lock.contains(MAIN), "{lock}");

    let directory = machine.home.path().join("model");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("config.json"), "{}").unwrap();
    let said = machine.objects(&["hub", "sign", "model", "--key", "secret", "--new", "--json"]);
    let key = said[0]["key"].as_str().unwrap();
    machine.says(&["hub", "verify", "model", "--key", key]);
    machine.says(&["hub", "trust", "owner", "--key", key]);
    machine.says(&["hub", "trust", "some/repo"]);
    let listed = machine.says(&["hub", "trust"]);
    assert!(
        listed.contains(key) && listed.contains("some_repo"),
        "{listed}"
    );
    let error = machine.fails(&["hub", "download", "owner/name"]);
    assert!(error.contains("not signed"), "{error}");
    machine.says(&["hub", "trust", "owner", "--remove"]);
    machine.says(&["hub", "trust", "some/repo", "--remove"]);
    machine.says(&["hub", "download", "owner/name"]);
    assert_eq!(machine.says(&["hub", "trust"]), "");
    machine.fails(&["hub", "trust", "some/repo", "--remove"]);
}

#[test]
fn entry_points_are_listed_and_loaded() {
    let machine = Machine::new();
    let repository = machine.home.path().join("repo");
    fs::create_dir(&repository).unwrap();
    let weights = noise(10, 1);
    fs::write(repository.join("w.safetensors"), &weights).unwrap();
    let toml = format!(
        "[models.tiny]\ndescription = \"Tiny.\"\npreset = \"torchvision/resnet18\"\n[[models.tiny.weights]]\nfile = \"w.safetensors\"\nsha256 = \"{}\"\n",
        server::sha256(&weights)
    );
    fs::write(repository.join("hubconf.toml"), toml).unwrap();
    assert_eq!(machine.says(&["hub", "entries", "repo"]), "tiny\n");
    assert_eq!(machine.says(&["hub", "entries", "repo", "tiny"]), "Tiny.\n");
    let loaded = machine.objects(&["hub", "entries", "repo", "tiny", "--load", "--json"]);
    assert_eq!(loaded[0]["preset"], "torchvision/resnet18");
    let load = ["hub", "entries", "repo", "tiny", "--load", "--argument"];
    let error = machine.fails(&[&load[..], &["size=3"]].concat());
    assert!(error.contains("no argument `size`"), "{error}");
}

#[test]
fn cards_are_shown_changed_and_written() {
    let machine = Machine::new();
    let shown = machine.says(&["card", "owner/name"]);
    assert!(shown.contains("A name") && shown.contains("mit"), "{shown}");
    let error = machine.fails(&["card", "owner/name", "--set", "license=x"]);
    assert!(error.contains("copy it"), "{error}");

    let details = json!({"name": "Mine", "description": "A model.", "authors": ["Ada"], "license": "mit",
        "metrics": [{"name": "accuracy", "value": 0.5, "dataset": "d"}]});
    fs::write(machine.home.path().join("card.json"), details.to_string()).unwrap();
    machine.says(&["card", "README.md", "--new", "card.json"]);
    machine.says(&[
        "card",
        "README.md",
        "--set",
        "tags=[\"a\"]",
        "--unset",
        "library_name",
    ]);
    let said = &machine.objects(&["card", "README.md", "--json"])[0];
    assert_eq!(said["name"], "Mine");
    assert_eq!(said["metrics"][0]["value"], 0.5);
    assert_eq!(said["front_matter"]["tags"], json!(["a"]));
    assert_eq!(said["front_matter"].get("library_name"), None);
    fs::write(machine.home.path().join("bad.md"), "---\n[\n---\n").unwrap();
    let error = machine.fails(&["card", "bad.md"]);
    assert!(error.contains("bad.md"), "{error}");
}
