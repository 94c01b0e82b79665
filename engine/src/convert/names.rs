//! Tensors under the names that the target's users expect.

use std::collections::{BTreeSet, HashMap};

use salamander_importers::{Entry, Format, KeyMap, Layer, Layout, Placement};
use salamander_models::{Naming, completed_for_hugging_face, naming, open_class};

use super::Model;
use crate::Device;

/// The tensors under other names, split where the other names are of parts; `None` where the architecture is
/// not known, or where they bear those names already.
pub(super) fn renamed(
    model: &Model,
    wanted: Naming,
    remarks: &mut Vec<String>,
) -> Option<Vec<(String, Entry)>> {
    let (known, config) = (model.known.as_ref()?, model.config.as_ref()?);
    let has_none = format!(
        "the names are unchanged: {} has no names for this variant of {}",
        library(wanted),
        known.architecture.name
    );
    let map = naming(
        known.architecture,
        known.class,
        wanted,
        config,
        &model.checkpoint,
    );
    let Some(map) = map else {
        remarks.push(has_none);
        return None;
    };
    let (traced, trace) = model.checkpoint.traced();
    // Nothing is computed; the CPU is the device that takes no time to start.
    let device = "flex".parse().or_else(|_| Device::from_env()).ok()?;
    let opened = open_class(config, Some(known.class), &traced, Device::burn(&device));
    let placements = trace.placements();
    if placements.is_empty() {
        if let Err(error) = opened {
            let first = error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            remarks.push(format!("the names are unchanged: {first}"));
        }
        return None;
    }
    let is_so = |placement: &Placement| {
        if wanted == Naming::TensorFlow {
            return false;
        }
        let sources = map.sources(&placement.parameter);
        placement.layout == Layout::OutIn && sources.first() == Some(&placement.source)
    };
    let Some(named) = named(model, &map, wanted, &placements) else {
        remarks.push(has_none);
        return None;
    };
    let mut entries = named.entries;
    if wanted == Naming::HuggingFace {
        entries = completed_for_hugging_face(known.architecture, config, entries);
    }
    if placements.iter().all(is_so) && entries.len() == model.checkpoint.len() {
        return None;
    }
    say_left_out(&named.left_out, wanted, remarks);
    if !named.tied.is_empty() {
        remarks.push(format!(
            "stored once, as {} does what is tied: {}",
            library(wanted),
            some(&named.tied)
        ));
    }
    if !named.outside.is_empty() {
        remarks.push(format!(
            "{} tensors are left out, which are not the model's{}: {}",
            named.outside.len(),
            match model.checkpoint.prefix() {
                Some(prefix) => format!(" under `{prefix}`"),
                None => String::new(),
            },
            some(&named.outside)
        ));
    }
    if named.constants > 0 {
        remarks.push(format!(
            "{} constants of the exported graph are left out, which are no weights",
            named.constants
        ));
    }
    Some(entries)
}

/// The same for a family that the zoo does not run: from llama.cpp's names to Hugging Face's, or the other way.
pub(super) fn of_family(
    model: &Model,
    wanted: Naming,
    remarks: &mut Vec<String>,
) -> Option<Vec<(String, Entry)>> {
    let family = model.family?;
    let is_gguf = matches!(model.checkpoint.format, Format::Gguf | Format::SplitGguf);
    let gated = family.is_gated(&model.checkpoint);
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for (name, entry) in model.checkpoint.iter() {
        let found = match wanted {
            Naming::LlamaCpp if !is_gguf => family.to_llama_cpp(name),
            Naming::HuggingFace if is_gguf => family.to_hugging_face(name, gated),
            _ => return None,
        };
        let Some((new, layout)) = found else {
            if is_gguf || !family.is_superfluous(name) {
                let reason = format!("{} has none for `{name}`", library(wanted));
                remarks.push(format!("the names are unchanged: {reason}"));
                return None;
            }
            left_out.push(name);
            continue;
        };
        let mut entry = entry.clone();
        if is_gguf {
            entry = entry.in_layout(layout);
            entry.layout = Layout::OutIn;
        } else {
            entry.layout = layout;
            entry = entry.in_layout(Layout::OutIn);
        }
        entries.push((new, entry));
    }
    say_left_out(&left_out, wanted, remarks);
    Some(entries)
}

fn say_left_out(left_out: &[impl AsRef<str>], wanted: Naming, remarks: &mut Vec<String>) {
    if left_out.is_empty() {
        return;
    }
    remarks.push(format!(
        "{} tensors are left out, for which {} has no name: {}",
        left_out.len(),
        library(wanted),
        some(left_out)
    ));
}

/// The first of several names.
pub(super) fn some(names: &[impl AsRef<str>]) -> String {
    const NAMED: usize = 8;
    let shown: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = if names.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

fn library(wanted: Naming) -> &'static str {
    match wanted {
        Naming::HuggingFace => "transformers",
        Naming::LlamaCpp => "llama.cpp",
        Naming::TensorFlow => "google-research",
    }
}

/// A tensor of that dotted name as the library has it.
fn in_library(wanted: Naming, name: &str, layer: Layer, entry: &Entry) -> (String, Entry) {
    if wanted != Naming::TensorFlow {
        return (name.to_owned(), entry.in_layout(Layout::OutIn));
    }
    let (module, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let (leaf, layout) = match (layer, leaf) {
        (Layer::Linear | Layer::Convolution, "weight") => ("kernel", Layout::InOut),
        (Layer::Norm, "weight") => ("gamma", Layout::OutIn),
        (Layer::Norm, "bias") => ("beta", Layout::OutIn),
        (Layer::Norm, "running_mean") => ("moving_mean", Layout::OutIn),
        (Layer::Norm, "running_var") => ("moving_variance", Layout::OutIn),
        (_, other) => (other, Layout::OutIn),
    };
    let name = match module {
        "" => leaf.to_owned(),
        module => format!("{}/{leaf}", module.replace('.', "/")),
    };
    (name, entry.in_layout(layout))
}

/// Tensors under new names, and what has none.
struct Named {
    entries: Vec<(String, Entry)>,
    /// The keys for which the library has no name.
    left_out: Vec<String>,
    /// The keys of tensors that are another's again.
    tied: Vec<String>,
    /// The keys of tensors that stand outside of the prefix that the model's stand under.
    outside: Vec<String>,
    /// How many constants of a graph no parameter takes.
    constants: usize,
}

/// What layers have beside their parameters, which goes along with them.
const BUFFERS: [&str; 1] = ["num_batches_tracked"];

/// The tensors under the map's names; `None` if two would have the same.
fn named(model: &Model, map: &KeyMap, wanted: Naming, placements: &[Placement]) -> Option<Named> {
    let mut of_key: HashMap<&str, Vec<&Placement>> = HashMap::new();
    let mut parents: HashMap<&str, String> = HashMap::new();
    for placement in placements {
        let key = &placement.source.key[..];
        of_key.entry(key).or_default().push(placement);
        let name = map.candidates(&placement.parameter).into_iter().next();
        if let (Some((parent, _)), Some(name)) = (key.rsplit_once('.'), name)
            && let Some((new, _)) = name.rsplit_once('.')
        {
            parents.insert(parent, new.to_owned());
        }
    }
    let checkpoint = &model.checkpoint;
    let mut names = BTreeSet::new();
    let (mut entries, mut left_out, mut tied, mut outside) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut constants = 0;
    // What no class's parameter takes keeps its name where that is the library's.
    let layer = |key: &str| key.rsplit_once('.').map(|(layer, _)| layer.to_owned());
    let own = |placement: &&Placement| {
        let sources = map.sources(&placement.parameter).into_iter();
        let mut layers = sources.map(|source| layer(&source.key));
        layers.any(|found| found == layer(&placement.source.key))
    };
    let has_own_names = placements.iter().filter(own).count() * 2 >= placements.len();
    let onnx = checkpoint.format == Format::Onnx;
    for (key, entry) in checkpoint.iter() {
        let mut add = |name: String, entry: Entry| {
            let new = names.insert(name.clone());
            entries.push((name, entry));
            new.then_some(())
        };
        let Some(placed) = of_key.get(key) else {
            // A buffer beside parameters goes along with them.
            let beside = key.rsplit_once('.');
            let beside = beside.filter(|(_, leaf)| BUFFERS.contains(leaf));
            let beside = beside.and_then(|(parent, leaf)| Some((parents.get(parent)?, leaf)));
            let is_again = || {
                let mut placed = of_key.keys().filter_map(|key| checkpoint.get(key));
                entry.shape.len() > 1 && placed.any(|other| is_same(entry, other))
            };
            match beside {
                _ if entry.is_outside() => outside.push(key.to_owned()),
                _ if entry.generated || (onnx && !entry.dtype.is_float()) => constants += 1,
                _ if wanted != Naming::HuggingFace => left_out.push(key.to_owned()),
                Some((parent, leaf)) => add(format!("{parent}.{leaf}"), entry.clone())?,
                None if is_again() => tied.push(key.to_owned()),
                None if has_own_names => add(key.to_owned(), entry.in_layout(Layout::OutIn))?,
                None => left_out.push(key.to_owned()),
            }
            continue;
        };
        // Tied parameters share one tensor, which is stored once.
        let parts = placed
            .iter()
            .any(|placement| placement.source.rows.is_some());
        for placement in &placed[..if parts { placed.len() } else { 1 }] {
            let source = map.sources(&placement.parameter).into_iter().next();
            let name = source.map_or_else(|| key.to_owned(), |source| source.key);
            // Another tensor has that name, which the reference would take in place of this one.
            let taken = checkpoint.get(&name).is_some() && !of_key.contains_key(&name[..]);
            let name = if taken { key.to_owned() } else { name };
            if wanted != Naming::HuggingFace && !map.names(&placement.parameter) {
                left_out.push(key.to_owned());
                continue;
            }
            let entry_name = entry.own_name().unwrap_or(key);
            let mut entry = entry.clone();
            entry.layout = placement.layout;
            let part = match placement.source.rows {
                None => Some(entry),
                Some(rows) => entry.block(rows),
            };
            let (name, part) = in_library(wanted, &name, placement.layer, &part?);
            add(name, part.named(entry_name))?;
        }
    }
    Some(Named {
        entries,
        left_out,
        tied,
        outside,
        constants,
    })
}

/// Whether two tensors hold the same numbers, as they do where one parameter is stored under two names.
fn is_same(one: &Entry, other: &Entry) -> bool {
    if one.dtype != other.dtype || one.out_in_shape() != other.out_in_shape() {
        return false;
    }
    match (one.read_out_in(), other.read_out_in()) {
        (Ok(one), Ok(other)) => one.as_bytes() == other.as_bytes(),
        _ => false,
    }
}
