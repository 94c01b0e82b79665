//! What training libraries put around the names of a model's tensors, and seeing through it.
//!
//! | wrapper | names |
//! |---|---|
//! | `DataParallel`, `DistributedDataParallel`, `AveragedModel` | `module.` before all |
//! | `torch.compile` | `_orig_mod` as a level anywhere |
//! | FSDP, activation checkpointing, Lightning Fabric | `_fsdp_wrapped_module`, `_checkpoint_wrapped_module`, `_forward_module` as a level anywhere |
//! | a `LightningModule` or another module that holds the model | the attribute's name before all: `model.`, `net.`, … |
//!
//! The first three are no module's own names and are taken off whatever the model is, as often as they occur. The last
//! are seen through where a model's names stand under one prefix, and only under that one.

use std::collections::{BTreeMap, HashSet};

use indexmap::IndexMap;

use crate::checkpoint::Checkpoint;
use crate::error::FormatError;

/// Levels that wrappers add to names, wherever they are.
const LEVELS: [&str; 4] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];
/// What they put before all names, and no model before only some.
const FIRST: &str = "module.";
/// What they keep beside the tensors of the model.
const BESIDE: [&str; 1] = ["n_averaged"];

/// The deepest prefix that is looked under.
const DEEPEST: usize = 6;
/// Which part of all tensors is under a prefix at least, where a training keeps averages and moments of each.
const LEAST: usize = 16;

/// Names that say that tensors cannot be a model's parameters: what is in them, what it is, what to do.
const REFUSED: &[(&str, &str)] = &[
    (
        "_flat_param",
        "parameters that FSDP has flattened into one; save the model with a full state dictionary (`StateDictType.FULL_STATE_DICT`)",
    ),
    (
        "lora_A.",
        "a LoRA adapter of PEFT, which is no model of its own; merge it into its base model with `merge_and_unload()` and save that",
    ),
    (
        "lora_embedding_A",
        "a LoRA adapter of PEFT, which is no model of its own; merge it into its base model with `merge_and_unload()` and save that",
    ),
    (
        "shadow_params.",
        "an average of torch_ema, whose tensors are numbered and have no names; copy it to the model with `ema.copy_to()` and save that",
    ),
];

impl Checkpoint {
    /// The checkpoint without what wrappers of modules put around its names.
    pub(crate) fn unwrapped(mut self) -> Self {
        let is_level = |level: &str| LEVELS.contains(&level);
        let mut taken: Vec<&str> = Vec::new();
        for level in LEVELS {
            let mut names = self.iter().map(|(name, _)| name);
            if names.any(|name| name.split('.').any(|part| part == level)) {
                taken.push(level);
            }
        }
        if !taken.is_empty() {
            self.rename(|name| {
                let kept: Vec<&str> = name.split('.').filter(|level| !is_level(level)).collect();
                kept.join(".")
            });
        }
        let mut before = 0;
        let is_beside = |name: &str| BESIDE.contains(&name);
        while self.iter().any(|(name, _)| name.starts_with(FIRST))
            && self.iter().all(|(name, _)| {
                is_beside(name) || name.len() > FIRST.len() && name.starts_with(FIRST)
            })
        {
            self.rename(|name| name.strip_prefix(FIRST).unwrap_or(name).to_owned());
            before += 1;
        }
        if before > 0 {
            self.make_optional(is_beside);
        }
        let taken = std::iter::repeat_n("module", before).chain(taken);
        let taken: Vec<&str> = taken.collect();
        if !taken.is_empty() {
            let note = format!("{}.", taken.join("."));
            self.metadata.insert("names.wrapper".to_owned(), note);
        }
        self
    }

    /// The checkpoint as seen from under `prefix`, which is taken off the names that begin with it. Others keep theirs,
    /// and may stay unused.
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        let mut checkpoint = self.clone();
        let inside: HashSet<String> = self
            .iter()
            .filter_map(|(name, _)| name.strip_prefix(prefix))
            .filter(|rest| !rest.is_empty())
            .map(str::to_owned)
            .collect();
        let mut entries = IndexMap::new();
        for (name, entry) in self.iter() {
            let (new, outside) = match name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
                Some(rest) => (rest.to_owned(), false),
                // Where two would have the same name, the one under the prefix is meant.
                None if inside.contains(name) => (format!("{name} (outside of {prefix})"), true),
                None => (name.to_owned(), true),
            };
            let mut entry = entry.clone().named(name);
            entry.outside |= outside;
            entries.insert(new, entry);
        }
        checkpoint.prefix = Some(format!("{}{prefix}", self.prefix().unwrap_or_default()));
        checkpoint.with_entries(entries)
    }

    /// The prefix that names are looked for under, if it is not empty.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The checkpoint from under the only prefix where it `fits`, or as it is where that fits or nothing does.
    ///
    /// Of prefixes in one another the shortest is taken, and none that has less than `least` of the tensors under it.
    ///
    /// # Errors
    /// It fits under several prefixes.
    pub fn seen_through(
        &self,
        least: f64,
        fits: impl Fn(&Checkpoint) -> bool,
    ) -> Result<Self, FormatError> {
        if self.prefix.is_some() || fits(self) {
            return Ok(self.clone());
        }
        let mut found: Vec<(String, Checkpoint)> = Vec::new();
        for prefix in self.prefixes(least) {
            if found.iter().any(|(outer, _)| prefix.starts_with(outer)) {
                continue;
            }
            let inner = self.under(&prefix);
            if fits(&inner) {
                found.push((prefix, inner));
            }
        }
        if found.len() > 1 {
            let prefixes = found.into_iter().map(|(prefix, _)| prefix);
            let prefixes: Vec<String> = prefixes.collect();
            let is_meant = |name: &str| prefixes.iter().any(|prefix| name.starts_with(&prefix[..]));
            let meant = self.iter().filter(|(name, _)| is_meant(name));
            return Err(FormatError::Prefixes {
                path: self.holder(meant.map(|(_, entry)| entry)),
                prefixes,
            });
        }
        Ok(match found.pop() {
            Some((prefix, inner)) => {
                tracing::info!("the model's names stand under `{prefix}`");
                inner
            }
            None => self.clone(),
        })
    }

    /// The dotted prefixes with enough tensors under them, the shortest first.
    fn prefixes(&self, least: f64) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in self.iter() {
            for (at, _) in name.match_indices('.').take(DEEPEST) {
                *counts.entry(&name[..=at]).or_default() += 1;
            }
        }
        let least = (self.len() / LEAST).max((self.len() as f64 * least).ceil() as usize);
        let counted = counts.into_iter();
        let mut prefixes: Vec<String> = counted
            .filter(|(_, count)| *count >= least.max(2))
            .map(|(prefix, _)| prefix.to_owned())
            .collect();
        prefixes.sort_by_key(|prefix| prefix.matches('.').count());
        prefixes
    }

    /// What the tensors are where their names say that they are no model's parameters.
    ///
    /// # Errors
    /// They are.
    pub fn refuse_parts(&self) -> Result<(), FormatError> {
        for (part, what) in REFUSED {
            let found = self.iter().find(|(name, _)| name.contains(part));
            if let Some((name, entry)) = found {
                return Err(FormatError::NotAModel {
                    path: self.holder([entry]),
                    reason: format!("`{}` is of {what}", crate::data::clip(name)),
                });
            }
        }
        Ok(())
    }

    /// Gives tensors other names, unless two would have the same.
    fn rename(&mut self, to: impl Fn(&str) -> String) {
        let mut entries = IndexMap::new();
        for (name, entry) in self.iter() {
            let new = to(name);
            let entry = if new == name {
                entry.clone()
            } else {
                entry.clone().named(name)
            };
            if new.is_empty() || entries.insert(new, entry).is_some() {
                return;
            }
        }
        *self = self.with_entries(entries);
    }
}
