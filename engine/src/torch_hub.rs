//! `torch.hub`'s functions that end in a network or in tensors. The others are in [`hub::torch`](crate::hub::torch),
//! where all are described.

use std::collections::BTreeMap;

use salamander_hub::torch::{self, Options, StateDictOptions};
use salamander_importers::Checkpoint;
use serde_json::Value;

use crate::{Device, Error, Network};

/// The network that an entry point of a repository stands for, such as `resnet50` of `pytorch/vision`, with its
/// trained weights.
///
/// For a task instead, open the [`LoadedEntry`](torch::LoadedEntry) of [`torch::load`]: its `path` with `open`, or with
/// `open_as` where it has a `preset`.
///
/// # Errors
/// As [`torch::load`] and [`Network::open`].
pub fn load(
    repository: &str,
    entry: &str,
    arguments: &BTreeMap<String, Value>,
    options: &Options,
    device: &Device,
) -> Result<Network, Error> {
    let found = torch::load(repository, entry, arguments, options)?;
    Network::open(&found.path, found.preset.as_deref(), device)
}

/// The tensors of the file at an address. Their data is mapped, and goes to a device when it is loaded into a module.
///
/// # Errors
/// As [`torch::load_state_dict_from_url`] and [`Checkpoint::open`].
pub fn load_state_dict_from_url(
    url: &str,
    options: &StateDictOptions,
) -> Result<Checkpoint, Error> {
    let path = torch::load_state_dict_from_url(url, options)?;
    Ok(Checkpoint::open(path)?)
}
