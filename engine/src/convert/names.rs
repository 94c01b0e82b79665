//! Tensors under the names that the target's users expect.

use std::collections::{BTreeSet, HashMap};

use salamander_importers::{Entry, KeyMap, Layout, Placement};
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
        let sources = map.sources(&placement.parameter);
        let entry = model.checkpoint.get(&placement.source.key);
        let ordered = entry.is_none_or(|entry| entry.layout == Layout::OutIn);
        ordered && sources.contains(&placement.source)
    };
    if placements.iter().all(is_so) {
        return None;
    }
    let Some((entries, left_out)) = named(model, &map, wanted, &placements) else {
        let reason = format!("{} has no names for this variant", library(wanted));
        remarks.push(format!("the names are unchanged: {reason}"));
        return None;
    };
    if !left_out.is_empty() {
        let shown: Vec<&str> = left_out.iter().take(8).map(|name| &name[..]).collect();
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
    Some(entries)
}

fn library(wanted: Naming) -> &'static str {
    match wanted {
        Naming::HuggingFace => "transformers",
        Naming::LlamaCpp => "llama.cpp",
    }
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
                _ if wanted == Naming::LlamaCpp => left_out.push(key.to_owned()),
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
            if wanted == Naming::LlamaCpp && !map.names(&placement.parameter) {
                left_out.push(key.to_owned());
                continue;
            }
            let part = match placement.source.rows {
                None => Some(entry.clone()),
                Some(rows) => entry.block(rows),
            };
            add(name, part?.in_order())?;
        }
    }
    Some((entries, left_out))
}
