//! Whisper's algorithm around the search: windows, prompts, fallback, segments.
//!
//! Reference: `WhisperGenerationMixin.generate` of transformers 5.23, its sequential algorithm. Two departures: windows that hold nothing but the padding after a short recording are not
//! decoded, and a window whose last timestamp is its beginning, on which the reference would never get
//! further, is left behind.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::{ControlFlow, Range};

use burn::tensor::{Int, Tensor, TensorData};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use salamander_models::processing::audio::Features;
use salamander_models::whisper::{Cache, WhisperConfig, WhisperForConditionalGeneration};

use super::align::Weights;
use super::config::GenerationConfig;
use super::languages;
use super::rules::{Rules, TimestampRules};
use super::search::{Found, SearchOptions, Steps, beam_search, sample};
use crate::{Device, Error};

/// What stands before every window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    /// Its tokens, `<|startofprev|>` first.
    pub(crate) tokens: Vec<u32>,
    /// Whether it stands before every window rather than giving way to what was said.
    pub(crate) every: bool,
}

/// How a recording is to be transcribed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) language: Option<String>,
    pub(crate) task: Option<&'static str>,
    pub(crate) timestamps: bool,
    /// Whether tokens have times.
    pub(crate) token_times: bool,
    pub(crate) max_new_tokens: Option<usize>,
    pub(crate) search: SearchOptions,
    pub(crate) repetition_penalty: f32,
    pub(crate) no_repeat_ngram_size: usize,
    pub(crate) temperatures: Vec<f32>,
    pub(crate) seed: u64,
    pub(crate) compression_ratio: Option<f32>,
    pub(crate) logprob: Option<f32>,
    pub(crate) no_speech: Option<f32>,
    pub(crate) condition: bool,
    pub(crate) prompt: Option<Prompt>,
}

/// A stretch of a recording and its tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    pub(crate) start: f64,
    pub(crate) end: f64,
    /// With timestamps, without the token that ends a text.
    pub(crate) tokens: Vec<u32>,
    /// The second at which each token ends and the next begins, if they were asked for.
    pub(crate) times: Vec<f64>,
    pub(crate) temperature: f32,
    pub(crate) mean_logprob: f32,
    pub(crate) compression_ratio: f32,
    pub(crate) no_speech: f32,
}

/// A timestamp's unit, and two frames'.
const PRECISION: f64 = 0.02;
/// The frames of an encoder position.
const STRIDE: usize = 2;
/// From this temperature on, what was said is too wild to go on from.
const WILD: f32 = 0.5;

pub(crate) struct Transcriber<'a> {
    pub(crate) model: &'a WhisperForConditionalGeneration,
    pub(crate) config: &'a WhisperConfig,
    pub(crate) generation: &'a GenerationConfig,
    pub(crate) device: &'a Device,
}

fn option(name: &'static str, reason: impl Into<String>) -> Error {
    Error::Option {
        name,
        reason: reason.into(),
    }
}

/// A recording's frames, of which the first `content` are not padding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recording<'a> {
    pub(crate) features: &'a Features,
    pub(crate) content: usize,
}

/// How far a recording is transcribed, and what the next window depends on.
struct State {
    /// The tokens that say what is to be done.
    init: Vec<u32>,
    /// The frame at which the next window begins.
    seek: usize,
    /// Whether it goes on from what was said.
    condition: bool,
    said: Vec<Vec<u32>>,
    random: ChaCha8Rng,
    max_length: Option<usize>,
}

impl State {
    fn new(init: Vec<u32>, request: &Request, max_length: Option<usize>) -> Self {
        let prompt = request.prompt.as_ref().filter(|prompt| !prompt.every);
        let said = prompt.map(|prompt| prompt.tokens.get(1..).unwrap_or_default().to_vec());
        Self {
            init,
            seek: 0,
            condition: request.condition,
            said: said.into_iter().collect(),
            random: ChaCha8Rng::seed_from_u64(request.seed),
            max_length,
        }
    }

    /// Goes on to the next window by the answer to this one, whose segments it gives.
    fn take(
        &mut self,
        answer: &Answer,
        random: ChaCha8Rng,
        recording: &Recording<'_>,
        request: &Request,
        window: usize,
        first_time: u32,
    ) -> Vec<Segment> {
        let offset = self.seek as f64 * PRECISION / STRIDE as f64;
        let frames = (recording.features.frames - self.seek).min(window);
        self.random = random;
        self.condition = request.condition && answer.temperature < WILD;
        let (segments, advance) = if answer.skip {
            (Vec::new(), frames)
        } else {
            split(answer, offset, first_time, frames)
        };
        let said = segments.iter().map(|segment| segment.tokens.clone());
        self.said.extend(said);
        // The reference does not get further from here.
        self.seek += if advance == 0 { frames } else { advance };
        segments
    }
}

/// A recording's index, and the tokens that its window begins with.
type Row = (usize, Vec<u32>);

/// A window's answer.
struct Answer {
    tokens: Vec<u32>,
    /// Whether the token that ends a text came.
    ended: bool,
    /// Of each token, in seconds from the window's beginning, if they were asked for.
    times: Vec<f64>,
    skip: bool,
    temperature: f32,
    mean_logprob: f32,
    compression_ratio: f32,
    no_speech: f32,
}

impl Transcriber<'_> {
    /// Transcribes recordings, and hands over each window's segments with the recording's index, the id of its
    /// language, if the model has several, and the seconds of it that are done.
    ///
    /// Windows of several recordings are encoded together, and decoded together where their prompts are equally
    /// long. Each recording gets what it would get alone.
    pub(crate) fn run(
        &self,
        recordings: &[Recording<'_>],
        request: &Request,
        mut found: impl FnMut(usize, &[Segment], Option<u32>, f64) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let window = self.config.window_frames();
        let end = self.end()?;
        if request.timestamps && self.generation.no_timestamps_token_id.is_none() {
            let reason = "the checkpoint's generation_config.json has no `no_timestamps_token_id`";
            return Err(option("timestamps", reason));
        }
        let long = recordings.iter().any(|r| r.features.frames > window);
        if long && !request.timestamps {
            let reason = "a recording longer than one window needs them to find the next window";
            return Err(option("timestamps", reason));
        }
        let heads = match request.token_times {
            true => self.alignment_heads()?,
            false => &[],
        };
        let first_time = self
            .generation
            .no_timestamps_token_id
            .map_or(u32::MAX, |id| id.saturating_add(1));
        let rules = self.rules(request, end);
        let mut states = Vec::with_capacity(recordings.len());
        for recording in recordings {
            states.push(State::new(
                self.init_tokens(recording.features, request)?,
                request,
                self.generation.max_length,
            ));
        }
        loop {
            let mut together: BTreeMap<(usize, usize), Vec<Row>> = BTreeMap::new();
            for (index, (state, recording)) in states.iter_mut().zip(recordings).enumerate() {
                if state.seek >= recording.features.frames.min(recording.content) {
                    continue;
                }
                let prompt = self.prompt(request, state, first_time)?;
                let room = self.room(prompt.len(), request, &mut state.max_length)?;
                let rows = together.entry((prompt.len(), room)).or_default();
                rows.push((index, prompt));
            }
            if together.is_empty() {
                break;
            }
            for ((_, room), rows) in together {
                let windows: Vec<Features> = rows
                    .iter()
                    .map(|(index, _)| {
                        recordings[*index]
                            .features
                            .window(states[*index].seek, window)
                    })
                    .collect();
                let prompts: Vec<&[u32]> = rows.iter().map(|(_, prompt)| &prompt[..]).collect();
                let mut random: Vec<ChaCha8Rng> = rows
                    .iter()
                    .map(|(index, _)| states[*index].random.clone())
                    .collect();
                let encoded = self.encode(&windows);
                let init = states[rows[0].0].init.len();
                let answers = self.answers(
                    &encoded,
                    &prompts,
                    init,
                    &rules,
                    end,
                    room,
                    request,
                    &mut random,
                )?;
                let answers = answers.into_iter().zip(random);
                for (row, ((index, prompt), (mut answer, random))) in
                    rows.iter().zip(answers).enumerate()
                {
                    let (state, recording) = (&mut states[*index], &recordings[*index]);
                    if request.token_times && !answer.skip {
                        let left = recording.features.frames.min(recording.content) - state.seek;
                        let encoded = encoded.clone().narrow(0, row, 1);
                        answer.times =
                            self.token_times(&encoded, prompt, &answer, heads, left.min(window))?;
                    }
                    let language = self.language(&state.init);
                    let segments =
                        state.take(&answer, random, recording, request, window, first_time);
                    let done = state.seek.min(recording.content) as f64 * PRECISION / STRIDE as f64;
                    if found(*index, &segments, language, done)?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The language among the tokens that say what is to be done.
    fn language(&self, init: &[u32]) -> Option<u32> {
        let id = init.get(1).copied()?;
        let known = self.generation.lang_to_id.as_ref()?;
        known.values().any(|known| *known == id).then_some(id)
    }

    fn end(&self) -> Result<u32, Error> {
        self.generation.eos_token_id.ok_or_else(|| {
            option(
                "model",
                "neither generation_config.json nor config.json has an `eos_token_id`",
            )
        })
    }

    /// Encodes windows of one size, one a row.
    fn encode(&self, windows: &[Features]) -> Tensor<3> {
        let (bins, frames) = windows.first().map_or((0, 0), |w| (w.bins, w.frames));
        let values = windows.iter().flat_map(|window| &window.values).copied();
        let data = TensorData::new(values.collect::<Vec<_>>(), [windows.len(), bins, frames]);
        let features = Tensor::from_data(data, self.device.burn());
        self.device.compute(|| self.model.trunk().encode(features))
    }

    fn rules(&self, request: &Request, end: u32) -> Rules {
        let tokens = |list: &Option<Vec<i64>>| {
            let list = list.iter().flatten();
            list.filter_map(|id| u32::try_from(*id).ok()).collect()
        };
        Rules {
            repetition_penalty: request.repetition_penalty,
            no_repeat_ngram_size: request.no_repeat_ngram_size,
            suppressed: tokens(&self.generation.suppress_tokens),
            suppressed_at_begin: tokens(&self.generation.begin_suppress_tokens),
            timestamps: self
                .generation
                .no_timestamps_token_id
                .filter(|_| request.timestamps)
                .map(|none| TimestampRules {
                    none,
                    end_of_text: end,
                    latest_first: self.generation.max_initial_timestamp_index,
                }),
        }
    }

    /// The tokens that say what is to be done: start, language, task, no timestamps.
    fn init_tokens(&self, features: &Features, request: &Request) -> Result<Vec<u32>, Error> {
        let settings = self.generation;
        let start = settings.decoder_start_token_id.ok_or_else(|| {
            option(
                "model",
                "neither generation_config.json nor config.json has a `decoder_start_token_id`",
            )
        })?;
        if settings.is_multilingual == Some(false) {
            let given = [
                ("language", request.language.is_some()),
                ("task", request.task.is_some()),
            ];
            for (name, given) in given {
                if given {
                    return Err(option(name, "this model knows English only; leave it out"));
                }
            }
        }
        let asked = request.language.as_deref().or(settings.language.as_deref());
        let task = request.task.or(settings.task.as_deref());
        let mut init = vec![Some(start)];
        if asked.is_none() && task.is_none() {
            let forced = settings.forced_decoder_ids.iter().flatten();
            let forced = forced.zip(1..).take_while(|((at, _), next)| at == next);
            init.extend(forced.map(|((_, id), _)| *id));
        }
        let language = match (asked, &settings.lang_to_id) {
            (Some(name), Some(map)) => Some(language_id(name, map)?),
            (Some(_), None) => {
                return Err(option("language", "the checkpoint names no languages"));
            }
            (None, Some(map)) if init.get(1).copied().flatten().is_none() => {
                Some(self.detect(features, start, map.values().copied())?)
            }
            _ => None,
        };
        if let Some(language) = language {
            match init.get_mut(1) {
                Some(place) => *place = Some(language),
                None => init.push(Some(language)),
            }
        }
        match (task, &settings.task_to_id) {
            (Some(task), Some(map)) => match map.get(task) {
                Some(id) => init.push(Some(*id)),
                None => return Err(option("task", format!("the checkpoint has no \"{task}\""))),
            },
            (Some(_), None) => return Err(option("task", "the checkpoint names no tasks")),
            (None, Some(map))
                if asked.is_some()
                    && !init
                        .iter()
                        .flatten()
                        .any(|id| map.values().any(|t| t == id)) =>
            {
                init.push(map.get("transcribe").copied());
            }
            _ => {}
        }
        let none = settings.no_timestamps_token_id;
        let last = init.last().copied().flatten();
        if !request.timestamps && none.is_some() && last != none {
            init.push(none);
        } else if request.timestamps && none.is_some() && last == none {
            init.pop();
        }
        Ok(init.into_iter().flatten().collect())
    }

    /// The likeliest of the languages in the first window.
    fn detect(
        &self,
        features: &Features,
        start: u32,
        languages: impl Iterator<Item = u32>,
    ) -> Result<u32, Error> {
        let encoded = self.encode(&[features.window(0, self.config.window_frames())]);
        let mut decoder = self.decoder(&encoded, 1, 1);
        let logits = decoder.step(&[&[start]])?;
        let score = |id: &u32| logits.get(*id as usize).copied();
        let mut ids: Vec<u32> = languages.filter(|id| score(id).is_some()).collect();
        // The first among equals is the one of the lowest id.
        ids.sort_unstable();
        let best = ids
            .into_iter()
            .reduce(|best, id| match score(&id) > score(&best) {
                true => id,
                false => best,
            });
        best.ok_or_else(|| option("language", "the checkpoint names no languages"))
    }

    /// What was said before, or the prompt, and what is to be done.
    fn prompt(&self, request: &Request, state: &State, first_time: u32) -> Result<Vec<u32>, Error> {
        let mut tokens: Vec<u32> = Vec::new();
        if state.condition && !state.said.is_empty() {
            let previous = self.generation.prev_sot_token_id.or_else(|| {
                let suppressed = self.generation.suppress_tokens.as_ref()?;
                let index = suppressed.len().checked_sub(2)?;
                u32::try_from(suppressed[index]).ok()
            });
            match &request.prompt {
                Some(prompt) if prompt.every => tokens.extend(&prompt.tokens),
                _ => tokens.extend(previous),
            }
            let mut history: Vec<u32> = Vec::new();
            for segment in &state.said {
                let ends_twice = segment.len() > 2 && segment[segment.len() - 2] >= first_time;
                history.extend(&segment[..segment.len() - usize::from(ends_twice)]);
            }
            let longest = self.config.max_target_positions / 2 - 1;
            tokens.extend(&history[history.len().saturating_sub(longest)..]);
        } else if let Some(prompt) = &request.prompt {
            tokens.extend(&prompt.tokens);
        }
        tokens.extend(&state.init);
        if tokens.len() >= self.config.max_target_positions {
            let (length, most) = (tokens.len(), self.config.max_target_positions);
            let reason = format!("{length} tokens leave no room: the model takes {most} in all");
            return Err(option("prompt", reason));
        }
        let words = self.config.vocab_size;
        if let Some(token) = tokens.iter().find(|token| **token as usize >= words) {
            let reason = format!("generation_config.json names the token {token} of {words}");
            return Err(option("model", reason));
        }
        Ok(tokens)
    }

    /// How many tokens may follow the prompt.
    fn room(
        &self,
        prompt: usize,
        request: &Request,
        max_length: &mut Option<usize>,
    ) -> Result<usize, Error> {
        let positions = self.config.max_target_positions;
        match (request.max_new_tokens, &mut *max_length) {
            (Some(new), _) if prompt + new > positions => {
                let reason = format!(
                    "{new} after a prompt of {prompt} are more than the {positions} the model takes"
                );
                Err(option("max_new_tokens", reason))
            }
            (Some(new), _) => Ok(new),
            (None, None) => Ok(positions - prompt),
            (None, Some(length)) => {
                // The reference lengthens it with every window, until it is all there is.
                *length = positions.min(*length + prompt.min(positions / 2 - 1));
                Ok(length.saturating_sub(prompt).max(1).min(positions - prompt))
            }
        }
    }

    fn decoder(&self, encoded: &Tensor<3>, beams: usize, capacity: usize) -> CachedDecoder<'_> {
        CachedDecoder {
            model: self.model,
            cache: self.model.trunk().cache(encoded.clone(), beams, capacity),
            device: self.device,
        }
    }

    /// Decodes windows, each hotter and hotter until its answer is good enough.
    #[allow(clippy::too_many_arguments)]
    fn answers(
        &self,
        encoded: &Tensor<3>,
        prompts: &[&[u32]],
        init: usize,
        rules: &Rules,
        end: u32,
        room: usize,
        request: &Request,
        random: &mut [ChaCha8Rng],
    ) -> Result<Vec<Answer>, Error> {
        let no_speech = match request.no_speech {
            Some(_) => self.no_speech(encoded, prompts, init)?,
            None => vec![0.0; prompts.len()],
        };
        let mut answers: Vec<Option<Answer>> = prompts.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        for (index, &temperature) in request.temperatures.iter().enumerate() {
            let last = index + 1 == request.temperatures.len();
            let found = self.search(
                encoded,
                prompts,
                &open,
                rules,
                end,
                room,
                temperature,
                request,
                random,
            )?;
            let mut again = Vec::new();
            for (
                row,
                Found {
                    mut tokens,
                    mean_logprob,
                },
            ) in open.into_iter().zip(found)
            {
                let compression_ratio = compression_ratio(&tokens, self.config.vocab_size);
                let unlikely = request.logprob.is_some_and(|least| mean_logprob < least);
                let repeats = request
                    .compression_ratio
                    .is_some_and(|most| compression_ratio > most);
                let skip = unlikely && request.no_speech.is_some_and(|most| no_speech[row] > most);
                if (unlikely || repeats) && !skip && !last {
                    again.push(row);
                    continue;
                }
                let ended = tokens.last() == Some(&end);
                if ended {
                    tokens.pop();
                }
                answers[row] = Some(Answer {
                    tokens,
                    ended,
                    times: Vec::new(),
                    skip,
                    temperature,
                    mean_logprob,
                    compression_ratio,
                    no_speech: no_speech[row],
                });
            }
            open = again;
            if open.is_empty() {
                break;
            }
        }
        let answers: Option<Vec<Answer>> = answers.into_iter().collect();
        answers.ok_or_else(|| option("temperatures", "there is none"))
    }

    /// What is said in the windows `open`, at one temperature.
    #[allow(clippy::too_many_arguments)]
    fn search(
        &self,
        encoded: &Tensor<3>,
        prompts: &[&[u32]],
        open: &[usize],
        rules: &Rules,
        end: u32,
        room: usize,
        temperature: f32,
        request: &Request,
        random: &mut [ChaCha8Rng],
    ) -> Result<Vec<Found>, Error> {
        let search = &request.search;
        let capacity = prompts.first().map_or(0, |prompt| prompt.len()) + room;
        if search.beams > 1 && temperature <= 0.0 {
            let one = |&row: &usize| {
                let encoded = encoded.clone().narrow(0, row, 1);
                let mut decoder = self.decoder(&encoded, search.beams, capacity);
                beam_search(&mut decoder, prompts[row], rules, end, room, search)
            };
            return open.iter().map(one).collect();
        }
        let rows: Vec<i64> = open.iter().map(|&row| row as i64).collect();
        let rows = Tensor::from_data(&rows[..], self.device.burn());
        let mut decoder = self.decoder(&encoded.clone().select(0, rows), 1, capacity);
        let prompts: Vec<&[u32]> = open.iter().map(|&row| prompts[row]).collect();
        let mut drawn: Vec<ChaCha8Rng> = open.iter().map(|&row| random[row].clone()).collect();
        let found = sample(
            &mut decoder,
            &prompts,
            rules,
            end,
            room,
            temperature,
            search,
            &mut drawn,
        )?;
        for (&row, drawn) in open.iter().zip(drawn) {
            random[row] = drawn;
        }
        Ok(found)
    }

    /// The layers and heads whose attention tells where a token is spoken.
    fn alignment_heads(&self) -> Result<&[[usize; 2]], Error> {
        let refuse = |reason: String| Err(option("word_timestamps", reason));
        let Some(heads) = &self.generation.alignment_heads else {
            return refuse(
                "the checkpoint's generation_config.json has no `alignment_heads`, a list of decoder \
                 layers and heads; where nobody has chosen, all heads of the upper layers are a start"
                    .to_owned(),
            );
        };
        let (layers, count) = (
            self.config.decoder_layers,
            self.config.decoder_attention_heads,
        );
        let beyond = |[layer, head]: &&[usize; 2]| *layer >= layers || *head >= count;
        match heads.iter().find(beyond) {
            Some([layer, head]) => refuse(format!(
                "generation_config.json names head {head} of layer {layer} in `alignment_heads`, counted \
                 from 0; the decoder has {layers} layers of {count} heads"
            )),
            None if (1..=layers * count).contains(&heads.len()) => Ok(heads),
            None => refuse(format!(
                "generation_config.json names {} `alignment_heads`, the decoder has {layers} layers of \
                 {count} heads",
                heads.len()
            )),
        }
    }

    /// When each token of a window's answer ends, of which the first `frames` frames are no padding.
    ///
    /// The last token that was decoded was not fed to the decoder, so that it looked at nothing; it has the
    /// time of the one before. With no position to look at that is the window's beginning, where the
    /// reference goes one before it.
    fn token_times(
        &self,
        encoded: &Tensor<3>,
        prompt: &[u32],
        answer: &Answer,
        heads: &[[usize; 2]],
        frames: usize,
    ) -> Result<Vec<f64>, Error> {
        let count = answer.tokens.len();
        let fed = count - usize::from(!answer.ended && count > 0);
        let positions = (frames / STRIDE).min(self.config.max_source_positions);
        if fed == 0 || positions == 0 {
            return Ok(vec![0.0; count]);
        }
        let tokens = prompt.iter().chain(&answer.tokens[..fed]);
        let ids: Vec<i64> = tokens.map(|&id| i64::from(id)).collect();
        let data = TensorData::new(ids, [1, prompt.len() + fed]);
        let ids = Tensor::<2, Int>::from_data(data, self.device.burn());
        let trunk = self.model.trunk();
        let weights = trunk.cross_attentions(ids.into(), encoded.clone(), heads);
        let weights = weights.narrow(2, prompt.len(), fed).narrow(3, 0, positions);
        let weights = Weights {
            heads: heads.len(),
            tokens: fed,
            positions,
            values: self.device.read(weights)?.iter::<f32>().collect(),
        };
        let entered = weights.align(self.config.median_filter_width);
        let mut times: Vec<f64> = entered.iter().map(|&at| at as f64 * PRECISION).collect();
        times.resize(count, times[fed - 1]);
        Ok(times)
    }

    /// The probability that nobody speaks, which the model tells where the transcript starts.
    fn no_speech(
        &self,
        encoded: &Tensor<3>,
        prompts: &[&[u32]],
        init: usize,
    ) -> Result<Vec<f32>, Error> {
        let Some(token) = self
            .generation
            .no_timestamps_token_id
            .and_then(|id| id.checked_sub(1))
        else {
            let reason = "the checkpoint's generation_config.json has no `no_timestamps_token_id`";
            return Err(option("no_speech_threshold", reason));
        };
        let starts: Vec<&[u32]> = prompts
            .iter()
            .map(|prompt| &prompt[..prompt.len() - init + 1])
            .collect();
        let mut decoder = self.decoder(encoded, 1, starts.first().map_or(0, |start| start.len()));
        let logits = decoder.step(&starts)?;
        let rows = logits.chunks_exact((logits.len() / prompts.len().max(1)).max(1));
        let probability = |logits: &[f32]| {
            let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = logits.iter().map(|score| (score - peak).exp()).sum();
            let score = logits.get(token as usize).copied();
            score.map_or(0.0, |score| (score - peak).exp() / sum)
        };
        Ok(rows.map(probability).collect())
    }
}

fn language_id(name: &str, map: &std::collections::BTreeMap<String, u32>) -> Result<u32, Error> {
    let lower = name.to_lowercase();
    let token = match languages::code(name) {
        Some(code) => format!("<|{code}|>"),
        None => lower,
    };
    map.get(&token).copied().ok_or_else(|| {
        let known: Vec<&str> = map
            .keys()
            .map(|token| token.trim_matches(['<', '|', '>']))
            .collect();
        let reason = format!("\"{name}\" is not known; there are {}", known.join(", "));
        option("language", reason)
    })
}

/// How many times smaller the tokens' bytes become by zlib: repetition shows.
///
/// Python's zlib makes a few bytes more or less of the same input.
fn compression_ratio(tokens: &[u32], words: usize) -> f32 {
    if tokens.is_empty() {
        return 0.0;
    }
    let width = (((words as f64).log2() / 8.0) as usize + 1).min(4);
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes()[..width].to_vec())
        .collect();
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // A vector takes whatever is written to it.
    let written = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    written.map_or(0.0, |small| bytes.len() as f32 / small.len() as f32)
}

/// A window's tokens as segments, at each pair of timestamps; and how many frames to go on.
fn split(answer: &Answer, offset: f64, first_time: u32, frames: usize) -> (Vec<Segment>, usize) {
    let tokens = &answer.tokens;
    let is_time: Vec<bool> = tokens.iter().map(|token| *token >= first_time).collect();
    let ticks = |token: u32| token.saturating_sub(first_time);
    let segment = |start: f64, end: f64, range: Range<usize>| Segment {
        start,
        end,
        tokens: tokens[range.clone()].to_vec(),
        times: answer.times.get(range).map_or(Vec::new(), |times| {
            times.iter().map(|time| offset + time).collect()
        }),
        temperature: answer.temperature,
        mean_logprob: answer.mean_logprob,
        compression_ratio: answer.compression_ratio,
        no_speech: answer.no_speech,
    };
    // One timestamp at the end: nothing was said after it.
    let single_end = matches!(is_time[..], [.., false, true]);
    let mut ends: Vec<usize> = (1..tokens.len())
        .filter(|&index| is_time[index - 1] && is_time[index])
        .collect();
    let Some(last) = ends.last_mut() else {
        let latest = tokens.iter().rev().find(|token| **token >= first_time);
        let ticks = match latest {
            Some(&token) if token != first_time => ticks(token),
            _ => (frames as f64 * (PRECISION / STRIDE as f64) / PRECISION) as u32,
        };
        let end = offset + f64::from(ticks) * PRECISION;
        return (vec![segment(offset, end, 0..tokens.len())], frames);
    };
    if single_end {
        ends.push(tokens.len());
    } else {
        // The last segment keeps both timestamps, which tells that it was no single end.
        *last += 1;
    }
    let time = |token: u32| offset + f64::from(ticks(token)) * PRECISION;
    let mut segments = Vec::with_capacity(ends.len());
    let mut start = 0;
    for (index, &end) in ends.iter().enumerate() {
        let part = &tokens[start..end];
        let doubled = index + 1 == ends.len() && !single_end && part.len() > 1;
        let closing = part[part.len() - 1 - usize::from(doubled)];
        segments.push(segment(time(part[0]), time(closing), start..end));
        start = end;
    }
    let advance = if single_end {
        frames
    } else {
        ticks(tokens[start - 2]) as usize * STRIDE
    };
    (segments, advance)
}

/// The model with the cache of one window.
struct CachedDecoder<'a> {
    model: &'a WhisperForConditionalGeneration,
    cache: Cache,
    device: &'a Device,
}

impl Steps for CachedDecoder<'_> {
    fn step(&mut self, rows: &[&[u32]]) -> Result<Vec<f32>, Error> {
        let length = rows.first().map_or(0, |row| row.len());
        if length > self.cache.room() {
            return Err(option("max_new_tokens", "the cache is full"));
        }
        let ids = rows.iter().flat_map(|row| row.iter());
        let ids: Vec<i64> = ids.map(|&id| i64::from(id)).collect();
        let data = TensorData::new(ids, [rows.len(), length]);
        let ids = Tensor::<2, Int>::from_data(data, self.device.burn());
        let logits = self.device.compute(|| {
            let hidden = self.model.trunk().step(ids, &mut self.cache);
            let [rows, length, width] = hidden.dims();
            let last = hidden.slice([0..rows, length - 1..length, 0..width]);
            self.model.logits(last)
        });
        let logits = self.device.read(logits)?;
        Ok(logits.iter::<f32>().collect())
    }

    fn reorder(&mut self, parents: &[usize]) {
        if parents
            .iter()
            .enumerate()
            .all(|(row, parent)| row == *parent)
        {
            return;
        }
        let parents: Vec<i64> = parents.iter().map(|&parent| parent as i64).collect();
        let parents = Tensor::from_data(&parents[..], self.device.burn());
        self.cache.reorder(&parents);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;
    use std::path::Path;

    use salamander_importers::Checkpoint;
    use salamander_models::processing::audio::Features;
    use salamander_models::whisper;
    use serde_json::Value;

    use super::{
        GenerationConfig, Prompt, Recording, Request, SearchOptions, Segment, Transcriber,
    };

    fn request(arguments: &Value) -> Request {
        let number = |name: &str| arguments[name].as_f64().map(|value| value as f32);
        let temperatures = arguments["temperature"].as_array();
        let temperatures = temperatures.map(|list| {
            list.iter()
                .filter_map(|value| value.as_f64().map(|value| value as f32))
                .collect()
        });
        let prompt = arguments["prompt_ids"].as_array().map(|ids| Prompt {
            tokens: ids.iter().map(|id| id.as_u64().unwrap() as u32).collect(),
            every: arguments["prompt_condition_type"] == "all-segments",
        });
        Request {
            language: arguments["language"].as_str().map(str::to_owned),
            task: match arguments["task"].as_str() {
                Some("translate") => Some("translate"),
                Some(_) => Some("transcribe"),
                None => None,
            },
            timestamps: arguments["return_timestamps"] == true,
            token_times: true,
            max_new_tokens: arguments["max_new_tokens"].as_u64().map(|n| n as usize),
            search: SearchOptions {
                beams: arguments["num_beams"].as_u64().unwrap_or(1) as usize,
                length_penalty: number("length_penalty").unwrap_or(1.0),
                early_stopping: arguments["early_stopping"] == true,
                top_k: 50,
                top_p: 1.0,
            },
            repetition_penalty: number("repetition_penalty").unwrap_or(1.0),
            no_repeat_ngram_size: arguments["no_repeat_ngram_size"].as_u64().unwrap_or(0) as usize,
            temperatures: temperatures.unwrap_or(vec![0.0]),
            seed: 0,
            compression_ratio: number("compression_ratio_threshold"),
            logprob: number("logprob_threshold"),
            no_speech: number("no_speech_threshold"),
            condition: arguments["condition_on_prev_tokens"] == true,
            prompt,
        }
    }

    /// Whether a segment is the reference's; without `timestamps` that makes times of words.
    fn same(found: &Segment, expected: &Value, timestamps: bool) -> bool {
        let near = |found: f64, expected: &Value| (found - expected.as_f64().unwrap()).abs() < 1e-6;
        let bounds = near(found.start, &expected["start"]) && near(found.end, &expected["end"]);
        let times = expected["times"].as_array().is_none_or(|times| {
            let mut pairs = found.times.iter().zip(times);
            pairs.all(|(found, expected)| near(*found, expected))
        });
        serde_json::json!(found.tokens) == expected["tokens"]
            && (bounds || !timestamps)
            && found.times.len() == found.tokens.len()
            && times
    }

    #[test]
    fn tokens_segments_and_times_are_the_references() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper_generate");
        let json = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
        };
        let device = crate::Device::from_env().unwrap();
        let checkpoint = Checkpoint::open(folder.join("model.safetensors")).unwrap();
        let settings = json("config.json");
        let (model, config) = whisper::open(&settings, &checkpoint, device.burn()).unwrap();
        let generation =
            GenerationConfig::parse(Some(&json("generation_config.json")), &settings).unwrap();
        let transcriber = Transcriber {
            model: &model,
            config: &config,
            generation: &generation,
            device: &device,
        };
        let sounds = Checkpoint::open(folder.join("features.safetensors")).unwrap();
        let sounds: BTreeMap<&str, Features> = sounds
            .iter()
            .map(|(name, entry)| {
                let data = entry.read().unwrap();
                let features = Features {
                    values: data.as_slice::<f32>().unwrap().to_vec(),
                    bins: entry.shape[1],
                    frames: entry.shape[2],
                };
                (name, features)
            })
            .map(|(name, features)| (&*name.to_owned().leak(), features))
            .collect();
        let (cases, repeats) = (json("cases.json"), json("repeats.json"));
        let cases = [cases.as_array().unwrap(), repeats.as_array().unwrap()];
        let (mut count, mut failures) = (0, Vec::new());
        for case in cases.into_iter().flatten() {
            let request = request(&case["arguments"]);
            let features = &sounds[case["features"].as_str().unwrap()];
            let mut found = Vec::new();
            let recording = Recording {
                features,
                content: case["content"].as_u64().unwrap() as usize,
            };
            let outcome = transcriber.run(&[recording], &request, |_, segments, _, _| {
                found.extend_from_slice(segments);
                Ok(ControlFlow::Continue(()))
            });
            let expected = case["segments"].as_array().unwrap();
            let at = found
                .iter()
                .zip(expected)
                .position(|(found, expected)| !same(found, expected, request.timestamps));
            let tokens = expected.iter().map(|s| s["tokens"].as_array().unwrap());
            count += tokens.map(Vec::len).sum::<usize>();
            if outcome.is_err() || found.len() != expected.len() || at.is_some() {
                failures.push(format!(
                    "{} {}: {outcome:?}, {} segments for {}, first difference {at:?}: {:?} for {}",
                    case["features"],
                    case["arguments"],
                    found.len(),
                    expected.len(),
                    at.map(|at| &found[at]),
                    at.map_or(&Value::Null, |at| &expected[at]),
                ));
            }
        }
        println!(
            "{count} tokens of {} cases",
            cases.iter().map(|cases| cases.len()).sum::<usize>()
        );
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
