//! `torch.hub`'s functions as far as a network, and ids without one.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "hub")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use salamander::hub::torch::{self, Options, Source};
use salamander::importers::Checkpoint;
use salamander::{Device, torch_hub};
use sha2::{Digest, Sha256};

#[test]
fn a_declared_entry_point_runs_as_its_reference() {
    let directory = tempfile::tempdir().unwrap();
    torch::set_dir(directory.path().join("hub"));
    assert_eq!(torch::get_dir().unwrap(), directory.path().join("hub"));
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resnet/bottleneck");
    let repository = directory.path().join("repo");
    fs::create_dir_all(&repository).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(case.join(name), repository.join(name)).unwrap();
    }
    let sum = Sha256::digest(fs::read(case.join("model.safetensors")).unwrap());
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    let toml = format!(
        "[models.tiny]\nconfig = \"config.json\"\n[[models.tiny.weights]]\nfile = \"model.safetensors\"\nsha256 = \"{sum}\"\n"
    );
    fs::write(repository.join("hubconf.toml"), toml).unwrap();

    let options = Options {
        source: Source::Local,
        ..Options::default()
    };
    let device = Device::from_env().unwrap();
    let repository = repository.to_str().unwrap();
    let network = torch_hub::load(repository, "tiny", &BTreeMap::new(), &options, &device).unwrap();
    let golden = Checkpoint::open(case.join("golden.safetensors")).unwrap();
    let under = |prefix: &str| {
        let named = golden.iter().filter_map(|(name, entry)| {
            Some((name.strip_prefix(prefix)?.to_owned(), entry.read().unwrap()))
        });
        named.collect::<Vec<_>>()
    };
    let outputs = network
        .forward(under("input.").into_iter().collect())
        .unwrap();
    let expected = under("output.");
    assert!(!expected.is_empty());
    for (name, expected) in expected {
        let actual: Vec<f32> = outputs[&name].iter::<f32>().collect();
        let expected: Vec<f32> = expected.iter::<f32>().collect();
        assert_eq!(actual.len(), expected.len(), "{name}");
        for (a, b) in actual.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} {b}");
        }
    }
}
