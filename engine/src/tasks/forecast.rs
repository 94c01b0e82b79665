use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::TensorData;
use salamander_models::processing::distribution::{Distribution, Family};
use salamander_models::processing::missing::{Missing, fill};
use salamander_models::processing::series::{SeriesError, Table, TableOptions, Window};
use salamander_models::{Forecasts, Inputs, Model, Outputs, Task, open, open_class};
use serde::Serialize;

use super::warm_up::warm_up;
use crate::{Device, Error, ModelDir};

/// Options of [`Forecast`].
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastOptions {
    /// The quantiles to give where the model gives distributions, each between 0 and 1.
    pub quantiles: Vec<f64>,
    /// How many paths a horizon beyond the model's own is followed by, where the model gives
    /// distributions.
    pub paths: usize,
    /// Where the draws of those paths start; the same seed draws the same.
    pub seed: u64,
    /// What stands for missing values.
    pub missing: Missing,
}

impl Default for ForecastOptions {
    fn default() -> Self {
        Self {
            quantiles: vec![0.1, 0.5, 0.9],
            paths: 100,
            seed: 0,
            missing: Missing::default(),
        }
    }
}

/// How the series of a table go on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecasted {
    /// The timestamps of the steps, if the table has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<Vec<String>>,
    /// The frequency of the timestamps, as pandas calls it, if the table has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<String>,
    /// A forecast of each series, in the order of the table.
    pub series: Vec<SeriesForecast>,
}

/// How one series goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesForecast {
    /// The series' name.
    pub name: String,
    /// How many values were missing in the steps that the model sees.
    pub missing: usize,
    /// The expected value at each step.
    pub mean: Vec<f64>,
    /// The quantiles at each step, where the model gives distributions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<Quantile>,
}

/// The values that are not exceeded with a probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantile {
    /// The probability.
    pub probability: f64,
    /// The value at each step.
    pub values: Vec<f64>,
}

/// Says how time series go on.
///
/// The network sees the last [`Forecasts::context`] steps. A longer horizon than the network's own is
/// rolled: what was forecast is taken for the past of the next stretch. Where the network gives
/// distributions, several paths are drawn and followed, so that intervals widen as they should.
///
/// Missing values are filled as [`ForecastOptions::missing`] says, and counted in
/// [`SeriesForecast::missing`]; unless that is [`Missing::Mask`], the forecast is that of the filled table.
/// Where the network brings series to a common scale itself, it is given them around zero, so that a series
/// far above its spread keeps all its digits.
///
/// Reference: `PatchTSTForPrediction.generate` of transformers 5.23, which stops at the network's own
/// horizon and gives samples.
#[derive(Debug, Clone)]
pub struct Forecast {
    model: Arc<dyn Model>,
    forecasts: Forecasts,
    device: Device,
    options: ForecastOptions,
}

/// The most windows that run together: enough to keep two cores busy.
const BATCH: usize = 32;

impl Forecast {
    /// Opens a model directory, or a hub id.
    ///
    /// # Errors
    /// The model cannot be found, read or honoured, or does not forecast.
    pub fn open(model: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let checkpoint = device.weights(directory.checkpoint()?);
        let config = directory.config_for(&checkpoint)?;
        let model = device.load(directory.path(), || {
            open(&config, Task::Forecast, &checkpoint, device.burn())
        })?;
        Self::serve(model, device)
    }

    /// Opens a directory as the reference class or layout `class`, for instance `patchtst/original`; it
    /// needs no `config.json` if the checkpoint shows all there is to know.
    ///
    /// # Errors
    /// As [`Forecast::open`].
    pub fn open_as(model: impl AsRef<Path>, class: &str, device: &Device) -> Result<Self, Error> {
        let directory = ModelDir::find(model)?;
        let config = directory.config_or_empty()?;
        let checkpoint = device.weights(directory.checkpoint()?);
        let (_, model) = device.load(directory.path(), || {
            open_class(&config, Some(class), &checkpoint, device.burn())
        })?;
        Self::serve(model, device)
    }

    fn serve(model: Box<dyn Model>, device: &Device) -> Result<Self, Error> {
        let forecasts = model.forecasts().ok_or_else(|| Error::Option {
            name: "model",
            reason: "is of a class that does not forecast".to_owned(),
        })?;
        Ok(Self {
            model: model.into(),
            forecasts,
            device: device.clone(),
            options: ForecastOptions::default(),
        })
    }

    /// The same model with other options.
    ///
    /// # Errors
    /// A quantile is not between 0 and 1, or there is no path.
    pub fn with_options(mut self, options: ForecastOptions) -> Result<Self, Error> {
        let inside = |p: &&f64| !(**p > 0.0 && **p < 1.0);
        if let Some(p) = options.quantiles.iter().find(inside) {
            let reason = format!("{p} is not between 0 and 1");
            return Err(Error::Option {
                name: "quantiles",
                reason,
            });
        }
        if options.paths == 0 {
            return Err(Error::Option {
                name: "paths",
                reason: "0 paths lead nowhere; give at least 1".to_owned(),
            });
        }
        self.options = options;
        Ok(self)
    }

    /// What the network takes and gives.
    pub fn forecasts(&self) -> Forecasts {
        self.forecasts
    }

    /// Runs the network once on zeros, so that a GPU has compiled and tuned its kernels before the first
    /// answer, and says how long that took.
    ///
    /// # Errors
    /// The device fails.
    pub fn warm_up(&self) -> Result<Duration, Error> {
        let series = self.forecasts.channels.unwrap_or(1);
        let window = vec![0.0_f64; self.forecasts.context * series];
        warm_up(|| self.stretches([&window[..]], series).map(drop))
    }

    /// The device that runs it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Forecasts the `horizon` steps after a CSV file's last row, by the columns that `columns` names.
    ///
    /// # Errors
    /// The file cannot be read or is no table of numbers, or as [`Forecast::run`].
    pub fn run_csv(
        &self,
        path: &Path,
        columns: &TableOptions,
        horizon: usize,
    ) -> Result<(Table, Forecasted), Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        let table = |source: SeriesError| Error::Series {
            path: path.to_owned(),
            source,
        };
        let table = Table::parse(&bytes, columns).map_err(table)?;
        let forecast = self.run(&table, horizon)?;
        Ok((table, forecast))
    }

    /// Forecasts the `horizon` steps after a table's last row. A model of one series forecasts each by
    /// itself.
    ///
    /// # Errors
    /// The table has too few rows or another number of series than the network, a series has no value at
    /// all in the steps that count, some are missing and are to be refused, or the forecast is infinite.
    pub fn run(&self, table: &Table, horizon: usize) -> Result<Forecasted, Error> {
        Ok(self.run_batch([table], horizon)?.swap_remove(0))
    }

    /// Forecasts many tables, each as [`Forecast::run`]; the answers come in their order.
    ///
    /// # Errors
    /// As [`Forecast::run`].
    pub fn run_batch<'a>(
        &self,
        tables: impl IntoIterator<Item = &'a Table>,
        horizon: usize,
    ) -> Result<Vec<Forecasted>, Error> {
        if horizon == 0 {
            return Err(Error::Option {
                name: "horizon",
                reason: "0 steps are no forecast; give at least 1".to_owned(),
            });
        }
        let tables: Vec<&Table> = tables.into_iter().collect();
        if self.forecasts.channels == Some(1) && tables.iter().any(|table| table.names().len() > 1)
        {
            return self.run_each(&tables, horizon);
        }
        let windows = tables.iter().map(|table| self.window(table));
        let windows: Vec<Window> = windows.collect::<Result<_, _>>()?;
        // Windows of equally many series run together.
        let mut first: Vec<Option<Vec<Stretch>>> = vec![None; tables.len()];
        for index in 0..tables.len() {
            if first[index].is_some() {
                continue;
            }
            let width = tables[index].names().len();
            let alike =
                |other: &usize| tables[*other].names().len() == width && first[*other].is_none();
            let batch: Vec<usize> = (index..tables.len()).filter(alike).take(BATCH).collect();
            let joined = batch.iter().map(|&index| &windows[index].values[..]);
            let stretches = self.stretches(joined, width)?;
            for (index, stretch) in batch.into_iter().zip(stretches) {
                first[index] = Some(vec![stretch]);
            }
        }
        let mut answers = Vec::with_capacity(tables.len());
        for ((table, window), first) in tables.into_iter().zip(windows).zip(first) {
            let width = table.names().len();
            let stretch = first.into_iter().flatten().next().unwrap_or_default();
            let steps = self.roll(window.values, stretch, width, horizon)?;
            answers.push(self.answer(table, &steps, &window.missing, horizon)?);
        }
        Ok(answers)
    }

    /// Forecasts each series by itself, with a model of one.
    fn run_each(&self, tables: &[&Table], horizon: usize) -> Result<Vec<Forecasted>, Error> {
        let parts: Vec<Table> = tables.iter().flat_map(|table| table.split()).collect();
        let mut series = self.run_batch(&parts, horizon)?.into_iter();
        let answers = tables.iter().map(|table| {
            let own: Vec<Forecasted> = series.by_ref().take(table.names().len()).collect();
            Forecasted {
                timestamps: (1..=horizon).map(|step| table.time_after(step)).collect(),
                frequency: table.frequency(),
                series: own.into_iter().flat_map(|answer| answer.series).collect(),
            }
        });
        Ok(answers.collect())
    }

    /// The expected values after each of many windows of the past, without rolling.
    ///
    /// `past` is `[windows, context, series]` and the answer `[windows, horizon, series]`, both in
    /// row-major order; NaN is a missing value, which is filled as the options say.
    ///
    /// # Errors
    /// The values are no whole number of windows, or a series' are all missing, or some are missing and are
    /// to be refused.
    pub fn means(&self, past: &[f32], series: usize) -> Result<Vec<f32>, Error> {
        let size = self.forecasts.context * series;
        if size == 0 || !past.len().is_multiple_of(size) {
            let reason = format!("{} values are no windows of {size}", past.len());
            return Err(Error::Option {
                name: "past",
                reason,
            });
        }
        let mut means = Vec::new();
        let names: Vec<String> = (0..series).map(|index| index.to_string()).collect();
        for batch in past.chunks(size * BATCH) {
            let mut windows = Vec::with_capacity(BATCH);
            for window in batch.chunks(size) {
                let mut values: Vec<f64> = window.iter().map(|value| f64::from(*value)).collect();
                let count = |column| fill(&mut values, series, column, None, self.options.missing);
                let missing = (0..series).map(count).collect();
                let window = Window { values, missing };
                self.check_missing(&window, &names, "past")?;
                windows.push(window);
            }
            let windows = windows.iter().map(|window| &window.values[..]);
            for stretch in self.stretches(windows, series)? {
                means.extend(stretch.0.iter().map(|at| at.mean() as f32));
            }
        }
        Ok(means)
    }

    /// The steps of a table that the network sees.
    fn window(&self, table: &Table) -> Result<Window, Error> {
        let refuse = |reason: String| Error::Option {
            name: "table",
            reason,
        };
        let names = table.names();
        let Forecasts {
            context, channels, ..
        } = self.forecasts;
        if names.is_empty() || channels.is_some_and(|channels| channels != names.len()) {
            let needed = channels.map_or("at least 1".to_owned(), |c| c.to_string());
            return Err(refuse(format!(
                "has {} series ({}), the model takes {needed}; choose them by name",
                names.len(),
                names.join(", ")
            )));
        }
        let window = table.window(context, self.options.missing);
        let steps = window.values.len() / names.len();
        if steps < context {
            return Err(refuse(format!(
                "has {steps} rows, the model looks back on {context}"
            )));
        }
        self.check_missing(&window, names, "table")?;
        let filled: Vec<String> = names
            .iter()
            .zip(&window.missing)
            .filter(|(_, missing)| **missing > 0)
            .map(|(name, missing)| format!("{missing} of `{name}`"))
            .collect();
        if !filled.is_empty() {
            tracing::warn!(
                "{} missing values in the last {context} steps were {} ({})",
                window.missing.iter().sum::<usize>(),
                match self.options.missing {
                    Missing::Last => "filled with the last before each",
                    Missing::Mean => "filled with the mean of the others",
                    Missing::Zero => "filled with zero",
                    Missing::Mask => "masked",
                    _ => "filled by interpolation",
                },
                shortened(&filled)
            );
        }
        Ok(window)
    }

    /// Refuses windows that miss what cannot be filled.
    fn check_missing(
        &self,
        window: &Window,
        names: &[String],
        argument: &'static str,
    ) -> Result<(), Error> {
        let context = self.forecasts.context;
        let refuse = |reason: String| Error::Option {
            name: argument,
            reason,
        };
        let columns = || names.iter().zip(&window.missing);
        if let Some((name, _)) = columns().find(|(_, missing)| **missing >= context) {
            return Err(refuse(format!(
                "has no value of `{name}` in its last {context} steps"
            )));
        }
        let Some((name, missing)) = columns().find(|(_, missing)| **missing > 0) else {
            return Ok(());
        };
        match self.options.missing {
            Missing::Refuse => Err(refuse(format!(
                "has missing values in its last {context} steps, {missing} of `{name}`; fill them in, or say \
                 how by `missing` (--missing interpolate)"
            ))),
            Missing::Mask if !self.forecasts.missing => Err(refuse(format!(
                "has missing values in its last {context} steps, {missing} of `{name}`, which this model \
                 takes no mask for; fill them in, or say how by `missing` (--missing interpolate)"
            ))),
            _ => Ok(()),
        }
    }

    /// Runs windows of `width` series and gives what follows each.
    fn stretches<'a>(
        &self,
        windows: impl IntoIterator<Item = &'a [f64]>,
        width: usize,
    ) -> Result<Vec<Stretch>, Error> {
        let context = self.forecasts.context;
        let mut values: Vec<f32> = Vec::new();
        let mut observed: Vec<f32> = Vec::new();
        let mut units = Vec::new();
        for window in windows {
            let own: Vec<Unit> = (0..width)
                .map(|column| match self.forecasts.centres {
                    true => Unit::of(window.iter().skip(column).step_by(width)),
                    false => Unit::default(),
                })
                .collect();
            for (index, value) in window.iter().enumerate() {
                let missing = value.is_nan();
                observed.push(if missing { 0.0 } else { 1.0 });
                // The reference's missing values are zeros.
                let value = if missing { 0.0 } else { *value };
                let scaled = own[index % width].scale(value) as f32;
                if scaled.is_infinite() {
                    return Err(Error::Option {
                        name: "table",
                        reason: format!(
                            "has the value {value}, which is too large for the model; scale it"
                        ),
                    });
                }
                values.push(scaled);
            }
            units.extend(own);
        }
        let shape = [values.len() / (context * width), context, width];
        let mut inputs = Inputs::new();
        if observed.contains(&0.0) {
            inputs = inputs.with("past_observed_mask", TensorData::new(observed, shape));
        }
        let inputs = inputs.with("past_values", TensorData::new(values, shape));
        self.device
            .attempt(|| self.forward(inputs, &units, shape[0], width))
    }

    fn forward(
        &self,
        inputs: Inputs,
        units: &[Unit],
        windows: usize,
        width: usize,
    ) -> Result<Vec<Stretch>, Error> {
        let mut outputs = self.device.forward(&*self.model, inputs)?;
        let Some(family) = self.forecasts.family else {
            let values = self.take(&mut outputs, "prediction_outputs")?;
            let size = self.forecasts.horizon * width;
            let windows = values.chunks(size).zip(units.chunks(width));
            let stretch = |(values, units): (&[f32], &[Unit])| {
                let values = values.iter().enumerate();
                let at =
                    values.map(|(index, value)| units[index % width].restore(f64::from(*value)));
                Stretch(at.map(At::Value).collect())
            };
            return Ok(windows.map(stretch).collect());
        };
        self.distributions(&mut outputs, units, family, windows, width)
    }

    fn distributions(
        &self,
        outputs: &mut Outputs,
        units: &[Unit],
        family: Family,
        windows: usize,
        width: usize,
    ) -> Result<Vec<Stretch>, Error> {
        let names = [
            "prediction_outputs.0",
            "prediction_outputs.1",
            "prediction_outputs.2",
        ];
        let names = &names[..family.parameters().len()];
        let parameters: Vec<Vec<f32>> = names
            .iter()
            .map(|name| self.take(outputs, name))
            .collect::<Result<_, _>>()?;
        let (loc, scale) = (self.take(outputs, "loc")?, self.take(outputs, "scale")?);
        let size = self.forecasts.horizon * width;
        let stretch = |window: usize| {
            let at = |index: usize| {
                let of = |parameter: &Vec<f32>| f64::from(parameter[window * size + index]);
                let parameters: Vec<f64> = parameters.iter().map(of).collect();
                let series = window * width + index % width;
                let unit = units[series];
                let loc = unit.restore(f64::from(loc[series]));
                let scale = f64::from(scale[series]) * unit.size;
                match family.distribution(&parameters, loc, scale) {
                    Some(distribution) => At::Distribution(distribution),
                    None => At::Value(f64::NAN),
                }
            };
            Stretch((0..size).map(at).collect())
        };
        Ok((0..windows).map(stretch).collect())
    }

    /// An output read back to the host. The classes that forecast have its outputs.
    fn take(&self, outputs: &mut Outputs, name: &str) -> Result<Vec<f32>, Error> {
        let data = outputs.remove(name).ok_or_else(|| Error::Option {
            name: "model",
            reason: format!("has no output `{name}`"),
        })?;
        Ok(self.device.read(data)?.iter::<f32>().collect())
    }

    /// Goes on from the first stretch to the horizon: for each step and series what is known of it.
    fn roll(
        &self,
        mut window: Vec<f64>,
        first: Stretch,
        width: usize,
        horizon: usize,
    ) -> Result<Vec<Known>, Error> {
        let total = horizon * width;
        let mut known: Vec<Known> = Vec::new();
        let own = self.forecasts.horizon * width;
        if total <= own {
            known.extend(first.0.into_iter().take(total).map(Known::One));
            return Ok(known);
        }
        if self.forecasts.family.is_none() {
            let mut stretch = first;
            loop {
                window.extend(stretch.0.iter().map(At::mean));
                window.drain(..window.len() - self.forecasts.context * width);
                known.extend(stretch.0.into_iter().map(Known::One));
                if known.len() >= total {
                    known.truncate(total);
                    return Ok(known);
                }
                stretch = self.stretches([&window[..]], width)?.swap_remove(0);
            }
        }
        let mut draws = Draws(self.options.seed);
        let mut stretches = vec![first; self.options.paths];
        let mut windows = vec![window; self.options.paths];
        while known.len() < total {
            for (window, stretch) in windows.iter_mut().zip(&stretches) {
                window.extend(stretch.0.iter().map(|at| at.sample(&mut draws)));
                window.drain(..window.len() - self.forecasts.context * width);
            }
            if known.is_empty() {
                // All paths share the first stretch.
                let shared = stretches[0].0.iter();
                known.extend(shared.map(|at| Known::One(*at)));
            } else {
                known.extend((0..own).map(|index| {
                    let mean = stretches.iter().map(|stretch| stretch.0[index].mean());
                    let mean = mean.sum::<f64>() / stretches.len() as f64;
                    // What the paths have just drawn stands at the end of their windows.
                    let mut drawn: Vec<f64> = windows
                        .iter()
                        .map(|window| window[window.len() + index - own])
                        .collect();
                    drawn.sort_by(f64::total_cmp);
                    Known::Many { mean, drawn }
                }));
            }
            if known.len() < total {
                let mut next = Vec::with_capacity(windows.len());
                for batch in windows.chunks(BATCH) {
                    next.extend(self.stretches(batch.iter().map(|window| &window[..]), width)?);
                }
                stretches = next;
            }
        }
        known.truncate(total);
        Ok(known)
    }

    fn answer(
        &self,
        table: &Table,
        steps: &[Known],
        missing: &[usize],
        horizon: usize,
    ) -> Result<Forecasted, Error> {
        let width = table.names().len();
        let quantiles: &[f64] = match self.forecasts.family {
            Some(_) => &self.options.quantiles,
            None => &[],
        };
        let series = table.names().iter().zip(missing).enumerate();
        let series = series.map(|(column, (name, missing))| {
            let own = || steps.iter().skip(column).step_by(width);
            let forecast = SeriesForecast {
                name: name.clone(),
                missing: *missing,
                mean: own().map(Known::mean).collect(),
                quantiles: quantiles
                    .iter()
                    .map(|&probability| Quantile {
                        probability,
                        values: own().map(|known| known.quantile(probability)).collect(),
                    })
                    .collect(),
            };
            forecast.check()?;
            Ok(forecast)
        });
        Ok(Forecasted {
            series: series.collect::<Result<_, Error>>()?,
            timestamps: (1..=horizon).map(|step| table.time_after(step)).collect(),
            frequency: table.frequency(),
        })
    }
}

impl SeriesForecast {
    /// Refuses what is no number.
    fn check(&self) -> Result<(), Error> {
        let quantiles = self.quantiles.iter().map(|quantile| &quantile.values);
        let odd = std::iter::once(&self.mean)
            .chain(quantiles)
            .find_map(|values| {
                let step = values.iter().position(|value| !value.is_finite())?;
                Some((step + 1, values[step]))
            });
        let Some((step, value)) = odd else {
            return Ok(());
        };
        let what = if value.is_nan() {
            "not a number"
        } else {
            "infinite"
        };
        Err(Error::Option {
            name: "table",
            reason: format!(
                "the forecast of `{}` is {what} from step {step} on: its values, or what the model makes of \
                 them, are too large for the model's numbers; scale the series, or take a shorter horizon",
                self.name
            ),
        })
    }
}

/// The first few of a list, and how many more there are.
fn shortened(list: &[String]) -> String {
    const SHOWN: usize = 8;
    match list.len().checked_sub(SHOWN) {
        None | Some(0) => list.join(", "),
        Some(more) => format!("{} and {more} more", list[..SHOWN].join(", ")),
    }
}

/// What a series' values are brought near zero by, before they lose digits in the network's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Unit {
    offset: f64,
    size: f64,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            offset: 0.0,
            size: 1.0,
        }
    }
}

impl Unit {
    /// Values beyond it have squares that overflow.
    const LARGE: f64 = (1_u64 << 40) as f64;

    /// The mean, and 1 but for values so large that no scale of a network has a minimum that counts.
    fn of<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> Self {
        let observed = || values.clone().filter(|value| !value.is_nan());
        let Some(first) = observed().next() else {
            return Self::default();
        };
        let count = observed().count() as f64;
        let mean = observed().map(|value| (value - first) / count).sum::<f64>();
        let offset = first + mean;
        let largest = observed()
            .map(|value| (value - offset).abs())
            .fold(0.0, f64::max);
        if !offset.is_finite() || !largest.is_finite() {
            return Self::default();
        }
        let size = if largest > Self::LARGE {
            (largest / Self::LARGE).log2().ceil().exp2()
        } else {
            1.0
        };
        Self { offset, size }
    }

    fn scale(self, value: f64) -> f64 {
        (value - self.offset) / self.size
    }

    fn restore(self, value: f64) -> f64 {
        value * self.size + self.offset
    }
}

/// One value of the future.
#[derive(Debug, Clone, Copy)]
enum At {
    Value(f64),
    Distribution(Distribution),
}

impl At {
    fn mean(&self) -> f64 {
        match self {
            At::Value(value) => *value,
            At::Distribution(distribution) => distribution.mean(),
        }
    }

    fn sample(&self, draws: &mut Draws) -> f64 {
        match self {
            At::Value(value) => *value,
            At::Distribution(distribution) => distribution.sample([draws.draw(), draws.draw()]),
        }
    }
}

/// What the network says after a window: step by step a value of each series.
#[derive(Debug, Clone, Default)]
struct Stretch(Vec<At>);

/// What is known of one value.
enum Known {
    One(At),
    /// The paths' mean, and what they drew, in ascending order.
    Many {
        mean: f64,
        drawn: Vec<f64>,
    },
}

impl Known {
    fn mean(&self) -> f64 {
        match self {
            Known::One(at) => at.mean(),
            Known::Many { mean, .. } => *mean,
        }
    }

    fn quantile(&self, p: f64) -> f64 {
        match self {
            Known::One(At::Value(value)) => *value,
            Known::One(At::Distribution(distribution)) => distribution.quantile(p),
            Known::Many { drawn, .. } => {
                // Linear between the two nearest, as numpy's.
                let place = p * (drawn.len() - 1) as f64;
                let (low, part) = (place.floor() as usize, place.fract());
                let high = (low + 1).min(drawn.len() - 1);
                drawn[low] + (drawn[high] - drawn[low]) * part
            }
        }
    }
}

/// Numbers drawn evenly from between 0 and 1.
///
/// SplitMix64: Steele et al., *Fast splittable pseudorandom number generators*, 2014.
struct Draws(u64);

impl Draws {
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
