//! Trained CIFAR ResNets against the reference, picture by picture.
//!
//! Runs where `SALAMANDER_RESNET_CIFAR` names the folder that `tools/evaluate/resnet_cifar.py` writes.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;

use salamander::Device;
use salamander::importers::Checkpoint;
use salamander::models::processing::image::Image;
use salamander::tasks::{ClassificationFunction, ImageClassification, ImageClassificationOptions};

#[test]
fn trained_models_answer_as_the_reference() {
    let Some(folder) = std::env::var_os("SALAMANDER_RESNET_CIFAR").map(PathBuf::from) else {
        println!("skipped: SALAMANDER_RESNET_CIFAR is not set");
        return;
    };
    let pool = Checkpoint::open(folder.join("pool.safetensors")).unwrap();
    let pictures = pool.get("pictures").unwrap().read().unwrap();
    let pictures = pictures.as_slice::<u8>().unwrap().chunks(32 * 32 * 3);
    let pictures: Vec<Image> = pictures
        .map(|pixels| Image::new(32, 32, pixels.to_vec()).unwrap())
        .collect();
    let labels = pool.get("labels").unwrap().read().unwrap();
    let labels = labels.as_slice::<i64>().unwrap();
    for depth in [20, 56] {
        let task = ImageClassification::open_as(
            folder.join(format!("resnet{depth}.safetensors")),
            &format!("cifar/resnet{depth}"),
            &Device::from_env().unwrap(),
        );
        let task = task.unwrap().with_options(ImageClassificationOptions {
            function: Some(ClassificationFunction::None),
            ..ImageClassificationOptions::default()
        });
        let answers = task.run_batch(&pictures).unwrap();
        let expected = pool.get(&format!("logits{depth}")).unwrap().read().unwrap();
        let expected = expected.as_slice::<f32>().unwrap();
        let (mut right, mut worst) = (0, 0.0_f32);
        for ((answer, label), logits) in answers.iter().zip(labels).zip(expected.chunks(10)) {
            for class in answer {
                let mut names = task.labels().iter();
                let index = names.position(|name| *name == class.name).unwrap();
                worst = worst.max((class.score - logits[index]).abs());
            }
            right += usize::from(answer[0].name == task.labels()[*label as usize]);
        }
        let share = 100.0 * right as f64 / labels.len() as f64;
        println!(
            "resnet{depth}: {right} of {} right ({share:.1} %), largest difference {worst:e}",
            labels.len()
        );
        assert!(worst <= 1e-3);
        assert!(share > 92.0);
    }
}
