//! The forecast task: held against the reference's distributions, rolled, on recorded scores, and on tables
//! that are not as they should be.
//!
//! The recorded scores need files that do not belong to the project: `SALAMANDER_PATCHTST` names a folder
//! with `ETTh1.csv` of zhouhaoyi/ETDataset and, as written by `tools/convert/patchtst.py`,
//! `96/model.safetensors` and `192/model.safetensors` of the kemezeto/PatchTST checkpoints
//! `ETTh1_336_96` and `ETTh1_336_192`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use salamander::importers::Checkpoint;
use salamander::tasks::{Forecast, ForecastOptions, Forecasted, Table, TableOptions};
use salamander::{Device, Error, Network};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/forecast");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/patchtst")
        .join(name)
}

fn device() -> Device {
    Device::from_env().unwrap()
}

fn open(name: &str) -> Forecast {
    Forecast::open(fixture(name), &device()).unwrap()
}

/// A golden tensor, flat.
fn golden(tensors: &Checkpoint, name: &str) -> Option<Vec<f32>> {
    let data = tensors.get(name)?.read().unwrap();
    Some(data.iter::<f32>().collect())
}

/// The windows of a fixture as tables, with NaN where nothing was observed.
fn tables(tensors: &Checkpoint) -> Vec<Table> {
    let shape = &tensors.get("input.past_values").unwrap().shape;
    let (steps, series) = (shape[1], shape[2]);
    let mut values = golden(tensors, "input.past_values").unwrap();
    if let Some(observed) = golden(tensors, "input.past_observed_mask") {
        for (value, observed) in values.iter_mut().zip(observed) {
            if observed == 0.0 {
                *value = f32::NAN;
            }
        }
    }
    let names: Vec<String> = (0..series).map(|index| format!("s{index}")).collect();
    let windows = values.chunks(steps * series);
    windows
        .map(|window| Table::new(names.clone(), window.to_vec()))
        .collect()
}

/// One number a step and series, in the order of the reference's `[windows, steps, series]`.
fn flat(answers: &[Forecasted], of: impl Fn(usize, &Forecasted) -> Vec<f32>) -> Vec<f32> {
    let mut values = Vec::new();
    for answer in answers {
        let columns: Vec<Vec<f32>> = (0..answer.series.len()).map(|c| of(c, answer)).collect();
        for step in 0..columns[0].len() {
            values.extend(columns.iter().map(|column| column[step]));
        }
    }
    values
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        let tolerance = 2e-4 * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() < tolerance,
            "{name}: {found} for {expected}"
        );
    }
}

#[test]
fn distributions_are_those_of_the_reference() {
    for name in [
        "prediction-student-t",
        "prediction-normal",
        "prediction-negative-binomial",
    ] {
        let tensors = Checkpoint::open(fixture(name).join("golden.safetensors")).unwrap();
        let task = open(name)
            .with_options(ForecastOptions {
                quantiles: vec![0.05, 0.5, 0.9],
                ..ForecastOptions::default()
            })
            .unwrap();
        let tables = tables(&tensors);
        let answers = task.run_batch(&tables, 5).unwrap();
        let means = flat(&answers, |c, answer| answer.series[c].mean.clone());
        close(
            &means,
            &golden(&tensors, "distribution.mean").unwrap(),
            name,
        );
        for (index, p) in ["0.05", "0.5", "0.9"].into_iter().enumerate() {
            let found = flat(&answers, |c, answer| {
                answer.series[c].quantiles[index].values.clone()
            });
            let key = format!("distribution.quantile.{p}");
            close(
                &found,
                &golden(&tensors, &key).unwrap(),
                &format!("{name} {p}"),
            );
        }
    }
}

#[test]
fn values_are_those_of_the_network() {
    for name in ["prediction", "original-affine"] {
        let tensors = Checkpoint::open(fixture(name).join("golden.safetensors")).unwrap();
        let answers = open(name).run_batch(&tables(&tensors), 5).unwrap();
        let means = flat(&answers, |c, answer| answer.series[c].mean.clone());
        close(
            &means,
            &golden(&tensors, "output.prediction_outputs").unwrap(),
            name,
        );
        assert!(answers[0].series[0].quantiles.is_empty());
        assert!(answers[0].timestamps.is_none());
    }
}

#[test]
fn a_longer_horizon_goes_on_from_the_forecast() {
    let task = open("original-default");
    let tensors = Checkpoint::open(fixture("original-default").join("golden.safetensors")).unwrap();
    let table = tables(&tensors).remove(0);
    let long = task.run(&table, 12).unwrap();
    let short = task.run(&table, 5).unwrap();
    // The second stretch is what the network says when it is told the first.
    let mut values = table.values().to_vec();
    values.extend(flat(std::slice::from_ref(&short), |c, answer| {
        answer.series[c].mean.clone()
    }));
    let told = Table::new(table.names().to_vec(), values);
    let next = task.run(&told, 5).unwrap();
    for column in 0..3 {
        let mean = &long.series[column].mean;
        assert_eq!(mean.len(), 12);
        close(&mean[..5], &short.series[column].mean, "first stretch");
        close(&mean[5..10], &next.series[column].mean, "second stretch");
    }
}

#[test]
fn paths_are_drawn_alike_and_spread() {
    let task = Forecast::open(SHIPPED, &device()).unwrap();
    let options = |seed| ForecastOptions {
        paths: 8,
        seed,
        ..ForecastOptions::default()
    };
    let sample = Path::new(SHIPPED).join("sample.csv");
    let run = |seed| {
        let task = task.clone().with_options(options(seed)).unwrap();
        task.run_csv(&sample, &TableOptions::default(), 120)
            .unwrap()
    };
    let (table, forecast) = run(1);
    assert_eq!(table.len(), 720);
    assert_eq!(run(1).1, forecast);
    assert_ne!(run(2).1, forecast);
    let stamps = forecast.timestamps.as_ref().unwrap();
    assert_eq!((stamps.len(), &stamps[0][..]), (120, "2024-01-31 00:00:00"));
    for series in &forecast.series {
        let [low, middle, high] = &series.quantiles[..] else {
            unreachable!();
        };
        for step in 0..120 {
            let values = [low.values[step], middle.values[step], high.values[step]];
            assert!(values.is_sorted() && values.iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let task = open("prediction");
    let names = |count: usize| (0..count).map(|index| format!("s{index}")).collect();
    for (table, says) in [
        (
            Table::new(names(3), vec![1.0; 3 * 19]),
            "has 19 rows, the model looks back on 20",
        ),
        (
            Table::new(names(2), vec![1.0; 2 * 20]),
            "has 2 series (s0, s1), the model takes 3",
        ),
        (Table::new(names(3), Vec::new()), "has 0 rows"),
        (Table::new(Vec::new(), vec![1.0; 60]), "has 0 series"),
        (Table::new(names(3), vec![f32::NAN; 60]), "no value of `s0`"),
    ] {
        let error = task.run(&table, 5).unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    let whole = Table::new(names(3), vec![1.0; 60]);
    let error = task.run(&whole, 0).unwrap_err().to_string();
    assert!(error.contains("`horizon`: 0 steps"), "{error}");
    let mut values = vec![1.0; 60];
    values[30] = f32::NAN;
    let error = open("original-default").run(&Table::new(names(3), values), 5);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("missing values"), "{error}");
    for options in [
        ForecastOptions {
            quantiles: vec![0.5, 1.0],
            ..ForecastOptions::default()
        },
        ForecastOptions {
            paths: 0,
            ..ForecastOptions::default()
        },
    ] {
        assert!(task.clone().with_options(options).is_err());
    }
    assert!(task.means(&[1.0; 61], 3).is_err());
    let Err(error) = Forecast::open(fixture("classification"), &device()) else {
        unreachable!();
    };
    assert!(matches!(error, Error::Keys(_)), "{error}");
    let Err(error) = Forecast::open_as(
        fixture("classification"),
        "PatchTSTForClassification",
        &device(),
    ) else {
        unreachable!();
    };
    assert!(error.to_string().contains("does not forecast"), "{error}");
}

#[test]
fn files_that_are_no_tables_say_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("series.csv");
    let task = open("prediction");
    for (text, says) in [
        ("a,b,c\n1,2,3\n4,5\n", "line 3 has 2 cells"),
        (
            "a,b,c\n1,2,3\n4,5,six\n",
            "line 3, column `c`: \"six\" is not a number",
        ),
        ("", "has no rows"),
        ("a,b,c\n1,2,3\n", "has 1 rows, the model looks back on 20"),
        ("a,b\n1,2\n", "has 2 series (a, b)"),
    ] {
        fs::write(&path, text).unwrap();
        let error = task.run_csv(&path, &TableOptions::default(), 5);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{error} does not say {says}");
    }
    let error = task.run_csv(directory.path(), &TableOptions::default(), 5);
    assert!(matches!(error, Err(Error::Io { .. })));
}

#[test]
fn configurations_are_refused_by_field_and_value() {
    let refused = |case: &str, changes: serde_json::Value| {
        let directory = tempfile::tempdir().unwrap();
        let source = fixture(case);
        fs::copy(
            source.join("model.safetensors"),
            directory.path().join("model.safetensors"),
        )
        .unwrap();
        let text = fs::read_to_string(source.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (field, value) in changes.as_object().unwrap() {
            config[field] = value.clone();
        }
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let error = Network::open(directory.path(), None, &device()).unwrap_err();
        error.to_string()
    };
    use serde_json::json;
    for (changes, says) in [
        (json!({"norm_type": "rmsnorm"}), "`norm_type`: \"rmsnorm\""),
        (json!({"pooling_type": "sum"}), "`pooling_type`: \"sum\""),
        (json!({"scaling": "robust"}), "`scaling`"),
        (
            json!({"loss": "nll", "distribution_output": "cauchy"}),
            "`distribution_output`: \"cauchy\"",
        ),
        (
            json!({"num_attention_heads": 3}),
            "`num_attention_heads`: 3 heads do not divide",
        ),
        (json!({"patch_stride": 0}), "`patch_stride`: 0"),
        (json!({"context_length": 4}), "`context_length`: 4"),
        (
            json!({"activation_function": "sine"}),
            "`activation_function`: \"sine\"",
        ),
        (
            json!({"positional_encoding_type": "rope"}),
            "`positional_encoding_type`: \"rope\"",
        ),
        (
            json!({"num_hidden_layers": 1_000_000_000}),
            "`num_hidden_layers`: 1000000000",
        ),
        (json!({"d_model": -8}), "`d_model`"),
        (json!({"context_length": 1 << 19}), "position_enc"),
        (json!({"channel_attention": true}), "norm_sublayer2"),
        (json!({"prediction_length": 6}), "head.projection"),
    ] {
        let error = refused("prediction", changes);
        assert!(error.contains(says), "{error} does not say {says}");
    }
    let error = refused("classification", json!({"pooling_type": null}));
    assert!(error.contains("`pooling_type`: null"), "{error}");
    let masks = json!({"mask_type": "forecast", "num_forecast_mask_patches": 99});
    let error = refused("pretraining-none", masks);
    assert!(error.contains("`num_forecast_mask_patches`: 99"), "{error}");
    for (changes, says) in [
        (json!({"revin": 2}), "`revin`: 2"),
        (json!({"n_heads": 3}), "`n_heads`: 3 heads do not divide"),
        (
            json!({"padding_patch": "start"}),
            "`padding_patch`: \"start\"",
        ),
        (json!({"kernel_size": 4}), "`kernel_size`: 4 is even"),
        (json!({"individual": 1}), "head.linears.0"),
    ] {
        let error = refused("original-default", changes);
        assert!(error.contains(says), "{error} does not say {says}");
    }
}

/// MSE and MAE on the test months of ETTh1, as the authors' repository takes them: all series, batches of
/// 128, the last and not full one dropped.
fn score(task: &Forecast, table: &Table) -> (f64, f64) {
    const MONTH: usize = 30 * 24;
    let (context, horizon) = (task.forecasts().context, task.forecasts().horizon);
    let width = table.names().len();
    let mut values = table.values().to_vec();
    for column in 0..width {
        let train = || {
            let rows = table.values().iter().skip(column).step_by(width);
            rows.take(12 * MONTH).map(|value| f64::from(*value))
        };
        let mean = train().sum::<f64>() / (12 * MONTH) as f64;
        let variance = train().map(|value| (value - mean).powi(2)).sum::<f64>();
        let deviation = (variance / (12 * MONTH) as f64).sqrt();
        for value in values.iter_mut().skip(column).step_by(width) {
            *value = ((f64::from(*value) - mean) / deviation) as f32;
        }
    }
    let windows = (4 * MONTH + 1 - horizon) / 128 * 128;
    let (mut squares, mut absolutes, mut count) = (0.0, 0.0, 0.0);
    let starts: Vec<usize> = (16 * MONTH..16 * MONTH + windows).collect();
    for batch in starts.chunks(128) {
        let part = |from: usize, to: usize| &values[from * width..to * width];
        let past = batch.iter().flat_map(|start| part(start - context, *start));
        let means = task
            .means(&past.copied().collect::<Vec<f32>>(), width)
            .unwrap();
        let future = batch.iter().flat_map(|start| part(*start, start + horizon));
        for (mean, value) in means.iter().zip(future) {
            let error = f64::from(mean - value);
            squares += error * error;
            absolutes += error.abs();
            count += 1.0;
        }
    }
    (squares / count, absolutes / count)
}

#[test]
fn recorded_scores_are_reproduced() {
    let Some(folder) = std::env::var_os("SALAMANDER_PATCHTST").map(PathBuf::from) else {
        println!("skipped: SALAMANDER_PATCHTST names no folder with ETTh1.csv and checkpoints");
        return;
    };
    let bytes = fs::read(folder.join("ETTh1.csv")).unwrap();
    let table = Table::parse(&bytes, &TableOptions::default()).unwrap();
    for (horizon, recorded) in [
        ("96", (0.381_493_985_652_923_6, 0.404_951_781_034_469_6)),
        ("192", (0.413_612_931_966_781_6, 0.421_064_257_621_765_14)),
    ] {
        let task = Forecast::open_as(folder.join(horizon), "patchtst/original", &device()).unwrap();
        let (mse, mae) = score(&task, &table);
        println!("horizon {horizon}: MSE {mse:.6}, MAE {mae:.6}");
        assert!(
            (mse - recorded.0).abs() < 5e-6,
            "MSE {mse} for {}",
            recorded.0
        );
        assert!(
            (mae - recorded.1).abs() < 5e-6,
            "MAE {mae} for {}",
            recorded.1
        );
    }
}
