//! `salamander forward`.

use std::path::PathBuf;

use clap::Args;
use salamander::Network;

use crate::output::remark;
use crate::{DeviceArgument, Failure};

#[derive(Args)]
pub(crate) struct Forward {
    /// A model directory, or a hub id `owner/name[@revision]`
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// A safetensors file; its tensors are named as the reference's forward arguments are
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The safetensors file to write; its tensors are named as the reference's output fields are
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The reference class to run, instead of the one that config.json names; or for weights without a
    /// config.json the model's name in another library, such as torchvision/resnet50 or
    /// timm/vit_base_patch16_224
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    #[command(flatten)]
    device: DeviceArgument,
}

impl Forward {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let device = self.device.open()?;
        let network = Network::open(&self.model, self.architecture.as_deref(), &device)?;
        network.forward_file(&self.inputs, &self.output)?;
        let output = self.output.display();
        remark(&format!("{} on {device}: {output}", network.class()));
        Ok(())
    }
}
