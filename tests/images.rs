//! Pictures against Pillow and the reference's image processors: bytes and floats, not only logits.
//!
//! `tools/fixtures/images.py` makes the fixtures.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::models::find_preset;
use salamander::models::processing::image::{Backend, Filter, Image, ImageProcessor};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/images")
        .join(name)
}

fn picture(tensors: &Checkpoint, name: &str) -> Image {
    let data = tensors.get(name).unwrap().read().unwrap();
    let shape = data.shape().to_vec();
    Image::new(shape[1], shape[0], data.as_slice::<u8>().unwrap().to_vec()).unwrap()
}

/// How far apart two pictures of one size are at most, and on average.
fn distance(found: &Image, expected: &Image) -> (u8, f64) {
    let size = (expected.width(), expected.height());
    assert_eq!((found.width(), found.height()), size);
    let pairs = found.pixels().iter().zip(expected.pixels());
    let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|d| f64::from(*d)).sum();
    let mean = sum / differences.len() as f64;
    (differences.into_iter().max().unwrap(), mean)
}

#[test]
fn files_are_decoded_as_pillow_does() {
    let expected = Checkpoint::open(fixture("decoded.safetensors")).unwrap();
    let mut failures = Vec::new();
    for (name, _) in expected.iter() {
        let bytes = fs::read(fixture("files").join(name)).unwrap();
        let found = match Image::decode(&bytes) {
            Ok(found) => found,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let (most, mean) = distance(&found, &picture(&expected, name));
        if most > 0 {
            failures.push(format!("{name}: differs by {most}, {mean:.4} on average"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn tiff_is_decoded_as_pillow_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiff");
    let expected = Checkpoint::open(folder.join("decoded.safetensors")).unwrap();
    let mut failures = Vec::new();
    for (name, _) in expected.iter() {
        let bytes = fs::read(folder.join("files").join(name)).unwrap();
        let found = match Image::decode(&bytes) {
            Ok(found) => found,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let (most, mean) = distance(&found, &picture(&expected, name));
        // LittleCMS has its transforms in tables.
        let allowed = if name == "lab.tif" { 2 } else { 0 };
        if most > allowed {
            failures.push(format!("{name}: differs by {most}, {mean:.4} on average"));
        }
    }
    assert!(expected.len() > 50);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn sizes_change_as_pillow_changes_them_to_the_last_bit() {
    let tensors = Checkpoint::open(fixture("resized.safetensors")).unwrap();
    let mut cases = 0;
    for (name, entry) in tensors.iter() {
        let Some((filter, sizes)) = name.split_once('.').filter(|(head, _)| *head != "from") else {
            continue;
        };
        let filter = match filter {
            "nearest" => Filter::Nearest,
            "box" => Filter::Box,
            "bilinear" => Filter::Bilinear,
            "hamming" => Filter::Hamming,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Lanczos,
        };
        let (from, _) = sizes.split_once('.').unwrap();
        let original = picture(&tensors, &format!("from.{from}"));
        let (height, width) = (entry.shape[0], entry.shape[1]);
        let found = original.resize(width, height, filter).unwrap();
        assert_eq!(found, picture(&tensors, name), "{name}");
        cases += 1;
    }
    assert_eq!(cases, 72);
}

#[test]
fn processors_prepare_pictures_as_the_reference_does() {
    let tensors = Checkpoint::open(fixture("processed.safetensors")).unwrap();
    let text = fs::read(fixture("processors.json")).unwrap();
    let configs: BTreeMap<String, Value> = serde_json::from_slice(&text).unwrap();
    let mut cases = 0;
    let mut worst: f32 = 0.0;
    for (name, entry) in tensors.iter() {
        let parts: Vec<&str> = name.split('.').collect();
        let (processor, key, step) = match parts[..] {
            ["torchvision", config, key] => (ImageProcessor::parse(&configs[config]), key, 1),
            ["pillow", config, key] => {
                let processor = ImageProcessor::parse(&configs[config]);
                (processor.map(|p| p.with_backend(Backend::Pillow)), key, 1)
            }
            ["preset", preset, key] => {
                let preset = find_preset(preset, &tensors).unwrap();
                (ImageProcessor::parse(&preset.processor), key, 97)
            }
            _ => continue,
        };
        let image = picture(&tensors, &format!("input.{key}"));
        let found = processor.unwrap().process(&image).unwrap();
        let expected = entry.read().unwrap();
        let expected = expected.as_slice::<f32>().unwrap();
        let plane = found.height * found.width;
        let channels = found.values.chunks(plane);
        let values: Vec<f32> = channels
            .flat_map(|channel| channel.iter().step_by(step))
            .copied()
            .collect();
        if step == 1 {
            assert_eq!(entry.shape, [3, found.height, found.width], "{name}");
        }
        assert_eq!(values.len(), expected.len(), "{name}");
        let pairs = values.iter().zip(expected);
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-6, "{name}: differs by {difference}");
        worst = worst.max(difference);
        cases += 1;
    }
    println!("{cases} prepared pictures, largest difference {worst:e}");
    assert!(cases > 50);
}
