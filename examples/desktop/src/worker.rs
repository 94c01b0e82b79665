//! The thread that runs models, so that the window never waits for one.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use salamander::models::processing::image::{Filter, Image};
use salamander::tasks::{
    Forecast, Forecasted, ImageClassification, Label, SpeechRecognition, SpeechSegment, Table,
    TableOptions, TextClassification,
};
use salamander::{Audio, Device};

type Failure = Box<dyn std::error::Error>;

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");

/// What the GPU that draws the window is called.
pub const WINDOW: &str = "window";

/// The longest side of a picture's preview, in pixels.
const PREVIEW: usize = 512;

/// What the window asks for.
#[derive(Clone)]
pub enum Job {
    /// To run on another device from now on, by its name.
    Device(String),
    /// The mood of a sentence.
    Sentence(String),
    /// What a file holds: what a picture shows, what is said, how series go on.
    File(PathBuf),
}

/// What the window is told.
pub enum Event {
    /// The devices that there are, by name and with what they are.
    Devices(Vec<[String; 2]>),
    /// The device that runs from now on.
    Device(String),
    /// How far the job of that number is.
    Job(u64, Progress),
}

/// How far a job is.
pub enum Progress {
    Begun(&'static str),
    /// The picture that is looked at, made small.
    Picture(Image),
    /// How much of a sound is done, from 0 to 1, and what was heard in its last part.
    Heard(f32, Vec<SpeechSegment>),
    Done(Answer, Duration),
    Failed(String),
}

/// What a model said.
pub enum Answer {
    Labels(Vec<Label>),
    Transcript(Vec<SpeechSegment>),
    Forecast(Table, Forecasted),
}

/// The window's end of the thread.
pub struct Worker {
    jobs: Sender<(u64, Job)>,
    events: Receiver<Event>,
    sent: u64,
    /// Jobs up to this number are not wanted any more.
    cancelled: Arc<AtomicU64>,
}

impl Worker {
    /// Starts the thread, which calls `wake` after every event. Models run on the device of that name, or on
    /// that of `SALAMANDER_DEVICE`; `shared` is the one that draws the window.
    pub fn start(
        device: Option<String>,
        shared: Option<Device>,
        wake: impl Fn() + Send + 'static,
    ) -> Self {
        let (jobs, received) = channel();
        let (sender, events) = channel();
        let cancelled = Arc::new(AtomicU64::new(0));
        let flag = cancelled.clone();
        std::thread::spawn(move || {
            let tell = move |event| {
                // Without a window there is nobody to tell.
                let _ = sender.send(event);
                wake();
            };
            Room::new(flag, shared, tell).work(device, &received);
        });
        Self {
            jobs,
            events,
            sent: 0,
            cancelled,
        }
    }

    /// Gives a job, which takes the place of all others.
    pub fn send(&mut self, job: Job) {
        self.cancel();
        self.sent += 1;
        let _ = self.jobs.send((self.sent, job));
    }

    /// Gives up all jobs until now. Nothing more is heard of them; a model that is at work ends its pass, or
    /// its thirty seconds of a sound.
    pub fn cancel(&mut self) {
        self.cancelled.store(self.sent, Ordering::Relaxed);
    }

    /// The next event, if there is one.
    pub fn event(&self) -> Option<Event> {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        let mut events = self.events.try_iter();
        events.find(|event| !matches!(event, Event::Job(number, _) if *number <= cancelled))
    }
}

/// The models on one device, each opened when it is first needed.
struct Room<T> {
    tell: T,
    cancelled: Arc<AtomicU64>,
    /// The job that is at work.
    number: u64,
    shared: Option<Device>,
    device: Option<Device>,
    sentences: Option<TextClassification>,
    pictures: Option<ImageClassification>,
    speech: Option<SpeechRecognition>,
    forecasts: Option<Forecast>,
}

impl<T: Fn(Event)> Room<T> {
    fn new(cancelled: Arc<AtomicU64>, shared: Option<Device>, tell: T) -> Self {
        Self {
            tell,
            cancelled,
            number: 0,
            shared,
            device: None,
            sentences: None,
            pictures: None,
            speech: None,
            forecasts: None,
        }
    }

    fn work(&mut self, device: Option<String>, jobs: &Receiver<(u64, Job)>) {
        let devices = Device::survey().into_iter().flat_map(|entry| entry.devices);
        let devices = devices.map(|device| [device.device, device.name]);
        let shared = self.shared.iter();
        let shared = shared.map(|device| [WINDOW.to_owned(), device.info().name]);
        (self.tell)(Event::Devices(devices.chain(shared).collect()));
        // A job may be waiting already, and then says itself that there is no device.
        let _ = self.switch(device.as_deref());
        for (number, job) in jobs {
            self.number = number;
            if self.is_cancelled() && !matches!(job, Job::Device(_)) {
                continue;
            }
            let begin = Instant::now();
            let outcome = match job {
                Job::Device(name) => {
                    self.say(Progress::Begun("Opening the device"));
                    self.switch(Some(&name)).map(|()| None)
                }
                Job::Sentence(text) => self.sentence(&text).map(Some),
                Job::File(path) => self.file(&path).map(Some),
            };
            match outcome {
                Ok(Some(answer)) => self.say(Progress::Done(answer, begin.elapsed())),
                Ok(None) => {}
                Err(error) => self.say(Progress::Failed(error.to_string())),
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.number <= self.cancelled.load(Ordering::Relaxed)
    }

    fn say(&self, progress: Progress) {
        (self.tell)(Event::Job(self.number, progress));
    }

    fn switch(&mut self, name: Option<&str>) -> Result<(), Failure> {
        let device = match (name, &self.shared) {
            (Some(WINDOW), Some(shared)) => shared.clone(),
            (Some(name), _) => name.parse()?,
            (None, _) => Device::from_env()?,
        };
        let name = match name {
            Some(WINDOW) => WINDOW.to_owned(),
            _ => device.to_string(),
        };
        self.device = Some(device);
        (self.sentences, self.pictures) = (None, None);
        (self.speech, self.forecasts) = (None, None);
        (self.tell)(Event::Device(name));
        Ok(())
    }

    fn device(&self) -> Result<Device, Failure> {
        let device = self.device.clone();
        Ok(device.ok_or("no device is open: choose another")?)
    }

    fn sentence(&mut self, text: &str) -> Result<Answer, Failure> {
        self.say(Progress::Begun("Reading the sentence"));
        let device = self.device()?;
        let model = opened(&mut self.sentences, || {
            TextClassification::open(format!("{ASSETS}/sentiment"), &device)
        })?;
        Ok(Answer::Labels(model.run(text)?))
    }

    fn file(&mut self, path: &Path) -> Result<Answer, Failure> {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        match &extension.to_lowercase()[..] {
            "csv" | "tsv" => self.table(path),
            "wav" | "flac" | "mp3" | "ogg" | "m4a" | "aac" => self.sound(path),
            _ => self.picture(path),
        }
    }

    fn picture(&mut self, path: &Path) -> Result<Answer, Failure> {
        self.say(Progress::Begun("Looking at the picture"));
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = fs::read(path).map_err(|error| named(&error))?;
        let picture = Image::decode(&bytes).map_err(|error| named(&error))?;
        self.say(Progress::Picture(preview(&picture)?));
        let device = self.device()?;
        let model = opened(&mut self.pictures, || {
            ImageClassification::open(format!("{ASSETS}/cifar10"), &device)
        })?;
        Ok(Answer::Labels(model.run(&picture)?))
    }

    fn sound(&mut self, path: &Path) -> Result<Answer, Failure> {
        self.say(Progress::Begun("Listening"));
        let device = self.device()?;
        let model = opened(&mut self.speech, || {
            SpeechRecognition::open(format!("{ASSETS}/speech"), &device)
        })?
        .clone();
        let audio = Audio::open(path, model.sampling_rate())?;
        let transcript = model.run_audio_while(&audio, |progress| {
            let done = progress.seconds / progress.total.max(1e-9);
            self.say(Progress::Heard(done as f32, progress.segments.to_vec()));
            match self.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        Ok(Answer::Transcript(transcript.segments))
    }

    fn table(&mut self, path: &Path) -> Result<Answer, Failure> {
        self.say(Progress::Begun("Looking ahead"));
        let device = self.device()?;
        let model = opened(&mut self.forecasts, || {
            Forecast::open(format!("{ASSETS}/forecast"), &device)
        })?;
        let horizon = model.forecasts().horizon;
        let (table, forecast) = model.run_csv(path, &TableOptions::default(), horizon)?;
        Ok(Answer::Forecast(table, forecast))
    }
}

/// The model, opened if it is not yet.
fn opened<M>(
    slot: &mut Option<M>,
    open: impl FnOnce() -> Result<M, salamander::Error>,
) -> Result<&mut M, Failure> {
    match slot {
        Some(model) => Ok(model),
        None => Ok(slot.insert(open()?)),
    }
}

/// A picture small enough for any window.
fn preview(picture: &Image) -> Result<Image, Failure> {
    let [width, height] = [picture.width(), picture.height()];
    let longest = width.max(height);
    if longest <= PREVIEW {
        return Ok(picture.clone());
    }
    let side = |length: usize| (length * PREVIEW / longest).max(1);
    Ok(picture.resize(side(width), side(height), Filter::Bilinear)?)
}

#[cfg(test)]
mod tests {
    use super::{ASSETS, Answer, Event, Job, Progress, Worker};

    /// How the last job ends.
    fn outcome(worker: &Worker) -> Result<Answer, String> {
        loop {
            match worker.event() {
                Some(Event::Job(_, Progress::Done(answer, _))) => return Ok(answer),
                Some(Event::Job(_, Progress::Failed(reason))) => return Err(reason),
                Some(_) => {}
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
    }

    #[test]
    fn jobs_are_answered_fail_and_are_given_up() {
        let mut worker = Worker::start(Some("flex".to_owned()), None, || {});
        worker.send(Job::Sentence("a warm, funny, engaging film".to_owned()));
        let Ok(Answer::Labels(labels)) = outcome(&worker) else {
            panic!("no labels");
        };
        assert_eq!(labels[0].name, "POSITIVE");
        worker.send(Job::File("there is no such picture.png".into()));
        let reason = outcome(&worker).err().unwrap();
        assert!(reason.contains("no such picture.png"), "{reason}");
        worker.send(Job::Device("cuda:99".to_owned()));
        assert!(outcome(&worker).is_err());
        // What is heard after this is of the last job alone.
        worker.send(Job::File(format!("{ASSETS}/speech/long.flac").into()));
        worker.send(Job::File(format!("{ASSETS}/forecast/sample.csv").into()));
        assert!(matches!(outcome(&worker), Ok(Answer::Forecast(..))));
    }
}
