//! A window that embeds the engine: drop a picture, a sound file or a CSV on it, or type a sentence.
//!
//! ```sh
//! cd examples/desktop
//! cargo run --release
//! cargo run --release -- ../../assets/cifar10/samples/cat.png
//! ```
//!
//! The models are the small ones that come with the repository. `--help` lists the arguments, by which a program
//! can do what a hand does.

#[cfg(feature = "wgpu")]
mod gpu;
mod window;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use eframe::egui;
use window::Window;
use worker::{Job, Worker};

const HELP: &str = "\
usage: salamander-desktop [OPTIONS] [FILE]

  FILE               a picture, a sound file or a CSV, taken as if it were dropped on the window
  --say TEXT         a sentence, taken as if it were typed
  --device NAME      where models run at first, as SALAMANDER_DEVICE; `window` for the GPU that draws the window
  --screenshot FILE  writes the window as a PNG when the answer is there, and ends
";

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    job: Option<Job>,
    device: Option<String>,
    screenshot: Option<PathBuf>,
}

impl Arguments {
    /// # Errors
    /// What is wrong, or the help that was asked for.
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or(format!("{argument} wants a value"));
            match &argument[..] {
                "--help" | "-h" => return Err(HELP.to_owned()),
                "--say" => arguments.job = Some(Job::Sentence(value()?)),
                "--device" => arguments.device = Some(value()?),
                "--screenshot" => arguments.screenshot = Some(value()?.into()),
                option if option.starts_with('-') => {
                    return Err(format!("{option} is not an option\n\n{HELP}"));
                }
                file => arguments.job = Some(Job::File(file.into())),
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(said) => {
            eprintln!("{said}");
            return ExitCode::from(u8::from(said != HELP) * 2);
        }
    };
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_inner_size([860.0, 700.0])
            .with_min_inner_size([520.0, 420.0])
            .with_drag_and_drop(true),
        ..Default::default()
    };
    #[cfg(feature = "wgpu")]
    let options = gpu::draw_by_wgpu(options);
    let ran = eframe::run_native(
        "Salamander",
        options,
        Box::new(|creation| {
            creation.egui_ctx.set_theme(egui::Theme::Light);
            #[cfg(feature = "wgpu")]
            let shared = creation.wgpu_render_state.as_ref().and_then(gpu::share);
            #[cfg(not(feature = "wgpu"))]
            let shared = None;
            let context = creation.egui_ctx.clone();
            let worker = Worker::start(arguments.device, shared, move || context.request_repaint());
            Ok(Box::new(Window::new(
                worker,
                arguments.job,
                arguments.screenshot,
            )))
        }),
    );
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no window can be opened: {error}");
            ExitCode::FAILURE
        }
    }
}
