//! What the window shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eframe::egui::{
    self, Align, Align2, Button, CentralPanel, Color32, ColorImage, ComboBox, FontId, Grid, Layout,
    Panel, ProgressBar, Rect, RichText, ScrollArea, Sense, TextEdit, TextureHandle, TextureOptions,
    Ui, Vec2, ViewportCommand,
};
use egui_plot::{FilledArea, Line, Plot, PlotPoints};
use salamander::tasks::{Forecasted, Label, SpeechSegment, Table};

use crate::worker::{Answer, Event, Job, Progress, WINDOW, Worker};

const ACCENT: Color32 = Color32::from_rgb(0, 98, 190);
const FAINT: Color32 = Color32::from_rgb(228, 233, 240);
const GREY: Color32 = Color32::from_rgb(110, 110, 110);

/// How many frames the window rests before its picture is taken, in which plots find their bounds.
const REST: u32 = 4;

/// The window.
pub struct Window {
    worker: Worker,
    /// Names of devices, with what they are.
    devices: Vec<[String; 2]>,
    device: String,
    sentence: String,
    /// The last sentence or file.
    last: Option<Job>,
    switching: bool,
    /// What is being done, and how much of it is.
    busy: Option<(&'static str, Option<f32>)>,
    picture: Option<TextureHandle>,
    shown: Shown,
    status: String,
    screenshot: Option<Screenshot>,
}

/// The answer, as it is drawn.
enum Shown {
    Nothing,
    Labels(Vec<Label>),
    Transcript(Vec<SpeechSegment>),
    Forecast(Vec<Curves>),
    Failure(String),
}

/// A series' past and future.
struct Curves {
    name: String,
    past: Vec<[f64; 2]>,
    mean: Vec<[f64; 2]>,
    steps: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
}

/// A picture of the window, to be taken when it rests.
struct Screenshot {
    file: PathBuf,
    rested: u32,
    taken: Option<Receiver<Arc<ColorImage>>>,
}

impl Window {
    /// A window before `worker`, which begins with `job`. With a `screenshot` it is written there when the
    /// answer is shown, and the window closes.
    pub fn new(worker: Worker, job: Option<Job>, screenshot: Option<PathBuf>) -> Self {
        let mut window = Self {
            worker,
            devices: Vec::new(),
            device: String::new(),
            sentence: String::new(),
            last: None,
            switching: false,
            busy: None,
            picture: None,
            shown: Shown::Nothing,
            status: String::from("Looking for devices"),
            screenshot: screenshot.map(|file| Screenshot {
                file,
                rested: 0,
                taken: None,
            }),
        };
        if let Some(job) = job {
            if let Job::Sentence(text) = &job {
                window.sentence = text.clone();
            }
            window.take(job);
        }
        window
    }

    /// Has the worker answer a sentence or a file.
    fn take(&mut self, job: Job) {
        self.picture = None;
        // While somebody types, the last answer stays until the next is there.
        if !matches!((&job, &self.shown), (Job::Sentence(_), Shown::Labels(_))) {
            self.shown = Shown::Nothing;
        }
        self.last = Some(job.clone());
        self.send(job);
    }

    fn send(&mut self, job: Job) {
        self.busy = Some(("Waiting", None));
        self.worker.send(job);
    }

    fn hear(&mut self, event: Event, context: &egui::Context) {
        match event {
            Event::Devices(devices) => self.devices = devices,
            Event::Device(name) => {
                self.device = name;
                self.status = format!("Models run on {}", self.device_name());
                if std::mem::take(&mut self.switching) {
                    self.busy = None;
                    if let Some(job) = self.last.clone() {
                        self.take(job);
                    }
                }
            }
            Event::Job(_, progress) => self.hear_progress(progress, context),
        }
    }

    fn hear_progress(&mut self, progress: Progress, context: &egui::Context) {
        match progress {
            Progress::Begun(what) => self.busy = Some((what, None)),
            Progress::Picture(picture) => {
                let size = [picture.width(), picture.height()];
                let picture = ColorImage::from_rgb(size, picture.pixels());
                let texture = context.load_texture("picture", picture, TextureOptions::LINEAR);
                self.picture = Some(texture);
            }
            Progress::Heard(done, segments) => {
                if let Some((_, part)) = &mut self.busy {
                    *part = Some(done);
                }
                match &mut self.shown {
                    Shown::Transcript(heard) => heard.extend(segments),
                    shown => *shown = Shown::Transcript(segments),
                }
            }
            Progress::Done(answer, time) => {
                self.busy = None;
                self.status = format!("{} on {}", clock(time), self.device_name());
                self.shown = match answer {
                    Answer::Labels(labels) => Shown::Labels(labels),
                    Answer::Transcript(segments) => Shown::Transcript(segments),
                    Answer::Forecast(table, forecast) => Shown::Forecast(curves(&table, &forecast)),
                };
            }
            Progress::Failed(reason) => {
                self.busy = None;
                self.switching = false;
                self.status = String::from("Failed");
                self.shown = Shown::Failure(reason);
            }
        }
    }

    fn cancel(&mut self) {
        self.worker.cancel();
        (self.busy, self.switching) = (None, false);
        self.status = String::from("Cancelled");
    }

    fn head(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            let hint = "Type a sentence about a film, or drop a picture, a sound file or a CSV";
            let field = TextEdit::singleline(&mut self.sentence).hint_text(hint);
            let width = (ui.available_width() - 230.0).max(120.0);
            let typed = ui.add_sized([width, 30.0], field.align(Align2::LEFT_CENTER));
            if typed.changed() && !self.sentence.trim().is_empty() {
                self.take(Job::Sentence(self.sentence.clone()));
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| self.switch(ui));
        });
    }

    /// The list of devices.
    fn switch(&mut self, ui: &mut Ui) {
        let mut choice = None;
        let list = ComboBox::from_id_salt("device")
            .width(210.0)
            .selected_text(self.device_name());
        list.show_ui(ui, |ui| {
            for [device, name] in &self.devices {
                let text = format!("{device}  ·  {name}");
                if ui.selectable_label(*device == self.device, text).clicked() {
                    choice = Some(device.clone());
                }
            }
        });
        if let Some(device) = choice {
            // A switch goes through whatever is cancelled, and what was asked is then asked again.
            self.switching = true;
            self.send(Job::Device(device));
        }
    }

    fn device_name(&self) -> String {
        match &self.device[..] {
            "" => String::from("…"),
            WINDOW => String::from("the window's GPU"),
            name => name.to_owned(),
        }
    }

    fn foot(&mut self, ui: &mut Ui) {
        ui.horizontal_centered(|ui| {
            let Some((what, part)) = self.busy else {
                ui.label(RichText::new(&self.status).color(GREY));
                return;
            };
            match part {
                Some(part) => {
                    ui.label(what);
                    let bar = ProgressBar::new(part).desired_width(240.0);
                    ui.add(bar.fill(ACCENT).show_percentage());
                }
                None => {
                    ui.spinner();
                    ui.label(what);
                }
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.add(Button::new("Cancel")).clicked() {
                    self.cancel();
                }
            });
        });
    }

    fn answer(&self, ui: &mut Ui) {
        if let Some(picture) = &self.picture {
            let size = picture.size_vec2();
            let scale = (260.0 / size.x.max(size.y)).min(8.0);
            ui.vertical_centered(|ui| ui.image((picture.id(), size * scale)));
            ui.add_space(14.0);
        }
        match &self.shown {
            Shown::Nothing if self.last.is_none() => {
                let area = ui.available_rect_before_wrap();
                write_centred(ui, area, "Drop a picture, a sound file or a CSV here", GREY);
            }
            Shown::Nothing => {}
            Shown::Labels(labels) => {
                for label in labels.iter().take(10) {
                    bar(ui, label);
                }
            }
            Shown::Transcript(segments) => transcript(ui, segments),
            Shown::Forecast(curves) => plots(ui, curves),
            Shown::Failure(reason) => {
                ui.colored_label(ui.visuals().error_fg_color, reason);
            }
        }
    }

    /// Takes the window's picture once everything is shown.
    fn photograph(&mut self, context: &egui::Context) {
        let Some(screenshot) = &mut self.screenshot else {
            return;
        };
        context.request_repaint();
        if let Some(taken) = &screenshot.taken {
            if let Ok(picture) = taken.try_recv() {
                if let Err(error) = save(&picture, &screenshot.file) {
                    eprintln!("{}: {error}", screenshot.file.display());
                    std::process::exit(1);
                }
                self.screenshot = None;
                context.send_viewport_cmd(ViewportCommand::Close);
            }
            return;
        }
        let rests = self.busy.is_none() && !self.device.is_empty();
        screenshot.rested = if rests { screenshot.rested + 1 } else { 0 };
        if screenshot.rested > REST {
            let (sender, taken) = channel();
            screenshot.taken = Some(taken);
            context.request_screenshot(move |picture| {
                let _ = sender.send(picture);
            });
        }
    }
}

impl eframe::App for Window {
    fn logic(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        while let Some(event) = self.worker.event() {
            self.hear(event, context);
        }
        self.photograph(context);
    }

    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        let dropped = ui.input(|input| input.raw.dropped_files.last().cloned());
        if let Some(file) = dropped {
            self.take(Job::File(file.path().to_owned()));
        }
        let margin = egui::Frame::side_top_panel(ui.style()).inner_margin(10.0);
        Panel::top("head")
            .frame(margin)
            .show(ui, |ui| self.head(ui));
        Panel::bottom("foot")
            .frame(margin)
            .exact_size(46.0)
            .show(ui, |ui| self.foot(ui));
        let frame = egui::Frame::central_panel(ui.style()).inner_margin(16.0);
        CentralPanel::default().frame(frame).show(ui, |ui| {
            let area = ui.max_rect();
            let scroll = ScrollArea::vertical().auto_shrink(false);
            scroll.show(ui, |ui| self.answer(ui));
            if ui.input(|input| !input.raw.hovered_files.is_empty()) {
                let veil = Color32::from_rgba_unmultiplied(255, 255, 255, 230);
                ui.painter().rect_filled(area, 8.0, veil);
                write_centred(ui, area, "Let go to open it", ACCENT);
            }
        });
    }
}

fn write_centred(ui: &Ui, area: Rect, text: &str, colour: Color32) {
    let font = FontId::proportional(20.0);
    let painter = ui.painter();
    painter.text(area.center(), Align2::CENTER_CENTER, text, font, colour);
}

/// A label's name, its share as a bar, and its score.
fn bar(ui: &mut Ui, label: &Label) {
    const HEIGHT: f32 = 26.0;
    ui.horizontal(|ui| {
        let name = egui::Label::new(RichText::new(&label.name).strong()).truncate();
        ui.allocate_ui_with_layout(
            Vec2::new(150.0, HEIGHT),
            Layout::right_to_left(Align::Center),
            |ui| ui.add(name),
        );
        let width = (ui.available_width() - 70.0).max(60.0);
        let (area, _) = ui.allocate_exact_size(Vec2::new(width, HEIGHT - 6.0), Sense::hover());
        ui.painter().rect_filled(area, 4.0, FAINT);
        let mut part = area;
        part.set_width(area.width() * label.score.clamp(0.0, 1.0));
        ui.painter().rect_filled(part, 4.0, ACCENT);
        ui.label(format!("{:.1} %", 100.0 * label.score));
    });
}

fn transcript(ui: &mut Ui, segments: &[SpeechSegment]) {
    if segments.is_empty() {
        ui.label("Nothing has been heard.");
    }
    let grid = Grid::new("transcript").num_columns(2).spacing([16.0, 8.0]);
    grid.show(ui, |ui| {
        for segment in segments {
            let time = format!("{:6.1} – {:.1} s", segment.start, segment.end);
            ui.label(RichText::new(time).monospace().color(GREY));
            ui.add(egui::Label::new(RichText::new(segment.text.trim()).size(16.0)).wrap());
            ui.end_row();
        }
    });
}

fn plots(ui: &mut Ui, curves: &[Curves]) {
    const HEIGHT: f32 = 150.0;
    for curve in curves {
        ui.label(RichText::new(&curve.name).strong());
        let plot = Plot::new(&curve.name)
            .height(HEIGHT)
            .allow_scroll(false)
            .show_x(false);
        plot.show(ui, |plot| {
            if !curve.low.is_empty() {
                let band = FilledArea::new("interval", &curve.steps, &curve.low, &curve.high);
                plot.add(band.fill_color(ACCENT.gamma_multiply(0.2)));
            }
            let line = |name: &str, points: &[[f64; 2]]| {
                Line::new(name, PlotPoints::from_iter(points.iter().copied())).width(1.8)
            };
            plot.line(line("past", &curve.past).color(Color32::DARK_GRAY));
            plot.line(line("forecast", &curve.mean).color(ACCENT));
        });
        ui.add_space(8.0);
    }
}

/// The end of each series' past, and its future, counted in steps from the last that is known.
fn curves(past: &Table, forecast: &Forecasted) -> Vec<Curves> {
    let series = forecast.series.iter().enumerate().map(|(column, series)| {
        let horizon = series.mean.len();
        // Twice as much past as future, so that both can be read.
        let shown = past.len().min(2 * horizon);
        let observed = (0..shown).map(|step| {
            let value = past.row(past.len() - shown + step)[column];
            [step as f64 - shown as f64 + 1.0, value]
        });
        let observed: Vec<[f64; 2]> = observed.filter(|[_, value]| value.is_finite()).collect();
        let steps: Vec<f64> = (1..=horizon).map(|step| step as f64).collect();
        let (low, high): (Vec<f64>, Vec<f64>) = match &series.quantiles[..] {
            [low, .., high] => (low.values.clone(), high.values.clone()),
            _ => (Vec::new(), Vec::new()),
        };
        let mean = steps.iter().zip(&series.mean);
        let mean = mean.map(|(step, value)| [*step, *value]);
        Curves {
            name: series.name.clone(),
            // The line goes on from the last value that was observed.
            mean: observed.last().copied().into_iter().chain(mean).collect(),
            past: observed,
            steps,
            low,
            high,
        }
    });
    series.collect()
}

fn clock(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", 1000.0 * seconds),
        seconds => format!("{seconds:.1} s"),
    }
}

fn save(picture: &ColorImage, file: &std::path::Path) -> image::ImageResult<()> {
    let [width, height] = picture.size.map(|side| side as u32);
    let bytes = picture.pixels.iter().flat_map(Color32::to_array).collect();
    let picture = image::RgbaImage::from_raw(width, height, bytes);
    picture.unwrap_or_default().save(file)
}
