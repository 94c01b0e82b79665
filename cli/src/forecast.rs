//! `salamander run forecast`.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use salamander::tasks::{
    Forecast as Task, ForecastOptions, Forecasted, Missing, Table, TableOptions,
};
use serde_json::{Map, Value, json};

use crate::output::{json_line, remark, table};
use crate::{DeviceArgument, Failure};

#[derive(Args)]
pub(crate) struct Forecast {
    /// A model directory, or a hub id `owner/name[@revision]`
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// A CSV file with a column a series and a row a step, the newest last; without it, or as -, standard
    /// input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many steps to forecast; by default what the model gives at once
    #[arg(long, value_name = "STEPS")]
    horizon: Option<usize>,
    /// A column to forecast, or a series of a long table, by name; may be given several times; by default all
    /// but the timestamps
    #[arg(long = "column", value_name = "NAME")]
    columns: Vec<String>,
    /// The column of timestamps; by default the first that looks like dates
    #[arg(long, value_name = "NAME")]
    timestamps: Option<String>,
    /// How timestamps are written, such as %d/%m/%Y, or seconds or milliseconds since 1970; by default it is
    /// found
    #[arg(long, value_name = "FORMAT", allow_hyphen_values = true)]
    date_format: Option<String>,
    /// The zone of timestamps without an offset, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// The frequency of the timestamps, such as D, B, 15min, W-SUN or ME, or rows if each row is a step
    /// whatever its timestamp; by default it is found
    #[arg(long, value_name = "NAME")]
    frequency: Option<String>,
    /// A column that names the series of a long table, with a row for each series and timestamp; may be given
    /// several times
    #[arg(long = "series", value_name = "NAME")]
    series: Vec<String>,
    /// Sort the rows by their timestamps
    #[arg(long)]
    sort: bool,
    /// What stands between cells; by default it is found
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
    /// What stands before a number's fraction, . or ,; by default it is found
    #[arg(long, value_name = "CHARACTER")]
    decimal: Option<char>,
    /// What stands for missing values
    #[arg(long, value_name = "WAY", default_value = "interpolate", value_parser = missing())]
    missing: Missing,
    /// A quantile to give, between 0 and 1, if the model gives distributions; may be given several times
    #[arg(long = "quantile", value_name = "P", default_values_t = [0.1, 0.5, 0.9])]
    quantiles: Vec<f64>,
    /// How many paths to draw where the horizon is beyond the model's own
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    paths: usize,
    /// Where the draws start
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// The layout or class of the weights where there is no config.json, for instance patchtst/original
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Print one JSON object a step
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgument,
}

impl Forecast {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let device = self.device.open()?;
        remark(&format!("{} on {device}", self.model.display()));
        let task = match &self.architecture {
            Some(class) => Task::open_as(&self.model, class, &device)?,
            None => Task::open(&self.model, &device)?,
        };
        let task = task.with_options(ForecastOptions {
            quantiles: self.quantiles,
            paths: self.paths,
            seed: self.seed,
            missing: self.missing,
        })?;
        let delimiter = self.delimiter.map(u8::try_from).transpose();
        let columns = TableOptions {
            columns: (!self.columns.is_empty()).then_some(self.columns),
            timestamps: self.timestamps,
            delimiter: delimiter.map_err(|_| "--delimiter: is not a character of ASCII")?,
            date_format: self.date_format,
            time_zone: self.time_zone,
            frequency: self.frequency,
            series: self.series,
            decimal: self.decimal,
            sort: self.sort,
        };
        let horizon = self.horizon.unwrap_or(task.forecasts().horizon);
        let file = self.file.filter(|path| path.as_os_str() != "-");
        let (past, forecast) = match file {
            Some(path) => task.run_csv(&path, &columns, horizon)?,
            None => {
                let mut bytes = Vec::new();
                io::stdin().lock().read_to_end(&mut bytes)?;
                let past = Table::parse(&bytes, &columns)
                    .map_err(|error| format!("standard input: {error}"))?;
                let forecast = task.run(&past, horizon)?;
                (past, forecast)
            }
        };
        let mut out = io::stdout().lock();
        if self.json {
            for step in 0..horizon {
                json_line(&mut out, &object(&forecast, step))?;
            }
        } else {
            table(&mut out, &rows(&past, &forecast, horizon))?;
        }
        out.flush()?;
        Ok(())
    }
}

/// The ways to fill in what is missing, by name.
fn missing() -> impl TypedValueParser<Value = Missing> {
    PossibleValuesParser::new(Missing::NAMES.map(|(name, _)| name)).try_map(|name| name.parse())
}

/// One step of the forecast.
fn object(forecast: &Forecasted, step: usize) -> Value {
    let missing: usize = forecast.series.iter().map(|series| series.missing).sum();
    let mut object = json!({"step": step + 1, "missing": missing});
    if let Some(timestamps) = &forecast.timestamps {
        object["timestamp"] = json!(timestamps[step]);
    }
    let series = forecast.series.iter().map(|series| {
        let mut known = json!({"mean": series.mean[step]});
        if !series.quantiles.is_empty() {
            let quantiles = series.quantiles.iter();
            let quantiles: Map<String, Value> = quantiles
                .map(|q| (q.probability.to_string(), json!(q.values[step])))
                .collect();
            known["quantiles"] = Value::Object(quantiles);
        }
        (series.name.clone(), known)
    });
    object["series"] = Value::Object(series.collect());
    object
}

/// A row a step, with the lowest and the highest quantile after each mean.
fn rows(past: &Table, forecast: &Forecasted, horizon: usize) -> Vec<Vec<String>> {
    let mut header = vec![past.time_name().unwrap_or("step").to_owned()];
    header.extend(forecast.series.iter().map(|series| series.name.clone()));
    let mut rows = vec![header];
    for step in 0..horizon {
        let name = match &forecast.timestamps {
            Some(timestamps) => timestamps[step].clone(),
            None => (step + 1).to_string(),
        };
        let cells = forecast.series.iter().map(|series| {
            let mean = format!("{:.4}", series.mean[step]);
            let values = || series.quantiles.iter().map(|q| q.values[step]);
            let low = values().fold(f64::INFINITY, f64::min);
            let high = values().fold(f64::NEG_INFINITY, f64::max);
            if low < high {
                format!("{mean} [{low:.4}, {high:.4}]")
            } else {
                mean
            }
        });
        rows.push(std::iter::once(name).chain(cells).collect());
    }
    rows
}
