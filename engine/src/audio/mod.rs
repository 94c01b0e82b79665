//! Sound files to waveforms: any container and rate in, one channel at one rate out.

mod joined;
#[cfg(feature = "opus")]
mod opus;
#[cfg(not(feature = "opus"))]
#[path = "without_opus.rs"]
mod opus;
mod source;
mod wave;

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Resampler};
use serde::Serialize;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as FormatError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use joined::{Piece, Pieces, Recording};
use opus::Opus;
use source::{Bytes, Window};

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
    #[error(
        "{}: {reason}; WAV, FLAC, MP3, OGG (Vorbis, Opus), WebM, AIFF and M4A (AAC, ALAC) can be read, and \
         `ffmpeg -i FILE sound.wav` makes a WAV of most others",
        path.display()
    )]
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
    /// What is piped is more than memory should be asked for.
    #[error("{}: more than {mebibytes} MiB come through a pipe; write them to a file first", path.display())]
    Piped {
        /// The file.
        path: PathBuf,
        /// The most there may be.
        mebibytes: u64,
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

/// Something in a sound file that is not heard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AudioWarning {
    /// How many seconds of sound come before it.
    pub seconds: f64,
    /// The byte of the file at which what it is about begins.
    pub byte: u64,
    /// What is not heard, and why.
    pub reason: String,
}

impl fmt::Display for AudioWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seconds,
            byte,
            reason,
        } = self;
        write!(
            f,
            "after {seconds:.2} s of sound, from byte {byte} on: {reason}"
        )
    }
}

/// What a file holds, and what of it is not heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The sound; of several recordings that were joined, one after the other.
    pub audio: Audio,
    /// What is missing, in order; beyond 64 they are counted by the last.
    pub warnings: Vec<AudioWarning>,
}

/// Beyond this a small file of silence could ask for any amount of memory.
const HOURS: u32 = 24;

/// The most that is read from a pipe, which has to be held in memory.
const PIPED: u64 = 1 << 30;

/// How many recordings a file may hold, since each costs a decoder.
const RECORDINGS: usize = 10_000;

/// How many warnings there are of a file.
const WARNINGS: usize = 64;

/// What files may claim for their rate.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

impl Audio {
    /// Reads a file, mixes its channels to one by their mean, and brings it to `rate`.
    ///
    /// Files that were joined are heard to the end: MP3, ADTS, OGG, FLAC, WAV, MP4 and Matroska, each part at its
    /// own rate and with its own channels, also of different kinds. What cannot be heard — packets that are damaged,
    /// the rest of a file that breaks off, what stands between sounds and is none — is left out and warned of; see
    /// [`Audio::listen`].
    ///
    /// Memory holds the result and a block of the file, never what a header claims. What is no regular file, such as
    /// a FIFO, is read into memory first, at most 1 GiB of it.
    ///
    /// The reference brings sound to its rate by FFmpeg (`whisper.load_audio`) or torchaudio; here a
    /// band-limited FFT resampler does it. They differ in the last tenths of the band below the new limit,
    /// by 10⁻³ of full scale or so; at the model's own rate the samples are the file's. Edit lists of M4A
    /// are not read, so what an AAC encoder puts before the sound, about a fortieth of a second, stays; nor is what
    /// Matroska says is to be left out at the end of Opus, at most a packet.
    ///
    /// # Errors
    /// The file cannot be opened, is in no known format, is damaged, or lasts longer than a day.
    pub fn open(path: impl AsRef<Path>, rate: u32) -> Result<Self, AudioFileError> {
        Self::listen(path, rate).map(|heard| heard.audio)
    }

    /// Reads a file as [`Audio::open`] does, and tells what of it is not heard.
    ///
    /// # Errors
    /// As [`Audio::open`].
    pub fn listen(path: impl AsRef<Path>, rate: u32) -> Result<Heard, AudioFileError> {
        let path = path.as_ref();
        let io = |source| AudioFileError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(ErrorKind::IsADirectory.into()));
        }
        // What the system makes up as it is read has no length either.
        if metadata.is_file() && metadata.len() > 0 {
            return read(path, &Bytes::File(Arc::new(file), metadata.len()), rate);
        }
        piped(path, file, rate)
    }

    /// Reads from a pipe as [`Audio::listen`] does from a file; `name` stands for it in errors. At most 1 GiB is
    /// read, into memory.
    ///
    /// # Errors
    /// As [`Audio::open`], or more comes.
    pub fn from_reader(name: &str, reader: impl Read, rate: u32) -> Result<Heard, AudioFileError> {
        piped(Path::new(name), reader, rate)
    }

    /// Reads a file's bytes as [`Audio::open`] does; `name` stands for the file in errors and lends its
    /// ending as a hint.
    ///
    /// # Errors
    /// As [`Audio::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>, rate: u32) -> Result<Self, AudioFileError> {
        Self::listen_to_bytes(name, bytes, rate).map(|heard| heard.audio)
    }

    /// Reads a file's bytes as [`Audio::listen`] does the file.
    ///
    /// # Errors
    /// As [`Audio::open`].
    pub fn listen_to_bytes(name: &str, bytes: Vec<u8>, rate: u32) -> Result<Heard, AudioFileError> {
        read(Path::new(name), &Bytes::Memory(bytes.into()), rate)
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
        let samples = out.finish()?;
        Ok(Self { samples, rate })
    }
}

fn piped(path: &Path, reader: impl Read, rate: u32) -> Result<Heard, AudioFileError> {
    let mut bytes = Vec::new();
    let read_to_end = reader.take(PIPED + 1).read_to_end(&mut bytes);
    read_to_end.map_err(|source| AudioFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > PIPED {
        return Err(AudioFileError::Piped {
            path: path.to_owned(),
            mebibytes: PIPED >> 20,
        });
    }
    read(path, &Bytes::Memory(bytes.into()), rate)
}

/// What has been heard of a file so far.
struct Listening<'a> {
    path: &'a Path,
    rate: u32,
    samples: Vec<f32>,
    warnings: Vec<AudioWarning>,
    more_warnings: usize,
}

fn read(path: &Path, bytes: &Bytes, rate: u32) -> Result<Heard, AudioFileError> {
    let io = |source| AudioFileError::Io {
        path: path.to_owned(),
        source,
    };
    let refuse = |reason: String| AudioFileError::Format {
        path: path.to_owned(),
        reason,
    };
    if bytes.len() == 0 {
        return Err(refuse("is empty".to_owned()));
    }
    let mut heard = Listening {
        path,
        rate,
        samples: Vec::new(),
        warnings: Vec::new(),
        more_warnings: 0,
    };
    let mut pieces = Pieces::new(bytes.clone()).map_err(io)?;
    let mut recordings = 0;
    let mut failure: Option<AudioFileError> = None;
    let mut sounds = false;
    while let Some(piece) = pieces.next().map_err(io)? {
        recordings += 1;
        if recordings > RECORDINGS {
            let reason = format!("holds more than {RECORDINGS} recordings; split it");
            return Err(refuse(reason));
        }
        let (at, error) = match piece {
            Piece::Sound(recording) => {
                let at = recording.range.start;
                match heard.recording(bytes, recording) {
                    Ok(()) => {
                        sounds = true;
                        continue;
                    }
                    Err(error @ (AudioFileError::Long { .. } | AudioFileError::Io { .. })) => {
                        return Err(error);
                    }
                    Err(error) => (at, error),
                }
            }
            Piece::Other { at, reason } => (at, refuse(reason)),
        };
        let reason = match &error {
            AudioFileError::Format { reason, .. } => reason.clone(),
            AudioFileError::Damaged { reason, .. } => format!("is damaged: {reason}"),
            other => other.to_string(),
        };
        heard.warn(at, reason);
        failure.get_or_insert(error);
    }
    match failure {
        Some(error) if !sounds => return Err(error),
        None if !sounds => return Err(refuse("is no sound file".to_owned())),
        _ => {}
    }
    if let (1.., Some(last)) = (heard.more_warnings, heard.warnings.last_mut()) {
        last.reason = format!(
            "{}; and {} more such places",
            last.reason, heard.more_warnings
        );
    }
    for warning in &heard.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    Ok(Heard {
        audio: Audio {
            samples: heard.samples,
            rate,
        },
        warnings: heard.warnings,
    })
}

/// What makes samples of packets.
enum Decoder {
    Opus(Box<Opus>),
    Other(Box<dyn AudioDecoder>, Vec<f32>),
}

impl Decoder {
    fn new(parameters: &AudioCodecParameters) -> Result<Self, String> {
        if parameters.codec == CODEC_ID_OPUS {
            let head = parameters.extra_data.as_deref().unwrap_or_default();
            return Ok(Self::Opus(Box::new(Opus::new(head)?)));
        }
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(parameters, &AudioDecoderOptions::default())
            .map_err(|error| format!("has a sound track that cannot be decoded: {error}"))?;
        Ok(Self::Other(decoder, Vec::new()))
    }

    /// The mean of the channels, and the rate.
    fn decode(&mut self, packet: &Packet, mono: &mut Vec<f32>) -> Result<u32, String> {
        mono.clear();
        match self {
            Self::Opus(opus) => {
                opus.decode(&packet.data, packet.trim_end.get(), mono)?;
                Ok(opus::RATE)
            }
            Self::Other(decoder, interleaved) => {
                let decoded = match decoder.decode(packet) {
                    Ok(decoded) => decoded,
                    Err(error) => {
                        let reason = error.to_string();
                        if matches!(error, FormatError::ResetRequired) {
                            decoder.reset();
                        }
                        return Err(reason);
                    }
                };
                let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                if channels > 0 && decoded.frames() > 0 {
                    decoded.copy_to_vec_interleaved(interleaved);
                    let frames = interleaved.chunks_exact(channels);
                    mono.extend(frames.map(|frame| frame.iter().sum::<f32>() / channels as f32));
                }
                Ok(rate)
            }
        }
    }
}

impl Listening<'_> {
    fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    fn warn(&mut self, byte: u64, reason: String) {
        self.warn_after(self.seconds(), byte, reason);
    }

    fn warn_after(&mut self, seconds: f64, byte: u64, reason: String) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(AudioWarning {
                seconds,
                byte,
                reason,
            });
        } else {
            self.more_warnings += 1;
        }
    }

    /// Hears one recording of the file.
    fn recording(&mut self, bytes: &Bytes, recording: Recording) -> Result<(), AudioFileError> {
        let path = self.path;
        let refuse = |reason: String| AudioFileError::Format {
            path: path.to_owned(),
            reason,
        };
        let Recording {
            head,
            range,
            ending,
            seekable,
            counted,
            open,
            mut skip,
            cut,
        } = recording;
        let mut hint = Hint::new();
        let own = path.extension().and_then(|ending| ending.to_str());
        if let Some(ending) = ending.or(own) {
            hint.with_extension(ending);
        }
        let window = Window::new(bytes.clone(), head, range.clone(), seekable);
        let stream = MediaSourceStream::new(Box::new(window), Default::default());
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
        let (id, expected) = (track.id, track.num_frames.filter(|_| counted));
        let parameters = track.codec_params.as_ref();
        let parameters = parameters
            .and_then(|parameters| parameters.audio())
            .ok_or_else(|| refuse("has a sound track of an unknown codec".to_owned()))?;
        let mut decoder = Decoder::new(parameters).map_err(refuse)?;

        let began = self.seconds();
        let mut sink: Option<Sink<'_>> = None;
        let mut mono: Vec<f32> = Vec::new();
        let mut cut = cut;
        let (mut frames, mut lost, mut first_lost) = (0_u64, 0_u64, None);
        loop {
            let packet = match format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(FormatError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    if !open {
                        cut.get_or_insert("the sound breaks off".to_owned());
                    }
                    break;
                }
                Err(FormatError::ResetRequired) => {
                    cut.get_or_insert("another stream begins, which is not heard".to_owned());
                    break;
                }
                Err(error) => {
                    cut.get_or_insert(error.to_string());
                    break;
                }
            };
            if packet.track_id != id {
                continue;
            }
            let from = match decoder.decode(&packet, &mut mono) {
                Ok(from) => from,
                Err(reason) => {
                    lost += 1;
                    let before = sink.as_ref().map_or(0.0, Sink::seconds);
                    first_lost.get_or_insert((self.seconds() + before, reason));
                    continue;
                }
            };
            let skipped = mono.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            mono.drain(..skipped);
            if mono.is_empty() {
                continue;
            }
            frames += mono.len() as u64;
            if let Some(full) = sink.take_if(|sink| sink.ratio.0 != from) {
                self.take(full)?;
            }
            let sink = match &mut sink {
                Some(sink) => sink,
                none => none.insert(Sink::new(path, from, self.rate)?),
            };
            sink.push(&mono)?;
            if self.seconds() + sink.seconds() > f64::from(HOURS) * 3600.0 {
                return Err(AudioFileError::Long {
                    path: path.to_owned(),
                    hours: HOURS,
                });
            }
        }
        if let Some(sink) = sink {
            self.take(sink)?;
        }
        if frames == 0 {
            // Nothing was said to be there, or nothing of it can be heard.
            let reason = first_lost.map(|(_, reason)| reason).or(cut);
            return match reason {
                None => Ok(()),
                Some(reason) => Err(AudioFileError::Damaged {
                    path: path.to_owned(),
                    seconds: began,
                    reason,
                }),
            };
        }
        if let Some((seconds, reason)) = first_lost {
            let reason = format!("{lost} packets cannot be decoded and are left out: {reason}");
            self.warn_after(seconds, range.start, reason);
        } else if let (None, Some(expected)) = (&cut, expected) {
            // An MP4 counts what its encoder put around the sound.
            let slack = if ending == Some("flac") {
                0
            } else {
                frames / 100 + 4_096
            };
            if frames + slack < expected {
                cut = Some(format!(
                    "the header says {expected} samples, {frames} are there"
                ));
            }
        }
        if let Some(reason) = cut {
            self.warn(range.end, reason);
        }
        Ok(())
    }

    fn take(&mut self, sink: Sink<'_>) -> Result<(), AudioFileError> {
        let mut samples = sink.finish()?;
        if self.samples.is_empty() {
            self.samples = samples;
        } else {
            self.samples.append(&mut samples);
        }
        Ok(())
    }
}

/// Collects samples at one rate and holds them at another.
struct Sink<'a> {
    path: &'a Path,
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
            ratio: (from, to),
            taken: 0,
            samples: Vec::new(),
            resampler,
        })
    }

    /// How much it has taken.
    fn seconds(&self) -> f64 {
        self.taken as f64 / f64::from(self.ratio.0)
    }

    fn push(&mut self, samples: &[f32]) -> Result<(), AudioFileError> {
        self.taken += samples.len() as u64;
        match &mut self.resampler {
            None => self.samples.extend_from_slice(samples),
            Some(stream) => {
                stream.waiting.extend_from_slice(samples);
                stream.drain(self.path, &mut self.samples)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<f32>, AudioFileError> {
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
        Ok(self.samples)
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
