//! How the names of a checkpoint and of a module correspond.

/// One row: a checkpoint's module prefix and ours.
///
/// Both are dotted paths. A segment `{name}` matches any one segment and stands for the same text on the
/// other side. The rest of a key (`weight`, `bias`, …) rides along.
pub type Row = (&'static str, &'static str);

/// A table of names, read from the module's side: for each parameter, the checkpoint keys that may hold it.
///
/// The longest matching row wins and the one with more literal segments among those, so the order of
/// rows does not matter, except between rows of the same module side: those are alternatives, the first
/// one present is taken. A path that no row matches keeps its name.
#[derive(Debug, Clone, Default)]
pub struct KeyMap {
    groups: Vec<Group>,
    ignored: Vec<&'static str>,
}

/// Rows under one module prefix.
#[derive(Debug, Clone)]
struct Group {
    module_prefix: &'static str,
    checkpoint_prefixes: Vec<&'static str>,
    rows: &'static [Row],
}

impl KeyMap {
    /// A table whose checkpoint names may stand under any of `prefixes`, tried in that order.
    ///
    /// A prefix is empty or ends in a dot.
    pub fn new(rows: &'static [Row], prefixes: &[&'static str]) -> Self {
        Self::default().with("", rows, prefixes)
    }

    /// Adds the table of the submodule `module_prefix`, which is empty or ends in a dot.
    #[must_use]
    pub fn with(
        mut self,
        module_prefix: &'static str,
        rows: &'static [Row],
        prefixes: &[&'static str],
    ) -> Self {
        self.groups.push(Group {
            module_prefix,
            checkpoint_prefixes: prefixes.to_vec(),
            rows,
        });
        self
    }

    /// Names checkpoint modules or tensors that may be present and unused, under any of the prefixes.
    #[must_use]
    pub fn ignore(mut self, names: &[&'static str]) -> Self {
        self.ignored.extend(names);
        self
    }

    /// The checkpoint keys that may hold the parameter `path`, best first.
    pub fn candidates(&self, path: &str) -> Vec<String> {
        let group = self
            .groups
            .iter()
            .filter(|group| path.starts_with(group.module_prefix))
            .max_by_key(|group| group.module_prefix.len());
        let Some(group) = group else {
            return vec![path.to_owned()];
        };
        let inner = &path[group.module_prefix.len()..];
        let mut names = Vec::new();
        let mut best = (0, 0);
        for (checkpoint, module) in group.rows {
            let Some((rank, name)) = rewrite(module, checkpoint, inner) else {
                continue;
            };
            if rank > best {
                best = rank;
                names.clear();
            }
            if rank == best {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.push(inner.to_owned());
        }
        let prefixes = &group.checkpoint_prefixes;
        names
            .iter()
            .flat_map(|name| prefixes.iter().map(move |prefix| format!("{prefix}{name}")))
            .collect()
    }

    /// Whether the checkpoint key may stay unused.
    pub fn ignores(&self, key: &str) -> bool {
        let prefixes = self.groups.iter().flat_map(|g| &g.checkpoint_prefixes);
        let stripped = prefixes.filter_map(|prefix| key.strip_prefix(prefix));
        stripped.chain([key]).any(|key| {
            self.ignored
                .iter()
                .any(|pattern| rewrite(pattern, "", key).is_some())
        })
    }
}

/// Matches `pattern` against the beginning of `path` and writes the match into `target`; gives the
/// pattern's rank (segments, literal segments) and the result.
fn rewrite(pattern: &str, target: &str, path: &str) -> Option<((usize, usize), String)> {
    let mut rest = path.split('.');
    let mut bound: Vec<(&str, &str)> = Vec::new();
    let mut literals = 0;
    let mut segments = 0;
    for expected in pattern.split('.') {
        let found = rest.next()?;
        segments += 1;
        if expected.starts_with('{') {
            bound.push((expected, found));
        } else if expected == found {
            literals += 1;
        } else {
            return None;
        }
    }
    let text = |segment| {
        let bound = bound.iter().find(|(name, _)| *name == segment);
        bound.map_or(segment, |(_, found)| *found)
    };
    let segments_out: Vec<&str> = target.split('.').map(text).chain(rest).collect();
    Some(((segments, literals), segments_out.join(".")))
}

#[cfg(test)]
mod tests {
    use super::KeyMap;

    const ROWS: &[super::Row] = &[
        (
            "encoder.layer.{i}.attention.self.{m}",
            "layers.{i}.attention.{m}",
        ),
        (
            "encoder.layer.{i}.attention.output.dense",
            "layers.{i}.attention.output",
        ),
        ("encoder.layer.{i}.output.LayerNorm", "layers.{i}.mlp_norm"),
        ("pooler.dense", "pooler"),
    ];

    #[test]
    fn the_row_with_more_literals_wins_whatever_the_order() {
        let map = KeyMap::new(ROWS, &[""]);
        let key = |path| map.candidates(path).remove(0);
        assert_eq!(
            key("layers.11.attention.query.weight"),
            "encoder.layer.11.attention.self.query.weight"
        );
        assert_eq!(
            key("layers.11.attention.output.weight"),
            "encoder.layer.11.attention.output.dense.weight"
        );
        assert_eq!(key("classifier.bias"), "classifier.bias");
    }

    #[test]
    fn prefixes_are_alternatives_in_order() {
        let map = KeyMap::new(&[("head.out", "out")], &[""]).with("bert.", ROWS, &["bert.", ""]);
        assert_eq!(map.candidates("out.weight"), ["head.out.weight"]);
        assert_eq!(
            map.candidates("bert.pooler.bias"),
            ["bert.pooler.dense.bias", "pooler.dense.bias"]
        );
    }

    #[test]
    fn ignored_names_are_prefixes_of_whole_segments() {
        let map = KeyMap::new(ROWS, &["", "bert."]).ignore(&["pooler", "embeddings.position_ids"]);
        assert!(map.ignores("bert.embeddings.position_ids"));
        assert!(map.ignores("pooler.dense.weight"));
        assert!(!map.ignores("pooler2.dense.weight"));
        assert!(!map.ignores("cls.pooler.dense.weight"));
    }
}
