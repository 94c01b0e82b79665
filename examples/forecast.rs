//! A table in, its future out: as CSV and as a picture.
//!
//! ```sh
//! cargo run --release --example forecast
//! cargo run --release --example forecast -- ETTh1.csv --horizon 192 --plot etth1.png
//! ```
//!
//! Without arguments it forecasts the made-up hourly measurements that come with the repository by the
//! PatchTST that comes with it, which was trained on the seven series of ETTh1 and takes any seven hourly
//! ones. `--model` takes a directory, or with `--features hub` a hub id.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use plotters::prelude::*;
use salamander::Device;
use salamander::tasks::{
    Forecast, ForecastOptions, Forecasted, SeriesForecast, Table, TableOptions,
};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/forecast");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/forecast/sample.csv");
const FONT: &[u8] = include_bytes!("../assets/fonts/DejaVuSans-subset.ttf");

/// Forecasts the series of a CSV file.
#[derive(Parser)]
struct Arguments {
    /// A column a series, a row a step, the newest last
    #[arg(value_name = "CSV", default_value = SAMPLE, hide_default_value = true)]
    data: PathBuf,
    /// A model directory or a hub id
    #[arg(long, default_value = SHIPPED, hide_default_value = true)]
    model: PathBuf,
    /// How many steps to forecast; by default what the model gives at once
    #[arg(long, value_name = "STEPS")]
    horizon: Option<usize>,
    /// A column to forecast; may be given several times; by default all but the timestamps
    #[arg(long = "column", value_name = "NAME")]
    columns: Vec<String>,
    /// The ends of the interval: the probabilities below and above it
    #[arg(long, value_name = "P", num_args = 2, default_values_t = [0.1, 0.9])]
    interval: Vec<f64>,
    /// Where to write the forecast
    #[arg(long, value_name = "FILE", default_value = "forecast.csv")]
    output: PathBuf,
    /// Where to draw the forecast
    #[arg(long, value_name = "FILE", default_value = "forecast.png")]
    plot: PathBuf,
    /// flex, wgpu, cuda:0, …, or auto
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let device = match arguments.device {
        Some(name) => name.parse()?,
        None => Device::from_env()?,
    };
    let task = Forecast::open(&arguments.model, &device)?.with_options(ForecastOptions {
        quantiles: arguments.interval,
        ..ForecastOptions::default()
    })?;
    let columns = TableOptions {
        columns: (!arguments.columns.is_empty()).then_some(arguments.columns),
        ..TableOptions::default()
    };
    let horizon = arguments.horizon.unwrap_or(task.forecasts().horizon);
    let (past, forecast) = task.run_csv(&arguments.data, &columns, horizon)?;
    write(&arguments.output, &past, &forecast)?;
    draw(&arguments.plot, &past, &forecast)?;
    println!(
        "{horizon} steps of {} series after {} rows, on {}: {}, {}",
        forecast.series.len(),
        past.len(),
        task.device(),
        arguments.output.display(),
        arguments.plot.display()
    );
    Ok(())
}

/// Writes a row a step: the mean of each series, and the ends of its interval.
fn write(path: &Path, past: &Table, forecast: &Forecasted) -> Result<(), Box<dyn Error>> {
    let mut out = csv::Writer::from_path(path)?;
    let mut header = vec![past.time_name().unwrap_or("step").to_owned()];
    for series in &forecast.series {
        header.push(series.name.clone());
        let quantiles = series.quantiles.iter();
        header.extend(quantiles.map(|q| format!("{} {}", series.name, q.probability)));
    }
    out.write_record(&header)?;
    for step in 0..forecast.series[0].mean.len() {
        let mut record = vec![match &forecast.timestamps {
            Some(timestamps) => timestamps[step].clone(),
            None => (step + 1).to_string(),
        }];
        for series in &forecast.series {
            record.push(series.mean[step].to_string());
            let quantiles = series.quantiles.iter();
            record.extend(quantiles.map(|q| q.values[step].to_string()));
        }
        out.write_record(&record)?;
    }
    Ok(out.flush()?)
}

const WIDTH: u32 = 1200;
const ROW: u32 = 210;
const TITLE: u32 = 60;
const PAST: RGBColor = RGBColor(60, 60, 60);
const FUTURE: RGBColor = RGBColor(0, 98, 190);

/// Draws the end of the past and the forecast of each series, one below the other.
fn draw(path: &Path, past: &Table, forecast: &Forecasted) -> Result<(), Box<dyn Error>> {
    // A font of our own, so that the picture is the same on every machine.
    plotters::style::register_font("sans-serif", FontStyle::Normal, FONT)
        .map_err(|_| "the font is not valid")?;
    let height = TITLE + ROW * forecast.series.len() as u32;
    let mut pixels = vec![255; (WIDTH * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (WIDTH, height)).into_drawing_area();
        let (title, charts) = area.split_vertically(TITLE);
        legend(&title, &forecast.series[0])?;
        let charts = charts.split_evenly((forecast.series.len(), 1));
        for (column, (chart, series)) in charts.iter().zip(&forecast.series).enumerate() {
            draw_series(chart, past, column, forecast, series)?;
        }
        area.present()?;
    }
    std::fs::write(path, png(&pixels, WIDTH, height))?;
    Ok(())
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

fn legend(area: &Area<'_>, series: &SeriesForecast) -> Result<(), Box<dyn Error>> {
    let text = |x, text: &str| Text::new(text.to_owned(), (x, 22), ("sans-serif", 20));
    let line =
        |x, color: RGBColor| PathElement::new(vec![(x, 32), (x + 30, 32)], color.stroke_width(3));
    area.draw(&line(70, PAST))?;
    area.draw(&text(108, "past"))?;
    area.draw(&line(190, FUTURE))?;
    area.draw(&text(228, "forecast"))?;
    if let [low, .., high] = &series.quantiles[..] {
        area.draw(&Rectangle::new(
            [(340, 24), (370, 40)],
            FUTURE.mix(0.25).filled(),
        ))?;
        let share = 100.0 * (high.probability - low.probability).abs();
        area.draw(&text(378, &format!("{share:.0} % interval")))?;
    }
    Ok(())
}

fn draw_series(
    area: &Area<'_>,
    past: &Table,
    column: usize,
    forecast: &Forecasted,
    series: &SeriesForecast,
) -> Result<(), Box<dyn Error>> {
    let horizon = series.mean.len();
    // Twice as much past as future, so that both can be read.
    let shown = past.len().min(2 * horizon);
    let first = past.len() - shown;
    let observed: Vec<(i32, f64)> = (0..shown)
        .map(|step| {
            (
                step as i32 - shown as i32 + 1,
                past.row(first + step)[column],
            )
        })
        .filter(|(_, value)| value.is_finite())
        .collect();
    let ahead = |values: &[f64]| -> Vec<(i32, f64)> { (1..).zip(values.iter().copied()).collect() };
    let mean = ahead(&series.mean);
    let ends: Vec<_> = series.quantiles.iter().map(|q| ahead(&q.values)).collect();

    let all = observed.iter().chain(&mean).chain(ends.iter().flatten());
    let values = all
        .map(|(_, value)| *value)
        .filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let margin = ((high - low) * 0.08).max(1e-3);
    let mut chart = ChartBuilder::on(area)
        .margin_right(25)
        .margin_top(14)
        .caption(&series.name, ("sans-serif", 20))
        .x_label_area_size(28)
        .y_label_area_size(65)
        .build_cartesian_2d(
            1 - shown as i32..horizon as i32,
            low - margin..high + margin,
        )?;
    let label = |step: &i32| {
        let row = past.len() as i32 - 1 + step;
        let stamp = match usize::try_from(row) {
            Ok(row) if row < past.len() => past.time(row),
            Ok(_) => {
                let stamps = forecast.timestamps.as_ref();
                stamps.and_then(|stamps| stamps.get((step - 1).max(0) as usize).cloned())
            }
            Err(_) => None,
        };
        match stamp {
            // To the minute: more does not fit.
            Some(stamp) => stamp.chars().take(16).collect(),
            None => step.to_string(),
        }
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&label)
        .label_style(("sans-serif", 15))
        .draw()?;
    if let [low, .., high] = &ends[..] {
        let band: Vec<(i32, f64)> = low.iter().chain(high.iter().rev()).copied().collect();
        chart.draw_series([Polygon::new(band, FUTURE.mix(0.25))])?;
    }
    chart.draw_series(LineSeries::new(observed.clone(), PAST.stroke_width(2)))?;
    // The line goes on from the last value that was observed.
    let joined = observed.last().copied().into_iter().chain(mean);
    chart.draw_series(LineSeries::new(joined, FUTURE.stroke_width(2)))?;
    Ok(())
}

/// A PNG of 8-bit RGB pixels.
fn png(pixels: &[u8], width: u32, height: u32) -> Vec<u8> {
    // Each row begins with its filter: what differs from the row above, which is mostly nothing.
    let size = width as usize * 3;
    let mut rows = Vec::with_capacity(pixels.len() + height as usize);
    for (index, row) in pixels.chunks(size).enumerate() {
        rows.push(2);
        match index.checked_sub(1) {
            None => rows.extend(row),
            Some(above) => {
                let above = &pixels[above * size..][..size];
                rows.extend(row.iter().zip(above).map(|(a, b)| a.wrapping_sub(*b)));
            }
        }
    }
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let parts: [(&[u8; 4], Vec<u8>); 3] = [
        (b"IHDR", header),
        (b"IDAT", fdeflate::compress_to_vec(&rows)),
        (b"IEND", Vec::new()),
    ];
    for (name, data) in parts {
        file.extend((data.len() as u32).to_be_bytes());
        let body = [&name[..], &data].concat();
        file.extend(&body);
        file.extend(crc(&body).to_be_bytes());
    }
    file
}

/// CRC-32, as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}
