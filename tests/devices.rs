//! The same answers on every device: the shipped models' tasks against the CPU, warm-ups, and what a machine
//! has.
//!
//! The device comes from `SALAMANDER_DEVICE`. Where it is `flex` itself there is nothing to hold it against.

#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use salamander::Device;
use salamander::tasks::{
    Forecast, ImageClassification, ImageEmbedding, Label, SpeechRecognition,
    SpeechRecognitionOptions, TableOptions, TextClassification, TextEmbedding,
};

fn asset(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("assets")
        .join(path)
}

/// The device under test, and the CPU.
fn devices() -> [Device; 2] {
    [Device::from_env().unwrap(), Device::flex()]
}

fn close<T: Copy + Into<f64>>(found: &[T], expected: &[T], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let (found, expected): (f64, f64) = ((*found).into(), (*expected).into());
        let allowed = tolerance * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= allowed,
            "{found}, not {expected}"
        );
    }
}

fn same(found: &[Label], expected: &[Label]) {
    let names = |labels: &[Label]| -> Vec<String> {
        let mut names: Vec<String> = labels.iter().map(|label| label.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(found), names(expected));
    for label in found {
        let other = expected.iter().find(|other| other.name == label.name);
        close(&[label.score], &[other.unwrap().score], 1e-4);
    }
}

/// What `run` gives on the device and on the CPU, with the times of its first and second call on the device.
fn both<T>(what: &str, mut run: impl FnMut(&Device) -> T) -> [T; 2] {
    let [device, cpu] = devices();
    let begin = Instant::now();
    let found = run(&device);
    println!("{what} on {device}: {:.1?}", begin.elapsed());
    [found, run(&cpu)]
}

#[test]
fn texts() {
    let sentences = ["a warm, funny, engaging film", "dull", "not good, not bad"];
    let [found, expected] = both("text-classification", |device| {
        let task = TextClassification::open(asset("sentiment"), device).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        let begin = Instant::now();
        let answers = task.run_batch(sentences).unwrap();
        println!("after the warm-up on {device}: {:.1?}", begin.elapsed());
        answers
    });
    for (found, expected) in found.iter().zip(&expected) {
        same(found, expected);
    }
    let [found, expected] = both("text-embedding", |device| {
        let task = TextEmbedding::open(asset("sentiment"), device).unwrap();
        task.run_batch(&sentences).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        close(found, expected, 1e-4);
    }
}

#[test]
fn pictures() {
    let samples = ["cat.png", "ship.png"].map(|name| asset("cifar10/samples").join(name));
    let [found, expected] = both("image-classification", |device| {
        let task = ImageClassification::open(asset("cifar10"), device).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        task.run_batch(&samples).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        same(found, expected);
    }
    let [found, expected] = both("image-embedding", |device| {
        let task = ImageEmbedding::open(asset("cifar10"), device).unwrap();
        task.run_batch(&samples).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        close(found, expected, 1e-4);
    }
}

#[test]
fn series() {
    let [found, expected] = both("forecast", |device| {
        let task = Forecast::open(asset("forecast"), device).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        let columns = TableOptions::default();
        let horizon = task.forecasts().horizon;
        let (_, answer) = task
            .run_csv(&asset("forecast/sample.csv"), &columns, horizon)
            .unwrap();
        answer
    });
    for (found, expected) in found.series.iter().zip(&expected.series) {
        close(&found.mean, &expected.mean, 1e-4);
        for (found, expected) in found.quantiles.iter().zip(&expected.quantiles) {
            close(&found.values, &expected.values, 1e-3);
        }
    }
}

/// Decoding step by step with a cache, on which fusion and autotuning together have gone wrong upstream:
/// <https://github.com/tracel-ai/burn/issues/5257>.
#[test]
fn speech() {
    let [found, expected] = both("speech-recognition", |device| {
        let options = SpeechRecognitionOptions {
            temperatures: vec![0.0],
            ..SpeechRecognitionOptions::default()
        };
        let task = SpeechRecognition::open(asset("speech"), device).unwrap();
        let task = task.with_options(options).unwrap();
        assert!(!task.warm_up().unwrap().is_zero());
        let begin = Instant::now();
        let transcript = task.run(asset("speech/sample.flac")).unwrap();
        println!("after the warm-up on {device}: {:.1?}", begin.elapsed());
        transcript
    });
    assert!(!found.text.is_empty());
    assert_eq!(found.text, expected.text);
    for (found, expected) in found.segments.iter().zip(&expected.segments) {
        assert_eq!(found.tokens, expected.tokens);
        close(&[found.mean_logprob], &[expected.mean_logprob], 1e-3);
    }
}

#[test]
fn a_task_goes_on_on_another_device() {
    let [device, cpu] = devices();
    let mut answers = Vec::new();
    for device in [&device, &cpu, &device] {
        let task = TextClassification::open(asset("sentiment"), device).unwrap();
        assert_eq!(task.device().to_string(), device.to_string());
        answers.push(task.run("a warm, funny, engaging film").unwrap());
    }
    same(&answers[0], &answers[1]);
    same(&answers[0], &answers[2]);
}

/// What goes wrong on GPUs.
#[cfg(feature = "wgpu")]
mod failures {
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::Path;
    use std::pin::pin;
    use std::process::Command;
    use std::task::{Context, Poll, Waker};

    use burn::tensor::wgpu::{WgpuSetup, wgpu};
    use salamander::tasks::ImageClassification;
    use salamander::{Device, DeviceError, Error, Network};
    use serde_json::Value;

    use super::{asset, same};

    #[test]
    fn an_index_beyond_the_last() {
        let error = "wgpu:99".parse::<Device>().unwrap_err();
        assert!(matches!(error, DeviceError::Absent { .. }), "{error}");
        assert!(error.to_string().contains("wgpu:99"), "{error}");
    }

    /// The test runs itself where drivers are not found, with the warnings of a program.
    #[test]
    fn without_a_gpu_the_cpu_is_taken_and_that_is_said_once() {
        const CHILD: &str = "SALAMANDER_TEST_WITHOUT_DRIVERS";
        if std::env::var_os(CHILD).is_some() {
            tracing_subscriber::fmt().init();
            for _ in 0..2 {
                println!("taken: {}", Device::best().unwrap());
            }
            for entry in Device::survey() {
                println!("{}: {:?} {:?}", entry.backend, entry.devices, entry.absent);
            }
            return;
        }
        let nowhere = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, "nowhere.json"));
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "--exact"])
            .arg("failures::without_a_gpu_the_cpu_is_taken_and_that_is_said_once")
            .env_remove("SALAMANDER_DEVICE")
            .env(CHILD, "")
            .envs(nowhere)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}");
        if said.contains("taken: wgpu") {
            println!("skipped: there is a GPU by another driver than Vulkan's");
            return;
        }
        assert_eq!(said.matches("taken: flex").count(), 2, "{said}");
        assert_eq!(said.matches("no GPU can be used").count(), 1, "{said}");
    }

    /// The value of a future that is never long in coming.
    fn wait<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(value) = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                return value;
            }
            std::thread::yield_now();
        }
    }

    /// A device that an application has made, and the application's handle of it.
    fn own_device() -> Option<(Device, wgpu::Device)> {
        let instance = wgpu::Instance::default();
        let adapter =
            wait(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
        let unwanted =
            wgpu::Features::MAPPABLE_PRIMARY_BUFFERS.union(wgpu::Features::all_experimental_mask());
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features().difference(unwanted),
            required_limits: adapter.limits(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = wait(adapter.request_device(&descriptor)).unwrap();
        let setup = WgpuSetup {
            backend: adapter.get_info().backend,
            device: device.clone(),
            instance,
            adapter,
            queue,
        };
        Some((Device::shared_wgpu(setup).unwrap(), device))
    }

    #[test]
    fn a_device_that_is_lost() {
        let picture = asset("cifar10/samples/cat.png");
        let Some((device, handle)) = own_device() else {
            println!("skipped: there is no adapter");
            return;
        };
        let open = |device: &Device| ImageClassification::open(asset("cifar10"), device);
        let task = open(&device).unwrap();
        let answer = task.run(&picture).unwrap();
        handle.destroy();
        for error in [task.run(&picture).err(), open(&device).err()] {
            assert!(
                matches!(&error, Some(Error::Device(DeviceError::Failed { device, .. })) if device == "wgpu"),
                "{error:?}"
            );
        }
        let task = open(&Device::flex()).unwrap();
        same(&task.run(&picture).unwrap(), &answer);
    }

    /// A BERT whose table of words has more bytes than a tensor may have, in a file that is mostly a hole.
    fn large_model(directory: &Path, bytes: u64) {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert/model");
        let stored = fs::read(fixture.join("model.safetensors")).unwrap();
        let (length, rest) = stored.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (header, data) = rest.split_at(length);
        let mut header: Value = serde_json::from_slice(header).unwrap();
        let begin = data.len() as u64;
        let words = bytes.div_ceil(16 * 4);
        // Where the table was lies a tensor that is passed over, as the format wants every byte used.
        let was = header["embeddings.word_embeddings.weight"]["data_offsets"].take();
        header["embeddings.position_ids"] =
            serde_json::json!({ "dtype": "F32", "shape": [60, 16], "data_offsets": was });
        header["embeddings.word_embeddings.weight"] = serde_json::json!({
            "dtype": "F32", "shape": [words, 16], "data_offsets": [begin, begin + words * 16 * 4],
        });
        let mut header = header.to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut file = File::create(directory.join("model.safetensors")).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(data).unwrap();
        file.set_len(8 + header.len() as u64 + begin + words * 16 * 4)
            .unwrap();
        let config = fs::read(fixture.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["vocab_size"] = words.into();
        fs::write(directory.join("config.json"), config.to_string()).unwrap();
    }

    #[test]
    fn more_than_a_tensor_may_have() {
        let device = Device::from_env().unwrap();
        let Some(largest) = device
            .info()
            .largest_tensor
            .filter(|bytes| *bytes < 1 << 32)
        else {
            println!("skipped: {device} has no such limit");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        large_model(directory.path(), largest + 1);
        let error = Network::open(directory.path(), None, &device).unwrap_err();
        let Error::Device(DeviceError::OutOfMemory {
            device: named,
            bytes,
            ..
        }) = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*named, device.to_string());
        assert!(bytes.is_some_and(|bytes| bytes > largest), "{error}");
        // Nothing is broken by it: opening a device has it compute.
        device.to_string().parse::<Device>().unwrap();
    }
}
