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
use salamander::tasks::{Forecast, ForecastOptions, Forecasted, Missing, Table, TableOptions};
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
fn golden(tensors: &Checkpoint, name: &str) -> Option<Vec<f64>> {
    let data = tensors.get(name)?.read().unwrap();
    Some(data.iter::<f64>().collect())
}

/// The windows of a fixture as tables, with NaN where nothing was observed.
fn tables(tensors: &Checkpoint) -> Vec<Table> {
    let shape = &tensors.get("input.past_values").unwrap().shape;
    let (steps, series) = (shape[1], shape[2]);
    let mut values = golden(tensors, "input.past_values").unwrap();
    if let Some(observed) = golden(tensors, "input.past_observed_mask") {
        for (value, observed) in values.iter_mut().zip(observed) {
            if observed == 0.0 {
                *value = f64::NAN;
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
fn flat(answers: &[Forecasted], of: impl Fn(usize, &Forecasted) -> Vec<f64>) -> Vec<f64> {
    let mut values = Vec::new();
    for answer in answers {
        let columns: Vec<Vec<f64>> = (0..answer.series.len()).map(|c| of(c, answer)).collect();
        for step in 0..columns[0].len() {
            values.extend(columns.iter().map(|column| column[step]));
        }
    }
    values
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], name: &str) {
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
                missing: Missing::Mask,
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
        let masked = ForecastOptions {
            missing: Missing::Mask,
            ..ForecastOptions::default()
        };
        let task = open(name).with_options(masked).unwrap();
        let answers = task.run_batch(&tables(&tensors), 5).unwrap();
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
        (Table::new(names(3), Vec::<f64>::new()), "has 0 rows"),
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
    let table = Table::new(names(3), values);
    let task_of = |missing| {
        let options = ForecastOptions {
            missing,
            ..ForecastOptions::default()
        };
        open("original-default").with_options(options).unwrap()
    };
    for missing in [Missing::Refuse, Missing::Mask] {
        let error = task_of(missing).run(&table, 5).unwrap_err().to_string();
        assert!(
            error.contains("missing values") && error.contains("--missing"),
            "{error}"
        );
    }
    let answer = task_of(Missing::Interpolate).run(&table, 5).unwrap();
    let missing: Vec<usize> = answer.series.iter().map(|series| series.missing).collect();
    assert_eq!(missing, [1, 0, 0]);
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

/// `tests/fixtures/frequencies.json` has timestamps, and what pandas says of them.
#[test]
fn frequencies_are_those_of_pandas() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/frequencies.json"
    );
    let entries: Vec<serde_json::Value> =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let texts = |value: &serde_json::Value| -> Vec<String> {
        let texts = value.as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let mut checked = 0;
    for entry in &entries {
        let stamps = texts(&entry["stamps"]);
        let rows: Vec<String> = stamps.iter().map(|stamp| format!("{stamp},1\n")).collect();
        let text = format!("ds,y\n{}", rows.concat());
        let given = entry["given"].as_str().map(str::to_owned);
        for frequency in [None, given.clone()] {
            let options = TableOptions {
                frequency: frequency.clone(),
                ..TableOptions::default()
            };
            let table = Table::parse(text.as_bytes(), &options).unwrap();
            let found = table.frequency().unwrap();
            if let Some(expected) = entry["frequency"].as_str().or(given.as_deref()) {
                assert_eq!(found, expected, "{stamps:?}");
                checked += 1;
            }
            let next = texts(&entry["next"]);
            let after: Vec<String> = (1..=next.len())
                .filter_map(|k| table.time_after(k))
                .collect();
            assert_eq!(after, next, "{stamps:?} by {found}");
            if let Some(steps) = entry["steps"].as_array() {
                let last = table.last(99);
                let observed: Vec<u64> = (0..)
                    .zip(&last)
                    .filter(|(_, v)| !v.is_nan())
                    .map(|(k, _)| k)
                    .collect();
                let expected: Vec<u64> = steps.iter().map(|step| step.as_u64().unwrap()).collect();
                assert_eq!(observed, expected, "{stamps:?} by {found}");
            }
        }
    }
    assert!(checked > 150, "{checked}");
}

/// The end of the shipped sample, with other timestamps and values.
fn sample(
    rows: usize,
    stamp: impl Fn(usize) -> String,
    value: impl Fn(usize, f64) -> String,
) -> String {
    let bytes = fs::read(Path::new(SHIPPED).join("sample.csv")).unwrap();
    let table = Table::parse(&bytes, &TableOptions::default()).unwrap();
    let mut text = format!("when,{}\n", table.names().join(","));
    // It has a few gaps of its own.
    let values = table.window(rows, Missing::Interpolate).values;
    for (row, values) in values.chunks(table.names().len()).enumerate() {
        text += &stamp(row);
        for number in values {
            text += ",";
            text += &value(row, *number);
        }
        text += "\n";
    }
    text
}

/// A day after 2023-01-02, a Monday.
fn date(day: usize) -> String {
    let table = Table::parse(
        b"d,a\n2023-01-01,1\n2023-01-02,1\n",
        &TableOptions::default(),
    )
    .unwrap();
    if day == 0 {
        table.time(1).unwrap()
    } else {
        table.time_after(day).unwrap()
    }
}

fn forecast(task: &Forecast, text: &str) -> (Table, Forecasted) {
    let table = Table::parse(text.as_bytes(), &TableOptions::default()).unwrap();
    let answer = task.run(&table, 4).unwrap();
    (table, answer)
}

#[test]
fn weekends_are_not_missing_and_holidays_are_filled() {
    let task = Forecast::open(SHIPPED, &device()).unwrap();
    let as_is = |_: usize, value: f64| value.to_string();
    let (_, daily) = forecast(&task, &sample(400, date, as_is));
    let weekday = |row: usize| date(row / 5 * 7 + row % 5);
    let (table, business) = forecast(&task, &sample(400, weekday, as_is));
    assert_eq!(table.frequency().as_deref(), Some("B"));
    assert_eq!(business.series, daily.series);
    assert!(business.series.iter().all(|series| series.missing == 0));
    // The 400th is a Friday.
    let next: Vec<String> = [560, 561, 562, 563].map(date).to_vec();
    assert_eq!(business.timestamps.unwrap(), next);
    // A holiday is a step of the frequency.
    let text = sample(400, weekday, as_is);
    let holiday: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(line, _)| *line != 371)
        .map(|(_, line)| line)
        .collect();
    let (table, answer) = forecast(&task, &(holiday.join("\n") + "\n"));
    assert_eq!(table.frequency().as_deref(), Some("B"));
    assert!(answer.series.iter().all(|series| series.missing == 1));
}

#[test]
fn what_is_missing_is_filled_as_it_is_said() {
    let task = Forecast::open(SHIPPED, &device()).unwrap();
    let with = |missing| {
        let options = ForecastOptions {
            missing,
            ..ForecastOptions::default()
        };
        task.clone().with_options(options).unwrap()
    };
    let gaps = [100, 101, 102, 250, 398, 399];
    let gappy = |row: usize, value: f64| {
        if gaps.contains(&row) {
            "NA".to_owned()
        } else {
            value.to_string()
        }
    };
    let text = sample(400, date, gappy);
    let whole = sample(400, date, |_, value| value.to_string());
    let (whole, expected) = forecast(&task, &whole);
    for (missing, filled) in [
        (Missing::Interpolate, None),
        (Missing::Last, None),
        (Missing::Mean, None),
        (Missing::Zero, Some(0.0)),
    ] {
        let (table, answer) = forecast(&with(missing), &text);
        assert!(
            answer.series.iter().all(|series| series.missing == 6),
            "{missing:?}"
        );
        // As if the table had been filled before.
        let mut window = table.window(336, missing).values;
        assert!(window.iter().all(|value| value.is_finite()));
        let again = task
            .run(&Table::new(table.names().to_vec(), window.clone()), 4)
            .unwrap();
        for (found, expected) in answer.series.iter().zip(&again.series) {
            assert_eq!(found.mean, expected.mean, "{missing:?}");
        }
        let column: Vec<f64> = window.drain(..).step_by(7).collect();
        if let Some(filled) = filled {
            assert_eq!(column[335], filled);
        }
        if missing == Missing::Interpolate {
            let (before, after) = (whole.row(99)[0], whole.row(103)[0]);
            assert!((column[101 - 64] - f64::midpoint(before, after)).abs() < 1e-9);
            assert_eq!(column[335], whole.row(397)[0]);
            // What is filled is near enough.
            for (found, expected) in answer.series.iter().zip(&expected.series) {
                let spread = whole.values().iter().map(|v| v.abs()).fold(0.0, f64::max);
                assert!((found.mean[0] - expected.mean[0]).abs() < 0.25 * spread);
            }
        }
    }
    let table = Table::parse(text.as_bytes(), &TableOptions::default()).unwrap();
    let error = with(Missing::Refuse)
        .run(&table, 4)
        .unwrap_err()
        .to_string();
    assert!(error.contains("6 of `"), "{error}");
    // The reference's mask leaves zeros in.
    let masked = with(Missing::Mask).run(&table, 4).unwrap();
    let zero = with(Missing::Zero).run(&table, 4).unwrap();
    assert_ne!(masked.series[0].mean, zero.series[0].mean);
}

/// A level far above the spread changes nothing but the level.
#[test]
fn far_levels_lose_no_digits() {
    for (name, rows) in [(SHIPPED, 400), ("original-default", 20), ("prediction", 20)] {
        let model = if name == SHIPPED {
            PathBuf::from(name)
        } else {
            fixture(name)
        };
        let task = Forecast::open(model, &device()).unwrap();
        let series = task.forecasts().channels.unwrap_or(3);
        // Values that a level of a billion and a half leaves exact in f64.
        let wave = |index: usize| ((index as f64 * 0.37).sin() * 4_000.0).round() / 4.0;
        let table = |level: f64, scale: f64| {
            let values: Vec<f64> = (0..rows * series)
                .map(|index| level + scale * wave(index))
                .collect();
            Table::new((0..series).map(|index| index.to_string()).collect(), values)
        };
        let near = task.run(&table(0.0, 1.0), 5).unwrap();
        for (level, scale) in [(1.7e9, 1.0), (-1e6, 1.0 / 32.0), (0.0, 1e30), (1e38, 1e35)] {
            let far = task.run(&table(level, scale), 5).unwrap();
            let unit = task
                .run(&table(0.0, if scale > 1.0 { 1e9 } else { scale }), 5)
                .unwrap();
            for (far, unit) in far.series.iter().zip(&unit.series) {
                let moved = scale / if scale > 1.0 { 1e9 } else { scale };
                for (far, unit) in far.mean.iter().zip(&unit.mean) {
                    let error = ((far - level) / moved - unit).abs() / (1_000.0 * scale / moved);
                    assert!(error < 2e-5, "{name} {level} {scale}: {far}, {unit}");
                }
            }
        }
        assert_eq!(near.series.len(), series);
    }
}

#[test]
fn infinite_forecasts_are_errors() {
    // Without a scaling nothing keeps large values small.
    let directory = tempfile::tempdir().unwrap();
    let source = fixture("prediction");
    let weights = directory.path().join("model.safetensors");
    fs::copy(source.join("model.safetensors"), weights).unwrap();
    let text = fs::read_to_string(source.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["scaling"] = serde_json::Value::Null;
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let task = Forecast::open(directory.path(), &device()).unwrap();
    let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let table = |value: f64| Table::new(names.clone(), vec![value; 60]);
    let error = task.run(&table(3e38), 5).unwrap_err().to_string();
    assert!(
        error.contains("forecast of `a` is") && error.contains("from step 1 on"),
        "{error}"
    );
    let error = task.run(&table(1e39), 5).unwrap_err().to_string();
    assert!(error.contains("too large for the model"), "{error}");
    assert!(task.run(&table(1.0), 5).is_ok());
}

/// MSE and MAE on the test months of ETTh1, as the authors' repository takes them: all series, batches of
/// 128, the last and not full one dropped.
fn score(task: &Forecast, table: &Table) -> (f64, f64) {
    const MONTH: usize = 30 * 24;
    let (context, horizon) = (task.forecasts().context, task.forecasts().horizon);
    let width = table.names().len();
    let mut values: Vec<f32> = table.values().iter().map(|value| *value as f32).collect();
    for column in 0..width {
        let train = || {
            let rows = table.values().iter().skip(column).step_by(width);
            rows.take(12 * MONTH).copied()
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
