//! Waveforms to log-mel frames, as the reference's feature extractors make them.

use std::f64::consts::PI;

use realfft::RealFftPlanner;
use serde::Deserialize;
use serde_json::Value;

use crate::config::parse;

/// A front end that could not be built, or a waveform that it could not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// A setting cannot be honoured.
    #[error("preprocessor_config.json: `{field}`: {reason}")]
    Setting {
        /// The field.
        field: String,
        /// What is wrong with its value, and what would be right.
        reason: String,
    },
    /// The waveform has nothing to make frames of.
    #[error("{0} samples are too few: one frame looks at {1}")]
    Short(usize, usize),
}

fn refuse(field: &str, reason: String) -> AudioError {
    AudioError::Setting {
        field: field.to_owned(),
        reason,
    }
}

/// `preprocessor_config.json` of a Whisper, with the reference's field names and defaults.
///
/// Mel filters that old `preprocessor_config.json`s store are not read: the reference computes them anew.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct LogMelConfig {
    /// The number of mel bins.
    pub feature_size: usize,
    /// The samples a second that a waveform must have.
    pub sampling_rate: u32,
    /// The samples from one frame to the next.
    pub hop_length: usize,
    /// The seconds of a window.
    pub chunk_length: usize,
    /// The samples that a frame looks at.
    pub n_fft: usize,
    /// What a short waveform is filled up with.
    pub padding_value: f32,
    /// Noise that is added; must be 0.
    pub dither: f64,
    /// Where a short waveform is filled up; must be `right`.
    pub padding_side: String,
    /// The reference's class; must be `WhisperFeatureExtractor`.
    pub feature_extractor_type: String,
}

impl Default for LogMelConfig {
    fn default() -> Self {
        Self {
            feature_size: 80,
            sampling_rate: 16_000,
            hop_length: 160,
            chunk_length: 30,
            n_fft: 400,
            padding_value: 0.0,
            dither: 0.0,
            padding_side: "right".to_owned(),
            feature_extractor_type: EXTRACTOR.to_owned(),
        }
    }
}

const EXTRACTOR: &str = "WhisperFeatureExtractor";

impl LogMelConfig {
    /// Reads and checks a parsed `preprocessor_config.json`.
    ///
    /// # Errors
    /// A field has the wrong type or a value that cannot be honoured.
    pub fn parse(json: &Value) -> Result<Self, AudioError> {
        let config: Self = parse(json).map_err(|error| refuse(&error.field, error.reason))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), AudioError> {
        let limits = [
            ("feature_size", self.feature_size, 4096),
            ("sampling_rate", self.sampling_rate as usize, 1 << 20),
            ("hop_length", self.hop_length, 1 << 20),
            ("chunk_length", self.chunk_length, 3600),
            ("n_fft", self.n_fft, 1 << 16),
        ];
        for (field, value, most) in limits {
            if value == 0 || value > most {
                let reason = format!("{value} is not between 1 and {most}");
                return Err(refuse(field, reason));
            }
        }
        if self.dither != 0.0 {
            let reason = format!(
                "{} adds noise, which is not supported; set it to 0",
                self.dither
            );
            return Err(refuse("dither", reason));
        }
        if self.padding_side != "right" {
            let reason = format!("\"{}\" is not supported, only right", self.padding_side);
            return Err(refuse("padding_side", reason));
        }
        if self.feature_extractor_type != EXTRACTOR {
            let found = &self.feature_extractor_type;
            let reason = format!("\"{found}\" is not supported, only {EXTRACTOR}");
            return Err(refuse("feature_extractor_type", reason));
        }
        Ok(())
    }

    /// The samples of a window.
    pub fn window_samples(&self) -> usize {
        self.chunk_length * self.sampling_rate as usize
    }

    /// The frames of a window.
    pub fn window_frames(&self) -> usize {
        self.window_samples() / self.hop_length
    }
}

/// Log-mel frames: `bins` rows of `frames` values.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// The values, row by row.
    pub values: Vec<f32>,
    /// The number of mel bins.
    pub bins: usize,
    /// The number of frames.
    pub frames: usize,
}

impl Features {
    /// `count` frames from `start` on; where there are no more, zeros.
    pub fn window(&self, start: usize, count: usize) -> Features {
        let mut values = vec![0.0; self.bins * count];
        let start = start.min(self.frames);
        let there = count.min(self.frames - start);
        if count > 0 {
            for (bin, row) in values.chunks_exact_mut(count).enumerate() {
                let from = bin * self.frames + start;
                row[..there].copy_from_slice(&self.values[from..from + there]);
            }
        }
        Features {
            values,
            bins: self.bins,
            frames: count,
        }
    }
}

/// A triangle over the bins of a spectrum: where it begins, and its values.
type Filter = (usize, Vec<f64>);

/// The log-mel front end of Whisper.
///
/// Reference: `WhisperFeatureExtractor` of transformers 5.23, whose arithmetic is in f32; here the spectrum
/// is in f64.
#[derive(Debug, Clone)]
pub struct LogMel {
    config: LogMelConfig,
    hann: Vec<f64>,
    filters: Vec<Filter>,
}

impl LogMel {
    /// A front end.
    ///
    /// # Errors
    /// A setting cannot be honoured.
    pub fn new(config: LogMelConfig) -> Result<Self, AudioError> {
        config.check()?;
        let size = config.n_fft;
        // Periodic, as `torch.hann_window` is.
        let hann = (0..size).map(|n| (PI * n as f64 / size as f64).sin().powi(2));
        Ok(Self {
            hann: hann.collect(),
            filters: slaney_filters(size / 2 + 1, config.feature_size, config.sampling_rate),
            config,
        })
    }

    /// The same front end with a checkpoint's own mel filters: as many rows as bins, of half a spectrum each.
    ///
    /// # Errors
    /// They are not as many numbers.
    pub fn with_filters(mut self, filters: &[f32]) -> Result<Self, AudioError> {
        let spectrum = self.config.n_fft / 2 + 1;
        if filters.len() != self.config.feature_size * spectrum {
            let reason = format!(
                "{} numbers are not {} filters of {spectrum}",
                filters.len(),
                self.config.feature_size
            );
            return Err(refuse("mel_filters", reason));
        }
        let rows = filters.chunks_exact(spectrum).map(|row| {
            let first = row.iter().position(|weight| *weight != 0.0).unwrap_or(0);
            let last = row
                .iter()
                .rposition(|weight| *weight != 0.0)
                .map_or(first, |at| at + 1);
            (
                first,
                row[first..last].iter().copied().map(f64::from).collect(),
            )
        });
        self.filters = rows.collect();
        Ok(self)
    }

    /// The settings.
    pub fn config(&self) -> &LogMelConfig {
        &self.config
    }

    /// The frames of one window: a shorter waveform is filled up, a longer one cut.
    ///
    /// # Errors
    /// A window is shorter than what one frame looks at.
    pub fn window(&self, samples: &[f32]) -> Result<Features, AudioError> {
        let length = self.config.window_samples();
        let mut window = samples[..samples.len().min(length)].to_vec();
        window.resize(length, self.config.padding_value);
        self.frames(&window)
    }

    /// The frames of a whole waveform, however long.
    ///
    /// # Errors
    /// The waveform is shorter than what one frame looks at.
    pub fn frames(&self, samples: &[f32]) -> Result<Features, AudioError> {
        let size = self.config.n_fft;
        let reach = size / 2;
        if samples.len() <= reach {
            return Err(AudioError::Short(samples.len(), size));
        }
        // The reference makes one frame more and drops it.
        let frames = samples.len() / self.config.hop_length;
        let bins = self.filters.len();
        let fft = RealFftPlanner::<f64>::new().plan_fft_forward(size);
        let (mut frame, mut spectrum) = (fft.make_input_vec(), fft.make_output_vec());
        let mut scratch = fft.make_scratch_vec();
        let mut power = vec![0.0; spectrum.len()];
        let mut values = vec![0.0_f32; bins * frames];
        let mut highest = f32::NEG_INFINITY;
        for index in 0..frames {
            let start = (index * self.config.hop_length) as i64 - reach as i64;
            for (offset, (value, weight)) in frame.iter_mut().zip(&self.hann).enumerate() {
                let sample = samples[mirrored(start + offset as i64, samples.len())];
                *value = f64::from(sample) * weight;
            }
            // It fails for buffers of the wrong size only, and these are its own.
            if fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)
                .is_err()
            {
                return Err(AudioError::Short(samples.len(), size));
            }
            for (power, value) in power.iter_mut().zip(&spectrum) {
                *power = value.norm_sqr();
            }
            for (bin, (first, filter)) in self.filters.iter().enumerate() {
                let powers = &power[*first..];
                let energy: f64 = filter.iter().zip(powers).map(|(f, p)| f * p).sum();
                // A sample that is not a number counts as silence.
                let log = energy.max(1e-10).log10() as f32;
                values[bin * frames + index] = log;
                highest = highest.max(log);
            }
        }
        for value in &mut values {
            *value = (value.max(highest - 8.0) + 4.0) / 4.0;
        }
        Ok(Features {
            values,
            bins,
            frames,
        })
    }
}

/// The index that a waveform reflected at both ends has at `index`.
fn mirrored(index: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    let index = index.abs();
    let index = if index > last {
        2 * last - index
    } else {
        index
    };
    index.clamp(0, last) as usize
}

/// Triangles that are equally wide on Slaney's mel scale and of equal area.
///
/// Reference: `mel_filter_bank` of transformers 5.23 with `norm` and `mel_scale` "slaney", 0 to 8000 Hz.
fn slaney_filters(spectrum: usize, bins: usize, rate: u32) -> Vec<Filter> {
    const HIGHEST: f64 = 8000.0;
    let mels = |index: usize| to_mel(HIGHEST) * index as f64 / (bins + 1) as f64;
    let edges: Vec<f64> = (0..bins + 2).map(|index| from_mel(mels(index))).collect();
    let step = f64::from(rate / 2) / (spectrum.max(2) - 1) as f64;
    let filters = edges.windows(3).map(|edges| {
        let [low, centre, high] = [edges[0], edges[1], edges[2]];
        let area = 2.0 / (high - low);
        let weight = |bin: usize| {
            let frequency = bin as f64 * step;
            let up = (frequency - low) / (centre - low);
            let down = (high - frequency) / (high - centre);
            up.min(down).max(0.0) * area
        };
        let first = (0..spectrum).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
        let weights = (first..spectrum).map(weight);
        // The reference holds them in f32.
        let weights = weights
            .take_while(|weight| *weight > 0.0)
            .map(|w| f64::from(w as f32));
        (first, weights.collect())
    });
    filters.collect()
}

/// Linear below 1 kHz, logarithmic above.
const CORNER: (f64, f64) = (1000.0, 15.0);

fn log_step() -> f64 {
    6.4_f64.ln() / 27.0
}

fn to_mel(frequency: f64) -> f64 {
    if frequency < CORNER.0 {
        frequency * CORNER.1 / CORNER.0
    } else {
        CORNER.1 + (frequency / CORNER.0).ln() / log_step()
    }
}

fn from_mel(mel: f64) -> f64 {
    if mel < CORNER.1 {
        mel * CORNER.0 / CORNER.1
    } else {
        CORNER.0 * ((mel - CORNER.1) * log_step()).exp()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Features, LogMel, LogMelConfig, mirrored};

    #[test]
    fn reflection_does_not_repeat_the_ends() {
        let indices: Vec<usize> = (-3..8).map(|index| mirrored(index, 5)).collect();
        assert_eq!(indices, [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]);
    }

    #[test]
    fn silence_and_bad_samples_are_silence() {
        let mel = LogMel::new(LogMelConfig::default()).unwrap();
        let silent = mel.window(&[]).unwrap();
        assert_eq!((silent.bins, silent.frames), (80, 3000));
        assert!(silent.values.iter().all(|value| *value == -1.5));
        let bad = mel.window(&[f32::NAN; 4000]).unwrap();
        assert!(bad.values.iter().all(|value| value.is_finite()));
        assert!(mel.frames(&[0.0; 200]).is_err());
        assert_eq!(mel.frames(&[0.0; 201]).unwrap().frames, 1);
    }

    #[test]
    fn windows_beyond_the_end_are_zeros() {
        let features = Features {
            values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            bins: 2,
            frames: 3,
        };
        assert_eq!(features.window(2, 2).values, [3.0, 0.0, 6.0, 0.0]);
        assert_eq!(features.window(9, 1).values, [0.0, 0.0]);
    }

    #[test]
    fn settings_are_refused_by_field_and_value() {
        for (json, says) in [
            (json!({"dither": 0.1}), "`dither`: 0.1"),
            (json!({"n_fft": 0}), "`n_fft`: 0"),
            (json!({"hop_length": "x"}), "`hop_length`"),
            (json!({"padding_side": "left"}), "`padding_side`: \"left\""),
            (
                json!({"feature_extractor_type": "ClapFeatureExtractor"}),
                "\"ClapFeatureExtractor\"",
            ),
        ] {
            let error = LogMelConfig::parse(&json).unwrap_err().to_string();
            assert!(error.contains(says), "{error} does not say {says}");
        }
    }
}
