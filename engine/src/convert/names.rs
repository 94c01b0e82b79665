//! Tensors under the names that the target's users expect.

use std::collections::{BTreeSet, HashMap};

use salamander_importers::{Entry, Format, KeyMap, Layer, Layout, Placement};
use salamander_models::{Naming, naming, open_class};

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
    let map = naming(known.architecture, known.class, wanted)?;
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
        placement.layout == Layout::OutIn && sources.contains(&placement.source)
    };
    if placements.iter().all(is_so) {
        return None;
    }
    let Some((entries, left_out)) = named(model, &map, wanted, &placements) else {
        let reason = format!("{} has no names for this variant", library(wanted));
        remarks.push(format!("the names are unchanged: {reason}"));
        return None;
    };
    say_left_out(&left_out, wanted, remarks);
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
    let shown: Vec<&str> = left_out.iter().take(8).map(AsRef::as_ref).collect();
    let more = if left_out.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    remarks.push(format!(
        "{} tensors are left out, for which {} has no name: {}{more}",
        left_out.len(),
        library(wanted),
        shown.join(", ")
    ));
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

/// The tensors under the map's names, and those that it has none for; `None` if two would have the same.
#[allow(clippy::type_complexity)]
fn named(
    model: &Model,
    map: &KeyMap,
    wanted: Naming,
    placements: &[Placement],
) -> Option<(Vec<(String, Entry)>, Vec<String>)> {
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
    let mut names = BTreeSet::new();
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for (key, entry) in model.checkpoint.iter() {
        let mut add = |name: String, entry: Entry| {
            let new = names.insert(name.clone());
            entries.push((name, entry));
            new.then_some(())
        };
        let Some(placed) = of_key.get(key) else {
            // A buffer beside parameters goes along with them; what has no place keeps its name.
            let beside = key.rsplit_once('.');
            let beside = beside.and_then(|(parent, leaf)| Some((parents.get(parent)?, leaf)));
            match beside {
                _ if wanted != Naming::HuggingFace => left_out.push(key.to_owned()),
                Some((parent, leaf)) => add(format!("{parent}.{leaf}"), entry.clone())?,
                None => add(key.to_owned(), entry.clone())?,
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
            if wanted != Naming::HuggingFace && !map.names(&placement.parameter) {
                left_out.push(key.to_owned());
                continue;
            }
            let mut entry = entry.clone();
            entry.layout = placement.layout;
            let part = match placement.source.rows {
                None => Some(entry),
                Some(rows) => entry.block(rows),
            };
            let (name, part) = in_library(wanted, &name, placement.layer, &part?);
            add(name, part)?;
        }
    }
    Some((entries, left_out))
}
