//! The functions of `torch.hub`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use salamander_hub::torch::{Options, Question, Source, StateDictOptions, TorchHub, TrustRepo};
use salamander_hub::{Error, Progress};
use serde_json::{Value, json};
use server::{Fault, Server, noise, sha256};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const HUBCONF: &str = "dependencies = ['torch']\nfrom models import resnet50, hidden as shown\ndef own(pretrained=False):\n    '''Own model.\n\n    Of this file.\n    '''\n_private = own\n";
const MODELS: &str = "def resnet50(*, weights=None, progress=True, **kwargs):\n    \"\"\"ResNet-50.\"\"\"\ndef hidden(): pass\n";

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for (name, content) in files {
        if name.ends_with('/') {
            zip.add_directory(*name, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(content).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

/// GitHub with `owner/repo` and `pytorch/vision`, each with `hubconf.py`.
fn github() -> (Server, TorchHub, TempDir) {
    let server = Server::new::<&str>(&[]);
    for (owner, repo) in [("owner", "repo"), ("pytorch", "vision")] {
        let top = format!("{owner}-{repo}-0123abc");
        let hubconf = format!("{top}/hubconf.py");
        let models = format!("{top}/models.py");
        let zip = archive(&[
            (&format!("{top}/"), b""),
            (&hubconf, HUBCONF.as_bytes()),
            (&models, MODELS.as_bytes()),
        ]);
        server.set_other(&format!("/{owner}/{repo}/tree/main/"), b"<html>");
        server.set_other(&format!("/{owner}/{repo}/zipball/main"), &zip);
        server.set_other(&format!("/{owner}/{repo}/zipball/feature/x"), &zip);
        refs(&server, &format!("{owner}/{repo}"), &["main", "feature/x"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut hub = TorchHub::new(directory.path().join("hub"));
    hub.github = server.endpoint.clone();
    hub.github_api = format!("{}/api.github", server.endpoint);
    hub.mirrors = vec![(
        "https://download.pytorch.org".to_owned(),
        server.endpoint.clone(),
    )];
    (server, hub, directory)
}

/// The first page has the refs; all others are empty.
fn refs(server: &Server, repository: &str, names: &[&str]) {
    let listed: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "commit": {"sha": "0123abc"}}))
        .collect();
    let path = format!("/api.github/repos/{repository}/branches");
    server.set_other(&path, Value::from(listed).to_string().as_bytes());
    let path = format!("/api.github/repos/{repository}/tags");
    server.set_other(&path, b"[]");
}

fn arguments(json: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(json).unwrap()
}

#[test]
fn entry_points_are_listed_and_explained() {
    let (server, hub, _directory) = github();
    let options = Options::default();
    let listed = hub.list("pytorch/vision", &options).unwrap();
    assert_eq!(listed, ["own", "resnet50", "shown"]);
    let path = hub.directory.join("pytorch_vision_main");
    assert!(path.join("hubconf.py").is_file());
    let help = hub.help("pytorch/vision", "own", &options).unwrap();
    assert_eq!(help, "Own model.\n\nOf this file.");
    assert_eq!(
        hub.help("pytorch/vision", "resnet50", &options).unwrap(),
        "ResNet-50."
    );
    let error = hub
        .help("pytorch/vision", "none", &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("own, resnet50, shown"), "{error}");
    let fetched = |server: &Server| {
        let requests = server.requests();
        requests.iter().filter(|r| r.contains("zipball")).count()
    };
    assert_eq!(fetched(&server), 1);
    hub.list(
        "pytorch/vision",
        &Options {
            force_reload: true,
            ..options.clone()
        },
    )
    .unwrap();
    assert_eq!(fetched(&server), 1);
    // A branch with a slash, as torch names its directory.
    hub.list("pytorch/vision:feature/x", &options).unwrap();
    assert!(hub.directory.join("pytorch_vision_feature_x").is_dir());
    // Nothing is left but what torch has, and our locks.
    let mut left: Vec<_> = fs::read_dir(&hub.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [".locks", "pytorch_vision_feature_x", "pytorch_vision_main"]
    );

    let mut offline = hub.clone();
    offline.offline = true;
    assert_eq!(offline.list("pytorch/vision", &options).unwrap(), listed);
    let error = offline.list("pytorch/other", &options).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error:?}");
}

#[test]
fn a_ref_must_be_the_repositorys_own() {
    let (server, mut hub, _directory) = github();
    let options = Options::default();
    server.set_other(
        "/pytorch/vision/zipball/fork",
        &archive(&[("p/hubconf.py", b"")]),
    );
    let error = hub
        .list("pytorch/vision:fork", &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("skip_validation"), "{error}");
    let unvalidated = Options {
        skip_validation: true,
        ..options.clone()
    };
    assert_eq!(
        hub.list("pytorch/vision:fork", &unvalidated).unwrap(),
        [""; 0]
    );

    // A token that GitHub does not want for this repository is left out.
    hub.token = Some("secret".to_owned());
    server.fail("/api.github/", Fault::Status(403, ""), 1);
    hub.list("pytorch/vision:0123", &options).unwrap_err();
    let requests = server.requests();
    assert!(
        requests.iter().any(|r| r.ends_with(" token secret")),
        "{requests:?}"
    );
    let zipball = requests.iter().filter(|r| r.contains("zipball"));
    assert!(zipball.clone().count() > 0);
    assert!(!zipball.clone().any(|r| r.contains("secret")));

    // `master` where there is no `main`.
    server.set_other(
        "/pytorch/old/zipball/master",
        &archive(&[("p/hubconf.py", b"def f(): 'F.'")]),
    );
    refs(&server, "pytorch/old", &["master"]);
    assert_eq!(hub.list("pytorch/old", &options).unwrap(), ["f"]);
    // Both a branch and a tag.
    server.fail("/zipball/both", Fault::Status(300, ""), 1);
    server.set_other(
        "/pytorch/old/zipball/refs/heads/both",
        &archive(&[("p/hubconf.py", b"")]),
    );
    hub.list("pytorch/old:both", &unvalidated).unwrap();
    for text in ["x", "a/b/c", "a/b:../x", "../b", "a/b: c", ""] {
        assert!(hub.list(text, &options).is_err(), "{text}");
    }
}

#[test]
fn trust_is_asked_for_and_kept() {
    let (_, mut hub, _directory) = github();
    let with = |trust_repo| Options {
        trust_repo,
        ..Options::default()
    };
    // Nobody to ask.
    let error = hub.list("owner/repo", &with(TrustRepo::Check)).unwrap_err();
    assert!(
        matches!(error, Error::UntrustedRepository { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("hub trust owner/repo"),
        "{error}"
    );

    let asked = Arc::new(Mutex::new(Vec::new()));
    let asking = Arc::clone(&asked);
    let answer = Arc::new(Mutex::new(false));
    let answering = Arc::clone(&answer);
    hub.question = Question::new(move |repository| {
        asking.lock().unwrap().push(repository.to_owned());
        *answering.lock().unwrap()
    });
    assert!(hub.list("owner/repo", &with(TrustRepo::Check)).is_err());
    assert_eq!(hub.trusted().unwrap(), [""; 0]);
    *answer.lock().unwrap() = true;
    hub.list("owner/repo", &with(TrustRepo::Check)).unwrap();
    assert_eq!(hub.trusted().unwrap(), ["owner_repo"]);
    hub.list("owner/repo:feature/x", &with(TrustRepo::Check))
        .unwrap();
    assert_eq!(*asked.lock().unwrap(), ["owner/repo", "owner/repo"]);
    // Owners that torch trusts are not asked about; with `false` all are.
    hub.list("pytorch/vision", &with(TrustRepo::Check)).unwrap();
    assert_eq!(asked.lock().unwrap().len(), 2);
    hub.list("pytorch/vision", &with(TrustRepo::Ask)).unwrap();
    assert_eq!(asked.lock().unwrap().len(), 3);
    assert!(hub.distrust("owner/repo").unwrap());
    assert!(!hub.distrust("owner/repo").unwrap());
    hub.trust("some/one").unwrap();
    assert_eq!(
        fs::read_to_string(hub.directory.join("trusted_list")).unwrap(),
        "some_one\n"
    );
    let yes = with(TrustRepo::Yes);
    fs::remove_dir_all(hub.directory.join("owner_repo_main")).unwrap();
    hub.list("owner/repo", &yes).unwrap();
    assert_eq!(hub.trusted().unwrap(), ["some_one", "owner_repo"]);
}

#[test]
fn archives_are_not_believed() {
    let (server, hub, directory) = github();
    let options = Options {
        skip_validation: true,
        ..Options::default()
    };
    let bad: [&[(&str, &[u8])]; 7] = [
        &[("top/hubconf.py", b""), ("../evil.py", b"evil")],
        &[("top/../../evil.py", b"evil")],
        &[("/evil.py", b"evil")],
        &[("top\\..\\evil.py", b"evil")],
        &[("C:/evil.py", b"evil")],
        &[("one/a.py", b""), ("two/b.py", b"")],
        &[],
    ];
    for (index, files) in bad.iter().enumerate() {
        server.set_other("/pytorch/bad/zipball/x", &archive(files));
        let error = hub.list("pytorch/bad:x", &options).unwrap_err();
        let is_told = matches!(error, Error::UnsafeName { .. } | Error::Malformed { .. });
        assert!(is_told, "{index}: {error:?}");
        assert!(!hub.directory.join("pytorch_bad_x").exists());
    }
    for content in [&b"<html>no archive"[..], &archive(&[("t/a", b"x")])[..30]] {
        server.set_other("/pytorch/bad/zipball/x", content);
        let error = hub.list("pytorch/bad:x", &options).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
    // A link is a file that says where it would lead.
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("t/hubconf.py", SimpleFileOptions::default())
        .unwrap();
    zip.add_symlink("t/link", "/etc", SimpleFileOptions::default())
        .unwrap();
    let zip = zip.finish().unwrap().into_inner();
    server.set_other("/pytorch/bad/zipball/x", &zip);
    hub.list("pytorch/bad:x", &options).unwrap();
    let link = hub.directory.join("pytorch_bad_x/link");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
    assert_eq!(fs::read_to_string(&link).unwrap(), "/etc");
    assert!(!directory.path().join("evil.py").exists());
}

#[test]
fn entry_points_that_the_zoo_knows_are_loaded() {
    let (server, hub, _directory) = github();
    let options = Options::default();
    let weights = noise(1000, 1);
    let wrong = |hub: &TorchHub, json: Value, part: &str| {
        let loaded = hub.load("pytorch/vision", "resnet50", &arguments(json), &options);
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    wrong(&hub, json!({}), "untrained");
    wrong(&hub, json!({"weights": null}), "untrained");
    wrong(
        &hub,
        json!({"weights": "V9"}),
        "IMAGENET1K_V2, IMAGENET1K_V1",
    );
    wrong(&hub, json!({"num_classes": 3}), "num_classes");
    // The published name says its sum, which this content does not have.
    server.set_other("/models/resnet50-0676ba61.pth", &weights);
    wrong(&hub, json!({"pretrained": true}), "0676ba61");
    assert!(
        !hub.directory
            .join("checkpoints/resnet50-0676ba61.pth")
            .exists()
    );
    for (json, name, preset) in [
        (
            json!({"weights": "ResNet50_Weights.IMAGENET1K_V1"}),
            "resnet50-0676ba61.pth",
            "torchvision/resnet50.imagenet1k_v1",
        ),
        (
            json!({"weights": "DEFAULT", "progress": false}),
            "resnet50-11ad3fa6.pth",
            "torchvision/resnet50",
        ),
        (
            json!({"pretrained": true}),
            "resnet50-0676ba61.pth",
            "torchvision/resnet50.imagenet1k_v1",
        ),
    ] {
        // As if torch had fetched it.
        let path = hub.directory.join("checkpoints").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &weights).unwrap();
        let loaded = hub
            .load("pytorch/vision", "resnet50", &arguments(json), &options)
            .unwrap();
        assert_eq!(
            (loaded.preset.as_deref(), &loaded.path),
            (Some(preset), &path)
        );
    }
    let error = hub
        .load("pytorch/vision", "own", &BTreeMap::new(), &options)
        .unwrap_err();
    assert!(error.to_string().contains("not run"), "{error}");
    // The same name in another repository is another model.
    let local = Options {
        source: Source::Local,
        ..options
    };
    let path = hub.directory.join("pytorch_vision_main");
    let error = hub
        .load(path.to_str().unwrap(), "resnet50", &BTreeMap::new(), &local)
        .unwrap_err();
    assert!(error.to_string().contains("does not know it"), "{error}");
}

fn repository(toml: &str, files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hubconf.toml"), toml).unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

#[test]
fn a_declared_entry_point_is_loaded() {
    let (server, hub, _directory) = github();
    let (small, large) = (noise(100, 1), noise(200, 2));
    let toml = format!(
        r#"
[models.tiny]
description = "A tiny model."
config = "tiny/config.json"
files = ["tiny/vocab.txt"]
[[models.tiny.weights]]
name = "V1"
file = "tiny/small.safetensors"
sha256 = "{}"
when = {{ size = "small" }}
[[models.tiny.weights]]
name = "V1"
url = "{}/large.safetensors"
sha256 = "{}"
when = {{ size = "large" }}
[models.tiny.arguments.size]
description = "How large."
default = "small"
values = ["small", "large"]

[models.whole]
directory = "tiny"

[models.resnet]
preset = "torchvision/resnet18"
[[models.resnet.weights]]
file = "tiny/small.safetensors"
sha256 = "{}"
"#,
        sha256(&small),
        server.endpoint,
        sha256(&large),
        sha256(&small),
    );
    let files: [(&str, &[u8]); 3] = [
        ("tiny/config.json", b"{}"),
        ("tiny/vocab.txt", b"a"),
        ("tiny/small.safetensors", &small),
    ];
    let repository = repository(&toml, &files);
    server.set_other("/large.safetensors", &large);
    let path = repository.path().to_str().unwrap();
    let local = Options {
        source: Source::Local,
        ..Options::default()
    };
    assert_eq!(hub.list(path, &local).unwrap(), ["resnet", "tiny", "whole"]);
    let help = hub.help(path, "tiny", &local).unwrap();
    assert_eq!(
        help,
        "A tiny model.\n\nArguments:\n    size = \"small\": How large. One of \"small\", \"large\".\n\nWeights: V1, V1"
    );
    let load = |entry: &str, json: Value| hub.load(path, entry, &arguments(json), &local);
    let tiny = load("tiny", json!({})).unwrap();
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&tiny.path),
        ["config.json", "small.safetensors", "vocab.txt"]
    );
    assert_eq!(tiny.preset, None);
    assert_eq!(load("tiny", json!({})).unwrap(), tiny);
    let large_one = load("tiny", json!({"size": "large", "weights": "V1"})).unwrap();
    let weights = names(&large_one.path);
    let weights = weights
        .iter()
        .find(|name| name.ends_with(".safetensors"))
        .unwrap();
    assert!(fs::read(large_one.path.join(weights)).unwrap() == large);
    assert_eq!(
        load("whole", json!({})).unwrap().path,
        repository.path().join("tiny")
    );
    let resnet = load("resnet", json!({})).unwrap();
    assert_eq!(resnet.preset.as_deref(), Some("torchvision/resnet18"));
    for (entry, json, part) in [
        ("tiny", json!({"size": "huge"}), "\"large\""),
        ("tiny", json!({"other": 1}), "no argument `other`"),
        ("tiny", json!({"weights": "V2"}), "no weights are for these"),
        ("tiny", json!({"pretrained": false}), "trained"),
        ("none", json!({}), "resnet, tiny, whole"),
    ] {
        let error = load(entry, json).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    fs::write(
        repository.path().join("tiny/small.safetensors"),
        noise(100, 9),
    )
    .unwrap();
    let error = load("tiny", json!({})).unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error:?}");
}

#[test]
fn a_declaration_that_is_none_is_told() {
    let (_, hub, _directory) = github();
    let local = Options {
        source: Source::Local,
        ..Options::default()
    };
    let sum = "a".repeat(64);
    for (toml, part) in [
        ("models = 1".to_owned(), "models"),
        ("[models.a]\n".to_owned(), "give one of"),
        (
            "[models.a]\npreset = \"p\"\nconfig = \"c\"\n".to_owned(),
            "give one of",
        ),
        ("[models.a]\npreset = \"p\"\n".to_owned(), "no `weights`"),
        ("[models.a]\npreset = \"p\"\ntypo = 1\n".to_owned(), "typo"),
        ("[models.a]\ndirectory = \"../x\"\n".to_owned(), "../x"),
        (
            format!(
                "[models.a]\npreset = \"p\"\n[[models.a.weights]]\nfile = \"/etc/passwd\"\nsha256 = \"{sum}\"\n"
            ),
            "/etc/passwd",
        ),
        (
            "[models.a]\npreset = \"p\"\n[[models.a.weights]]\nfile = \"x\"\n".to_owned(),
            "sha256",
        ),
        (
            format!("[models.a]\npreset = \"p\"\n[[models.a.weights]]\nsha256 = \"{sum}\"\n"),
            "`file` and `url`",
        ),
        (
            format!(
                "[models.a]\npreset = \"p\"\n[[models.a.weights]]\nfile = \"x\"\nsha256 = \"{sum}\"\nwhen = {{ b = 1 }}\n"
            ),
            "`b` is no argument",
        ),
    ] {
        let repository = repository(&toml, &[]);
        let error = hub
            .list(repository.path().to_str().unwrap(), &local)
            .unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("hubconf.toml") && said.contains(part),
            "{said}"
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let error = hub
        .list(empty.path().to_str().unwrap(), &local)
        .unwrap_err();
    assert!(error.to_string().contains("hubconf.py"), "{error}");
    assert!(hub.list("/no/such/directory", &local).is_err());
}

#[test]
fn a_file_is_fetched_from_an_address() {
    let (server, mut hub, directory) = github();
    let content = noise(100_000, 3);
    let sum = sha256(&content);
    let name = format!("net-{}.pth", &sum[..8]);
    server.set_other(&format!("/w/{name}"), &content);
    let url = format!("{}/w/{name}?download=1", server.endpoint);
    let heard = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&heard);
    hub.progress = Progress::new(move |_| *counting.lock().unwrap() += 1);
    let options = StateDictOptions {
        check_hash: true,
        ..StateDictOptions::default()
    };
    server.fail("/w/", Fault::Cut(40_000), 2);
    let path = hub.load_state_dict_from_url(&url, &options).unwrap();
    assert_eq!(path, hub.directory.join("checkpoints").join(&name));
    assert!(fs::read(&path).unwrap() == content);
    assert!(*heard.lock().unwrap() > 0);
    let requests = server.requests();
    assert!(
        requests.iter().any(|r| r.ends_with("bytes=40000-")),
        "{requests:?}"
    );
    hub.load_state_dict_from_url(&url, &options).unwrap();
    assert_eq!(server.requests(), [""; 0]);

    *heard.lock().unwrap() = 0;
    let elsewhere = StateDictOptions {
        model_dir: Some(directory.path().join("mine")),
        file_name: Some("other-0000.bin".to_owned()),
        progress: false,
        ..StateDictOptions::default()
    };
    let path = hub.load_state_dict_from_url(&url, &elsewhere).unwrap();
    assert_eq!(path, directory.path().join("mine/other-0000.bin"));
    assert_eq!(*heard.lock().unwrap(), 0);
    let checked = StateDictOptions {
        check_hash: true,
        file_name: Some("other-0001.bin".to_owned()),
        ..elsewhere.clone()
    };
    let error = hub.load_state_dict_from_url(&url, &checked).unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error:?}");
    let pickled = StateDictOptions {
        weights_only: false,
        ..elsewhere.clone()
    };
    let error = hub
        .load_state_dict_from_url(&url, &pickled)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("weights_only = false") && error.contains("never done"),
        "{error}"
    );
    for name in ["../up", "a/b", "", ".."] {
        let bad = StateDictOptions {
            file_name: Some(name.to_owned()),
            ..elsewhere.clone()
        };
        assert!(hub.load_state_dict_from_url(&url, &bad).is_err(), "{name}");
    }

    // An archive of one file is unpacked.
    server.set_other("/packed.zip", &archive(&[("inner.pth", &content)]));
    let packed = format!("{}/packed.zip", server.endpoint);
    let path = hub
        .load_state_dict_from_url(&packed, &StateDictOptions::default())
        .unwrap();
    assert!(path.ends_with("checkpoints/inner.pth"));
    assert!(fs::read(&path).unwrap() == content);

    let to: PathBuf = directory.path().join("deep/er/file");
    hub.download_url_to_file(&url, &to, Some(&sum[..10]))
        .unwrap();
    assert!(fs::read(&to).unwrap() == content);
    let error = hub.download_url_to_file(&url, &to, Some("00")).unwrap_err();
    assert!(matches!(error, Error::WrongHash { .. }), "{error:?}");
    assert!(fs::read(&to).unwrap() == content, "the old file stays");
    assert!(hub.download_url_to_file(&url, &to, Some("XYZ")).is_err());
    let none = format!("{}/none", server.endpoint);
    let error = hub.download_url_to_file(&none, &to, None).unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    hub.offline = true;
    let error = hub
        .load_state_dict_from_url(&none, &StateDictOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error:?}");
}

/// torchvision's own `hubconf.py` as torch lists and explains it, where both are installed.
#[test]
fn entry_points_are_those_that_torch_finds() {
    let python = std::env::var("SALAMANDER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let program = "
import inspect, json, os, sys, tempfile, torch, torchvision
root = sys.argv[1]
os.symlink(os.path.dirname(torchvision.__file__), os.path.join(root, 'torchvision'))
names = [n for n in dir(torchvision.models) if not n.startswith('_') and callable(getattr(torchvision.models, n))]
with open(os.path.join(root, 'hubconf.py'), 'w') as f:
    f.write('dependencies = [\"torch\"]\\nfrom torchvision.models import (\\n')
    for name in names:
        f.write('    ' + name + ',\\n')
    f.write(')\\nfrom torchvision import models, io\\n')
import importlib.util
spec = importlib.util.spec_from_file_location('hubconf', os.path.join(root, 'hubconf.py'))
m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
found = [f for f in dir(m) if callable(getattr(m, f)) and not f.startswith('_')]
print(json.dumps({f: inspect.cleandoc(getattr(m, f).__doc__ or '') for f in found}))
";
    let repository = tempfile::tempdir().unwrap();
    let output = Command::new(&python)
        .args(["-c", program, repository.path().to_str().unwrap()])
        .output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: {python} has no torchvision (SALAMANDER_PYTHON names another)");
        return;
    };
    let expected: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).unwrap();
    let (_, hub, _directory) = github();
    let local = Options {
        source: Source::Local,
        ..Options::default()
    };
    let path = repository.path().to_str().unwrap();
    let listed = hub.list(path, &local).unwrap();
    let names: Vec<_> = expected.keys().cloned().collect();
    assert_eq!(listed, names);
    // Enumerations of weights get a docstring from their base, which nobody has written.
    for name in names.iter().filter(|name| !name.contains("Weights")) {
        let help = hub.help(path, name, &local).unwrap();
        // Decorators add to some of torchvision's.
        let own = &expected[name];
        assert!(
            own.starts_with(&help) && (help.is_empty() == own.is_empty() || help.is_empty()),
            "{name}: {help:?} {own:?}"
        );
    }
    let resnet = hub.help(path, "resnet50", &local).unwrap();
    assert!(resnet.starts_with("ResNet-50 from"), "{resnet}");
}
