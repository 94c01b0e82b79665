//! The thread that runs models, so that the window never waits for one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use salamander::tasks::{
    Forecast, Forecasted, ImageClassification, Label, SpeechRecognition, SpeechSegment, Table,
    TableOptions, TextClassification,
};
use salamander::{Audio, Device, Error};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");

/// What the window asks for.
pub enum Job {
    /// To run on another device from now on.
    Device(Choice),
    /// The mood of a sentence.
    Sentence(String),
    /// What a dropped file holds: what a picture shows, what is said, how series go on.
    File(PathBuf),
}

/// A device to run on.
#[derive(Clone)]
pub enum Choice {
    /// By name.
    Named(String),
    /// The one that draws the window.
    Shared(Device),
}

/// What the window is told.
pub enum Event {
    /// The devices that there are, by name and with what they are.
    Devices(Vec<(String, String)>),
    /// The device that runs from now on.
    Device(String),
    /// A job has begun.
    Begun(String),
    /// How much of a job is done, from 0 to 1, and what was heard by then.
    Heard(f32, Vec<SpeechSegment>),
    /// A job's answer.
    Done(Answer, Duration),
    /// A job was given up.
    Cancelled,
    /// A job failed.
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
    /// Starts the thread, which calls `wake` after every event.
    pub fn start(wake: impl Fn() + Send + 'static) -> Self {
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
            Room::new(flag, tell).work(received);
        });
        Self {
            jobs,
            events,
            sent: 0,
            cancelled,
        }
    }

    /// Gives a job, which takes the place of those that wait.
    pub fn send(&mut self, job: Job) {
        if !matches!(job, Job::Device(_)) {
            self.cancel();
        }
        self.sent += 1;
        let _ = self.jobs.send((self.sent, job));
    }

    /// Gives up all jobs until now.
    pub fn cancel(&mut self) {
        self.cancelled.store(self.sent, Ordering::Relaxed);
    }

    /// The next event, if there is one.
    pub fn event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

/// The models on one device, each opened when it is first needed.
struct Room<T> {
    tell: T,
    cancelled: Arc<AtomicU64>,
    device: Option<Device>,
    sentences: Option<TextClassification>,
    pictures: Option<ImageClassification>,
    speech: Option<SpeechRecognition>,
    forecasts: Option<Forecast>,
}

impl<T: Fn(Event)> Room<T> {
    fn new(cancelled: Arc<AtomicU64>, tell: T) -> Self {
        Self {
            tell,
            cancelled,
            device: None,
            sentences: None,
            pictures: None,
            speech: None,
            forecasts: None,
        }
    }

    fn work(&mut self, jobs: Receiver<(u64, Job)>) {
        let devices = Device::survey().into_iter().flat_map(|entry| entry.devices);
        let devices = devices.map(|device| (device.device, device.name));
        (self.tell)(Event::Devices(devices.collect()));
        match Device::from_env() {
            Ok(device) => self.run_on(device.to_string(), device),
            Err(error) => (self.tell)(Event::Failed(error.to_string())),
        }
        for (number, job) in jobs {
            let begin = Instant::now();
            let outcome = match job {
                Job::Device(choice) => self.switch(choice).map(|()| None),
                _ if self.is_cancelled(number) => continue,
                Job::Sentence(text) => self.sentence(&text).map(Some),
                Job::File(path) => self.file(&path, number),
            };
            match outcome {
                Err(error) => (self.tell)(Event::Failed(error.to_string())),
                Ok(_) if self.is_cancelled(number) => (self.tell)(Event::Cancelled),
                Ok(Some(answer)) => (self.tell)(Event::Done(answer, begin.elapsed())),
                Ok(None) => {}
            }
        }
    }

    fn is_cancelled(&self, number: u64) -> bool {
        number <= self.cancelled.load(Ordering::Relaxed)
    }

    fn switch(&mut self, choice: Choice) -> Result<(), Error> {
        let (device, name) = match choice {
            Choice::Shared(device) => (device, "the window's GPU".to_owned()),
            Choice::Named(name) => {
                let device: Device = name.parse()?;
                let name = device.to_string();
                (device, name)
            }
        };
        self.run_on(name, device);
        Ok(())
    }

    fn run_on(&mut self, name: String, device: Device) {
        self.device = Some(device);
        (self.sentences, self.pictures) = (None, None);
        (self.speech, self.forecasts) = (None, None);
        (self.tell)(Event::Device(name));
    }

    fn device(&self) -> Result<Device, Error> {
        match &self.device {
            Some(device) => Ok(device.clone()),
            None => Ok(Device::from_env()?),
        }
    }

    fn begun(&self, what: &str) {
        (self.tell)(Event::Begun(what.to_owned()));
    }

    fn sentence(&mut self, text: &str) -> Result<Answer, Error> {
        self.begun("Reading the sentence");
        let device = self.device()?;
        let model = opened(&mut self.sentences, || {
            TextClassification::open(format!("{ASSETS}/sentiment"), &device)
        })?;
        Ok(Answer::Labels(model.run(text)?))
    }

    fn file(&mut self, path: &Path, number: u64) -> Result<Option<Answer>, Error> {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        match &extension.to_lowercase()[..] {
            "csv" | "tsv" => self.table(path).map(Some),
            "wav" | "flac" | "mp3" | "ogg" | "m4a" | "aac" => self.sound(path, number),
            _ => self.picture(path).map(Some),
        }
    }

    fn picture(&mut self, path: &Path) -> Result<Answer, Error> {
        self.begun("Looking at the picture");
        let device = self.device()?;
        let model = opened(&mut self.pictures, || {
            ImageClassification::open(format!("{ASSETS}/cifar10"), &device)
        })?;
        Ok(Answer::Labels(model.run(&path.to_owned())?))
    }

    fn sound(&mut self, path: &Path, number: u64) -> Result<Option<Answer>, Error> {
        self.begun("Listening");
        let device = self.device()?;
        let cancelled = self.cancelled.clone();
        let model = opened(&mut self.speech, || {
            SpeechRecognition::open(format!("{ASSETS}/speech"), &device)
        })?;
        let audio = Audio::open(path, model.sampling_rate())?;
        let tell = &self.tell;
        let transcript = model.run_audio_while(&audio, |progress| {
            let done = progress.seconds / progress.total.max(1e-9);
            tell(Event::Heard(done as f32, progress.segments.to_vec()));
            match number <= cancelled.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        Ok(Some(Answer::Transcript(transcript.segments)))
    }

    fn table(&mut self, path: &Path) -> Result<Answer, Error> {
        self.begun("Looking ahead");
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
    open: impl FnOnce() -> Result<M, Error>,
) -> Result<&mut M, Error> {
    match slot {
        Some(model) => Ok(model),
        None => Ok(slot.insert(open()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Choice, Event, Job, Worker};

    fn last(worker: &Worker) -> Event {
        loop {
            match worker.event() {
                Some(event @ (Event::Done(..) | Event::Cancelled | Event::Failed(_))) => {
                    return event;
                }
                Some(_) => {}
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
    }

    #[test]
    fn jobs_are_answered_fail_and_are_given_up() {
        let mut worker = Worker::start(|| {});
        worker.send(Job::Device(Choice::Named("flex".to_owned())));
        worker.send(Job::Sentence("a warm, funny, engaging film".to_owned()));
        match last(&worker) {
            Event::Done(Answer::Labels(labels), _) => assert_eq!(labels[0].name, "POSITIVE"),
            _ => panic!("no labels"),
        }
        worker.send(Job::File("there is no such picture.png".into()));
        assert!(matches!(last(&worker), Event::Failed(_)));
        let long = format!("{}/speech/long.flac", super::ASSETS);
        worker.send(Job::File(long.into()));
        worker.cancel();
        worker.send(Job::File(
            format!("{}/forecast/sample.csv", super::ASSETS).into(),
        ));
        let answer = loop {
            match last(&worker) {
                Event::Cancelled => {}
                event => break event,
            }
        };
        assert!(matches!(answer, Event::Done(Answer::Forecast(..), _)));
    }
}
