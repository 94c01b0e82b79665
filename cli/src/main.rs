//! The `salamander` command: parses arguments, prints, draws progress.

#[cfg(feature = "hub")]
mod card;
mod convert;
mod devices;
mod forecast;
mod forward;
#[cfg(feature = "hub")]
mod hub;
mod input;
mod inspect;
mod output;
#[cfg(feature = "hub")]
mod progress;
mod run;
mod scan;
mod speech;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use salamander::Device;
use salamander::importers::Dtype;

/// Runs models: text or sound in, answer out, on any machine.
#[derive(Parser)]
#[command(name = "salamander", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a task: texts from the arguments, a file or standard input, or sound files
    #[command(subcommand)]
    Run(run::Run),
    /// List what a model directory or a weight file holds
    Inspect(inspect::Inspect),
    /// Say what files would run, link to or hide when they are opened without care; fails on danger
    Scan(scan::Scan),
    /// Write a model in another format, and read it back
    Convert(convert::Convert),
    /// List the backends of this program and the devices of this machine
    Devices(devices::Devices),
    /// Run the bare network: named tensors in, named tensors out
    Forward(forward::Forward),
    /// Fetch, list, verify, pin and trust models
    #[cfg(feature = "hub")]
    Hub(hub::Hub),
    /// Show, change or write a model card
    #[cfg(feature = "hub")]
    Card(card::Card),
}

/// Where to run.
#[derive(clap::Args)]
struct DeviceArgument {
    /// cpu, gpu, flex, wgpu, cuda:0, …, or auto; by default what SALAMANDER_DEVICE says, else the best there is
    #[arg(long)]
    device: Option<String>,
    /// What linear layers are computed in: f32, f16, bf16, int8 or int4, as far as the device has them
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = Device::dtype_named)]
    dtype: Dtype,
    /// What stands before the names of the model's tensors, such as `student.`, for files in which several models' stand
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
    /// How many threads compute on a CPU; by default as many as it has
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
}

impl DeviceArgument {
    fn open(&self) -> Result<Device, salamander::Error> {
        if let Some(count) = self.threads {
            salamander::set_threads(count)?;
        }
        let device: Device = match &self.device {
            Some(name) => name.parse()?,
            None => Device::from_env()?,
        };
        Ok(device
            .with_dtype(self.dtype.clone())?
            .with_prefix(&self.prefix[..]))
    }
}

/// Anything that ends the command.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    output::show_warnings();
    #[cfg(feature = "hub")]
    progress::install();
    let result = match arguments.command {
        Command::Run(run) => run.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Scan(scan) => scan.run(),
        Command::Convert(convert) => convert.run(),
        Command::Devices(devices) => devices.run(),
        Command::Forward(forward) => forward.run(),
        #[cfg(feature = "hub")]
        Command::Hub(hub) => hub.run(),
        #[cfg(feature = "hub")]
        Command::Card(card) => card.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
