//! A window that embeds the engine: drop a picture, a sound file or a CSV on it, or type a sentence.
//!
//! ```sh
//! cd examples/desktop
//! cargo run --release
//! cargo run --release -- ../../assets/cifar10/samples/cat.png
//! ```
//!
//! The models are the small ones that come with the repository. A file named on the command line is taken as if
//! it were dropped. `SALAMANDER_DEVICE` says where they run at first.

mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{
    self, Align, Align2, Color32, ComboBox, FontId, Layout, Panel, ProgressBar, RichText,
    ScrollArea, Sense, TextEdit, TextureHandle, Ui, Vec2,
};
use eframe::egui_wgpu::{RenderState, WgpuSetup, WgpuSetupCreateNew};
use egui_plot::{FilledArea, Line, Plot, PlotPoints};
use salamander::Device;
use salamander::models::processing::image::Image;
use salamander::tasks::{Forecasted, Label, SpeechSegment, Table};
use worker::{Answer, Choice, Event, Job, Worker};

const ACCENT: Color32 = Color32::from_rgb(0, 98, 190);
const FAINT: Color32 = Color32::from_rgba_premultiplied(0, 24, 48, 60);

fn main() -> eframe::Result {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let mut options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_inner_size([860.0, 700.0])
            .with_min_inner_size([520.0, 420.0])
            .with_drag_and_drop(true),
        ..Default::default()
    };
    options.wgpu_options.wgpu_setup = WgpuSetup::CreateNew(WgpuSetupCreateNew {
        // A device that is shared must have all that computing may use.
        device_descriptor: Arc::new(|adapter| eframe::wgpu::DeviceDescriptor {
            required_features: adapter
                .features()
                .difference(eframe::wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
                .difference(eframe::wgpu::Features::all_experimental_mask()),
            required_limits: adapter.limits(),
            ..Default::default()
        }),
        ..WgpuSetupCreateNew::without_display_handle()
    });
    eframe::run_native(
        "Salamander",
        options,
        Box::new(|creation| {
            creation.egui_ctx.set_theme(egui::Theme::Light);
            let context = creation.egui_ctx.clone();
            let worker = Worker::start(move || context.request_repaint());
            let shared = creation.wgpu_render_state.as_ref().and_then(share);
            let mut window = Window::new(worker, shared);
            for file in files {
                window.take(&creation.egui_ctx, file);
            }
            Ok(Box::new(window))
        }),
    )
}

/// The GPU that draws the window as a device to compute on.
fn share(state: &RenderState) -> Option<Device> {
    let setup = burn::tensor::wgpu::WgpuSetup {
        instance: state.instance.clone(),
        adapter: state.adapter.clone(),
        device: state.device.clone(),
        queue: state.queue.clone(),
        backend: state.adapter.get_info().backend,
    };
    Device::shared_wgpu(setup).ok()
}

/// What the window shows.
struct Window {
    worker: Worker,
    shared: Option<Device>,
    devices: Vec<(String, String)>,
    device: String,
    sentence: String,
    picture: Option<TextureHandle>,
    /// What is being done, and how much of it is.
    busy: Option<(String, Option<f32>)>,
    shown: Shown,
    status: String,
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

impl Window {
    fn new(worker: Worker, shared: Option<Device>) -> Self {
        Self {
            worker,
            shared,
            devices: Vec::new(),
            device: String::from("…"),
            sentence: String::new(),
            picture: None,
            busy: None,
            shown: Shown::Nothing,
            status: String::from("Looking for devices"),
        }
    }

    /// Takes a file as if it were dropped.
    fn take(&mut self, context: &egui::Context, path: PathBuf) {
        self.picture = None;
        self.shown = Shown::Nothing;
        let bytes = std::fs::read(&path).unwrap_or_default();
        if let Ok(image) = Image::decode(&bytes) {
            let size = [image.width(), image.height()];
            let image = egui::ColorImage::from_rgb(size, image.pixels());
            let options = egui::TextureOptions::NEAREST;
            self.picture = Some(context.load_texture("picture", image, options));
        }
        self.worker.send(Job::File(path));
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Devices(devices) => {
                self.devices = devices;
                self.status = String::from("Ready");
            }
            Event::Device(name) => {
                self.status = format!("Running on {name}");
                self.device = name;
            }
            Event::Begun(what) => self.busy = Some((what, None)),
            Event::Heard(done, segments) => {
                if let Some((_, progress)) = &mut self.busy {
                    *progress = Some(done);
                }
                match &mut self.shown {
                    Shown::Transcript(heard) => heard.extend(segments),
                    shown => *shown = Shown::Transcript(segments),
                }
            }
            Event::Done(answer, time) => {
                self.busy = None;
                self.status = format!("{} on {}", clock(time), self.device);
                self.shown = match answer {
                    Answer::Labels(labels) => Shown::Labels(labels),
                    Answer::Transcript(segments) => Shown::Transcript(segments),
                    Answer::Forecast(table, forecast) => Shown::Forecast(curves(&table, &forecast)),
                };
            }
            Event::Cancelled => {
                self.busy = None;
                self.status = String::from("Cancelled");
            }
            Event::Failed(reason) => {
                self.busy = None;
                self.status = String::from("Failed");
                self.shown = Shown::Failure(reason);
            }
        }
    }

    fn head(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            let hint = "Type a sentence to hear its mood, or drop a picture, a sound file or a CSV";
            let field = TextEdit::singleline(&mut self.sentence).hint_text(hint);
            let width = (ui.available_width() - 230.0).max(120.0);
            let typed = ui.add_sized([width, 28.0], field.vertical_align(Align::Center));
            if typed.changed() && !self.sentence.trim().is_empty() {
                self.picture = None;
                self.worker.send(Job::Sentence(self.sentence.clone()));
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| self.switch(ui));
        });
    }

    fn switch(&mut self, ui: &mut Ui) {
        let mut choice = None;
        let list = ComboBox::from_id_salt("device")
            .width(210.0)
            .selected_text(self.device.clone());
        list.show_ui(ui, |ui| {
            for (device, name) in &self.devices {
                let text = format!("{device}  ·  {name}");
                if ui.selectable_label(*device == self.device, text).clicked() {
                    choice = Some(Choice::Named(device.clone()));
                }
            }
            if let Some(device) = &self.shared {
                let text = format!("the window's GPU  ·  {}", device.info().name);
                if ui.selectable_label(false, text).clicked() {
                    choice = Some(Choice::Shared(device.clone()));
                }
            }
        });
        if let Some(choice) = choice {
            self.worker.send(Job::Device(choice));
        }
    }

    fn foot(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| match self.busy.clone() {
            None => {
                ui.label(RichText::new(&self.status).color(Color32::GRAY));
            }
            Some((what, progress)) => {
                match progress {
                    Some(done) => {
                        ui.label(&what);
                        ui.add(
                            ProgressBar::new(done)
                                .desired_width(240.0)
                                .show_percentage(),
                        );
                    }
                    None => {
                        ui.spinner();
                        ui.label(&what);
                    }
                }
                if ui.button("Cancel").clicked() {
                    self.worker.cancel();
                    self.busy = Some((String::from("Cancelling"), None));
                }
            }
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
            Shown::Nothing if self.picture.is_none() => {
                let text = "Drop a picture, a sound file or a CSV here";
                let area = ui.available_rect_before_wrap();
                let font = FontId::proportional(20.0);
                let painter = ui.painter();
                painter.text(
                    area.center(),
                    Align2::CENTER_CENTER,
                    text,
                    font,
                    Color32::GRAY,
                );
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
}

impl eframe::App for Window {
    fn logic(&mut self, _: &egui::Context, _: &mut eframe::Frame) {
        while let Some(event) = self.worker.event() {
            self.hear(event);
        }
    }

    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        let dropped = ui.input(|input| input.raw.dropped_files.clone());
        for file in dropped {
            self.take(ui.ctx(), file.path().to_owned());
        }
        let margin = egui::Frame::new().inner_margin(10.0);
        Panel::top("head")
            .frame(margin)
            .show(ui, |ui| self.head(ui));
        Panel::bottom("foot")
            .frame(margin)
            .exact_size(44.0)
            .show(ui, |ui| self.foot(ui));
        let frame = egui::Frame::central_panel(ui.style()).inner_margin(16.0);
        egui::CentralPanel::default().frame(frame).show(ui, |ui| {
            ScrollArea::vertical()
                .auto_shrink(false)
                .show(ui, |ui| self.answer(ui));
        });
    }
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
        ui.label("Nothing is said.");
    }
    egui::Grid::new("transcript")
        .num_columns(2)
        .spacing([16.0, 8.0])
        .show(ui, |ui| {
            for segment in segments {
                let time = format!("{:6.1} – {:.1} s", segment.start, segment.end);
                ui.label(RichText::new(time).monospace().color(Color32::GRAY));
                ui.add(egui::Label::new(RichText::new(segment.text.trim()).size(16.0)).wrap());
                ui.end_row();
            }
        });
}

fn plots(ui: &mut Ui, curves: &[Curves]) {
    const HEIGHT: f32 = 150.0;
    for curve in curves {
        ui.label(RichText::new(&curve.name).strong());
        Plot::new(curve.name.clone())
            .height(HEIGHT)
            .allow_scroll(false)
            .show_x(false)
            .show(ui, |plot| {
                if !curve.low.is_empty() {
                    let band = FilledArea::new("interval", &curve.steps, &curve.low, &curve.high);
                    plot.add(band.fill_color(ACCENT.gamma_multiply(0.2)));
                }
                let line = |name, points: &[[f64; 2]]| {
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
            [step as f64 - shown as f64 + 1.0, f64::from(value)]
        });
        let observed: Vec<[f64; 2]> = observed.filter(|[_, value]| value.is_finite()).collect();
        let steps: Vec<f64> = (1..=horizon).map(|step| step as f64).collect();
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect();
        let (low, high): (Vec<f64>, Vec<f64>) = match &series.quantiles[..] {
            [low, .., high] => (wide(&low.values), wide(&high.values)),
            _ => (Vec::new(), Vec::new()),
        };
        let mean = steps.iter().zip(&series.mean);
        let mean = mean.map(|(step, value)| [*step, f64::from(*value)]);
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
