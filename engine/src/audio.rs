//! Sound files to waveforms: any container and rate in, one channel at one rate out.

use std::fs::File;
use std::io::{Cursor, ErrorKind};
use std::path::{Path, PathBuf};

use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as FormatError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

/// A sound file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioFileError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no sound in a format that can be read.
    #[error("{}: {reason}; WAV, FLAC, MP3, OGG/Vorbis and M4A (AAC, ALAC) can be read", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The sound breaks off or is damaged.
    #[error("{}: {reason} after {seconds:.2} seconds of sound; fetch or export the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How much could be read.
        seconds: f64,
        /// What was found there.
        reason: String,
    },
    /// The sound is longer than memory should be asked for.
    #[error("{}: longer than {hours} hours; split it", path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// The most there may be.
        hours: u32,
    },
}

/// A waveform of one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// The samples, between -1 and 1.
    pub samples: Vec<f32>,
    /// How many of them are a second.
    pub rate: u32,
}

/// Beyond this a small file of silence could ask for any amount of memory.
const HOURS: u32 = 24;

/// What files may claim for their rate.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

impl Audio {
    /// Reads a file, mixes its channels to one by their mean, and brings it to `rate`.
    ///
    /// Memory holds the result and a block of the file, never what a header claims. Damaged packets of a
    /// stream are skipped, as players do, unless nothing is left.
    ///
    /// The reference brings sound to its rate by FFmpeg (`whisper.load_audio`) or torchaudio; here a
    /// band-limited FFT resampler does it. They differ in the last tenths of the band below the new limit,
    /// by 10⁻³ of full scale or so; at the model's own rate the samples are the file's. Edit lists of M4A
    /// are not read, so what an AAC encoder puts before the sound, about a fortieth of a second, stays.
    ///
    /// # Errors
    /// The file cannot be opened, is in no known format, is damaged, or lasts longer than a day.
    pub fn open(path: impl AsRef<Path>, rate: u32) -> Result<Self, AudioFileError> {
        let path = path.as_ref();
        let io = |source| AudioFileError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(ErrorKind::IsADirectory.into()));
        }
        read(path, Box::new(file), rate)
    }

    /// Reads a file's bytes as [`Audio::open`] does; `name` stands for the file in errors and lends its
    /// ending as a hint.
    ///
    /// # Errors
    /// As [`Audio::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>, rate: u32) -> Result<Self, AudioFileError> {
        read(Path::new(name), Box::new(Cursor::new(bytes)), rate)
    }

    /// How long it lasts.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// The same sound at another rate.
    ///
    /// # Errors
    /// One of the rates is not between 1 and 768 kHz.
    pub fn resampled(self, rate: u32) -> Result<Self, AudioFileError> {
        let mut out = Sink::new(Path::new("waveform"), self.rate, rate)?;
        out.push(&self.samples)?;
        out.finish()
    }
}

fn read(path: &Path, source: Box<dyn MediaSource>, rate: u32) -> Result<Audio, AudioFileError> {
    let refuse = |reason: String| AudioFileError::Format {
        path: path.to_owned(),
        reason,
    };
    if source.byte_len() == Some(0) {
        return Err(refuse("is empty".to_owned()));
    }
    let mut hint = Hint::new();
    if let Some(ending) = path.extension().and_then(|ending| ending.to_str()) {
        hint.with_extension(ending);
    }
    let stream = MediaSourceStream::new(source, Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(
            &hint,
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        )
        .map_err(|error| match error {
            FormatError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
                refuse("is no sound file, or breaks off in its header".to_owned())
            }
            other => refuse(format!("is no sound file that can be read: {other}")),
        })?;
    let track = format
        .default_track(TrackType::Audio)
        .ok_or_else(|| refuse("has no sound track".to_owned()))?;
    let id = track.id;
    let parameters = track.codec_params.as_ref();
    let parameters = parameters
        .and_then(|parameters| parameters.audio())
        .ok_or_else(|| refuse("has a sound track of an unknown codec".to_owned()))?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|error| refuse(format!("has a sound track that cannot be decoded: {error}")))?;
    decode(path, &mut *format, &mut *decoder, id, rate)
}

fn decode(
    path: &Path,
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track: u32,
    rate: u32,
) -> Result<Audio, AudioFileError> {
    let mut sink: Option<Sink<'_>> = None;
    let mut interleaved: Vec<f32> = Vec::new();
    let mut mono: Vec<f32> = Vec::new();
    let mut damage: Option<String> = None;
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            // A second stream behind the first is another recording.
            Ok(None) | Err(FormatError::ResetRequired) => break,
            Err(error) => {
                damage = Some(error.to_string());
                break;
            }
        };
        if packet.track_id != track {
            continue;
        }
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(FormatError::DecodeError(reason)) => {
                damage = Some(reason.to_owned());
                continue;
            }
            Err(error) => {
                damage = Some(error.to_string());
                break;
            }
        };
        let (from, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        if channels == 0 || decoded.frames() == 0 {
            continue;
        }
        decoded.copy_to_vec_interleaved(&mut interleaved);
        mono.clear();
        let frames = interleaved.chunks_exact(channels);
        mono.extend(frames.map(|frame| frame.iter().sum::<f32>() / channels as f32));
        let sink = match &mut sink {
            // The rate of a stream is that of its first packet.
            Some(sink) => sink,
            none => none.insert(Sink::new(path, from, rate)?),
        };
        sink.push(&mono)?;
    }
    match (sink, damage) {
        (Some(sink), None) => sink.finish(),
        (Some(sink), Some(reason)) => {
            let audio = sink.finish()?;
            // A file that breaks off has lost its end; one with damaged packets only those.
            tracing::warn!(path = %path.display(), reason, seconds = audio.seconds(), "damaged sound");
            Ok(audio)
        }
        (None, Some(reason)) => Err(AudioFileError::Damaged {
            path: path.to_owned(),
            seconds: 0.0,
            reason,
        }),
        (None, None) => Ok(Audio {
            samples: Vec::new(),
            rate,
        }),
    }
}

/// Collects samples at one rate and holds them at another.
struct Sink<'a> {
    path: &'a Path,
    rate: u32,
    ratio: (u32, u32),
    taken: u64,
    samples: Vec<f32>,
    resampler: Option<Stream>,
}

/// A resampler between blocks.
struct Stream {
    inner: Fft<f32>,
    waiting: Vec<f32>,
    output: Vec<Vec<f32>>,
}

impl<'a> Sink<'a> {
    fn new(path: &'a Path, from: u32, to: u32) -> Result<Self, AudioFileError> {
        let refuse = |reason: String| AudioFileError::Format {
            path: path.to_owned(),
            reason,
        };
        for rate in [from, to] {
            if !RATES.contains(&rate) {
                return Err(refuse(format!("has {rate} samples a second")));
            }
        }
        let resampler = if from == to {
            None
        } else {
            const BLOCK: usize = 4096;
            let inner = Fft::new(from as usize, to as usize, BLOCK, 1, FixedSync::Both)
                .map_err(|error| refuse(format!("cannot be brought to {to} Hz: {error}")))?;
            let output = vec![vec![0.0; inner.output_frames_max()]];
            Some(Stream {
                inner,
                waiting: Vec::new(),
                output,
            })
        };
        Ok(Self {
            path,
            rate: to,
            ratio: (from, to),
            taken: 0,
            samples: Vec::new(),
            resampler,
        })
    }

    fn push(&mut self, samples: &[f32]) -> Result<(), AudioFileError> {
        self.taken += samples.len() as u64;
        if self.taken > u64::from(HOURS) * 3600 * u64::from(self.ratio.0) {
            return Err(AudioFileError::Long {
                path: self.path.to_owned(),
                hours: HOURS,
            });
        }
        match &mut self.resampler {
            None => self.samples.extend_from_slice(samples),
            Some(stream) => {
                stream.waiting.extend_from_slice(samples);
                stream.drain(self.path, &mut self.samples)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Audio, AudioFileError> {
        if let Some(stream) = &mut self.resampler {
            let delay = stream.inner.output_delay();
            let (from, to) = (u64::from(self.ratio.0), u64::from(self.ratio.1));
            let length = (self.taken * to).div_ceil(from) as usize;
            while self.samples.len() < delay + length {
                let missing = stream.inner.input_frames_next() - stream.waiting.len();
                stream.waiting.resize(stream.waiting.len() + missing, 0.0);
                stream.drain(self.path, &mut self.samples)?;
            }
            self.samples.truncate(delay + length);
            self.samples.drain(..delay);
        }
        Ok(Audio {
            samples: self.samples,
            rate: self.rate,
        })
    }
}

impl Stream {
    /// Resamples whole blocks of what waits.
    fn drain(&mut self, path: &Path, samples: &mut Vec<f32>) -> Result<(), AudioFileError> {
        let failed = |reason: String| AudioFileError::Format {
            path: path.to_owned(),
            reason,
        };
        let mut done = 0;
        while self.waiting.len() - done >= self.inner.input_frames_next() {
            let size = self.inner.input_frames_next();
            let block = [self.waiting[done..done + size].to_vec()];
            let room = self.output[0].len();
            let input = SequentialSliceOfVecs::new(&block, 1, size)
                .map_err(|error| failed(error.to_string()))?;
            let mut output = SequentialSliceOfVecs::new_mut(&mut self.output, 1, room)
                .map_err(|error| failed(error.to_string()))?;
            let (_, made) = self
                .inner
                .process_into_buffer(&input, &mut output, None)
                .map_err(|error| failed(error.to_string()))?;
            samples.extend_from_slice(&self.output[0][..made]);
            done += size;
        }
        self.waiting.drain(..done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Audio;

    fn tone(rate: u32, frequency: f64, seconds: f64) -> Vec<f32> {
        let count = (f64::from(rate) * seconds) as usize;
        let phase = |n: usize| n as f64 * frequency / f64::from(rate) * std::f64::consts::TAU;
        (0..count).map(|n| phase(n).sin() as f32).collect()
    }

    #[test]
    fn resampling_keeps_tone_length_and_place() {
        for rate in [8_000, 11_025, 22_050, 44_100, 48_000] {
            let audio = Audio {
                samples: tone(rate, 440.0, 1.5),
                rate,
            };
            let there = audio.resampled(16_000).unwrap();
            let expected = tone(16_000, 440.0, 1.5);
            assert!(there.samples.len().abs_diff(expected.len()) <= 1);
            // The ends ring, for there the tone begins and ends.
            let middle = 1_000..there.samples.len() - 1_000;
            let pairs = middle.map(|n| (there.samples[n] - expected[n]).abs());
            let worst = pairs.fold(0.0, f32::max);
            assert!(worst < 2e-3, "{rate}: {worst}");
        }
    }

    #[test]
    fn lengths_from_nothing_to_a_block_are_kept() {
        for length in [0, 1, 44, 441, 4096, 4410] {
            let audio = Audio {
                samples: vec![0.5; length],
                rate: 44_100,
            };
            let made = audio.resampled(16_000).unwrap().samples.len();
            assert_eq!(made, (length * 160).div_ceil(441));
        }
        for rate in [0, 7, 4_000_000_000] {
            let audio = Audio {
                samples: vec![0.0; 8],
                rate,
            };
            assert!(audio.resampled(16_000).is_err());
        }
    }
}
