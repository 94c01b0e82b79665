//! Measures a forecaster on the test months of ETTh1.
//!
//! ```sh
//! cargo run --release --example evaluate-forecast -- ETTh1.csv
//! ```
//!
//! The file is that of <https://github.com/zhouhaoyi/ETDataset> (CC BY-ND 4.0). Split, standardisation and
//! errors are those of the literature: 12 months train, 4 validate, 4 test, every window of the test
//! months, all series, in units of the training months' standard deviation. `--batch 128 --drop-last`
//! leaves out the last windows, as the loader of the authors' repository does.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use salamander::Device;
use salamander::tasks::{Forecast, Table, TableOptions};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/forecast");

/// Measures a forecaster on the test months of ETTh1.
#[derive(Parser)]
struct Arguments {
    /// ETTh1.csv
    #[arg(value_name = "CSV")]
    data: PathBuf,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
    /// The layout of the weights where there is no config.json, for instance patchtst/original
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// How many windows run together
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Leave out the windows that fill no batch
    #[arg(long)]
    drop_last: bool,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
}

const MONTH: usize = 30 * 24;
const TRAIN: usize = 12 * MONTH;
const TEST: std::ops::Range<usize> = 16 * MONTH..20 * MONTH;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    let task = match &arguments.architecture {
        Some(class) => Forecast::open_as(&arguments.model, class, &device)?,
        None => Forecast::open(&arguments.model, &device)?,
    };
    let name = arguments.data.display();
    let bytes = std::fs::read(&arguments.data).map_err(|error| format!("{name}: {error}"))?;
    let table = Table::parse(&bytes, &TableOptions::default())
        .map_err(|error| format!("{name}: {error}"))?;
    if table.len() < TEST.end {
        return Err(format!("{name}: {} rows, not {}", table.len(), TEST.end).into());
    }
    let width = table.names().len();
    let values = standardised(&table);

    let (context, horizon) = (task.forecasts().context, task.forecasts().horizon);
    let mut windows = TEST.len() + 1 - horizon;
    if arguments.drop_last {
        windows -= windows % arguments.batch;
    }
    let bar = ProgressBar::new(windows as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} windows {per_sec} {eta} left",
    )?);
    let (mut squares, mut absolutes, mut count) = (0.0, 0.0, 0_u64);
    let starts: Vec<usize> = (TEST.start..TEST.start + windows).collect();
    for batch in starts.chunks(arguments.batch.max(1)) {
        let past = batch.iter().flat_map(|start| {
            values[(start - context) * width..start * width]
                .iter()
                .copied()
        });
        let past: Vec<f32> = past.collect();
        let means = task.means(&past, width)?;
        let future = batch
            .iter()
            .flat_map(|start| &values[start * width..(start + horizon) * width]);
        for (mean, value) in means.iter().zip(future) {
            let error = f64::from(mean - value);
            squares += error * error;
            absolutes += error.abs();
            count += 1;
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    let (mse, mae) = (squares / count as f64, absolutes / count as f64);
    println!(
        "MSE {mse:.6}  MAE {mae:.6}  ({windows} windows of {context} → {horizon} steps, on {device})"
    );
    Ok(())
}

/// The values in units of the training rows' standard deviation, from their mean.
fn standardised(table: &Table) -> Vec<f32> {
    let width = table.names().len();
    let mut values: Vec<f32> = table.values().iter().map(|value| *value as f32).collect();
    for column in 0..width {
        let train = || {
            let rows = table
                .values()
                .iter()
                .skip(column)
                .step_by(width)
                .take(TRAIN);
            rows.copied()
        };
        let mean = train().sum::<f64>() / TRAIN as f64;
        let variance = train().map(|value| (value - mean).powi(2)).sum::<f64>() / TRAIN as f64;
        for value in values.iter_mut().skip(column).step_by(width) {
            *value = ((f64::from(*value) - mean) / variance.sqrt()) as f32;
        }
    }
    values
}
