//! How the names of a checkpoint and of a module correspond.

/// One row: a checkpoint's module prefix and ours.
///
/// Both are dotted paths. A segment `{name}` matches any one segment and stands for the same text on the
/// other side. It may have text around it, and count from another number: `layer{s+1}` is the checkpoint's
/// name for our `stages.{s}` where it counts from 1. The rest of a key (`weight`, `bias`, …) rides along.
///
/// A checkpoint side that ends in `[k/n]` is the block `k`, counted from 0, of `n` equal blocks along the axis
/// of the outputs: `attn.qkv[1/3]` are the keys of a fused projection.
pub type Row = (&'static str, &'static str);

/// Where a parameter may be found: a checkpoint key, and which of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The tensor's key in the checkpoint.
    pub key: String,
    /// The rows, where they are not all of them.
    pub rows: Option<Block>,
}

/// One of several blocks of equally many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Which block, counted from 0.
    pub index: usize,
    /// How many blocks the tensor has.
    pub count: usize,
}

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

    /// Adds the table of the submodule `module_prefix`, which is empty or ends in a dot. Tables of one submodule
    /// are one, whose rows have prefixes of their own.
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
        let sources = self.sources(path).into_iter();
        sources.map(|source| source.key).collect()
    }

    /// Where the parameter `path` may be found, best first.
    pub fn sources(&self, path: &str) -> Vec<Source> {
        let groups = self.groups_of(path);
        let Some(first) = groups.first() else {
            let key = path.to_owned();
            return vec![Source { key, rows: None }];
        };
        let inner = &path[first.module_prefix.len()..];
        let mut names = Vec::new();
        let mut best = (0, 0);
        for group in &groups {
            let prefixes = &group.checkpoint_prefixes;
            for (checkpoint, module) in group.rows {
                let (checkpoint, rows) = block(checkpoint);
                let Some((rank, name)) = rewrite(module, checkpoint, inner) else {
                    continue;
                };
                if rank > best {
                    best = rank;
                    names.clear();
                }
                if rank == best {
                    names.push((name, rows, prefixes));
                }
            }
        }
        if names.is_empty() {
            names.push((inner.to_owned(), None, &first.checkpoint_prefixes));
        }
        let sources = names.iter().flat_map(|(name, rows, prefixes)| {
            prefixes.iter().map(move |prefix| Source {
                key: format!("{prefix}{name}"),
                rows: *rows,
            })
        });
        sources.collect()
    }

    /// The tables of the innermost submodule that the parameter is in.
    fn groups_of(&self, path: &str) -> Vec<&Group> {
        let prefixes = self.groups.iter().map(|group| group.module_prefix);
        let of_path = prefixes.filter(|prefix| path.starts_with(prefix));
        let longest = of_path.max_by_key(|prefix| prefix.len());
        let groups = self.groups.iter();
        groups
            .filter(|group| Some(group.module_prefix) == longest)
            .collect()
    }

    /// Whether a row says what the parameter `path` is called; without one it keeps its path.
    pub fn names(&self, path: &str) -> bool {
        self.groups_of(path).into_iter().any(|group| {
            let inner = &path[group.module_prefix.len()..];
            let mut rows = group.rows.iter();
            rows.any(|(_, module)| rewrite(module, "", inner).is_some())
        })
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

/// The name that the longest matching row gives `name`, read from the first side of the rows to the second.
pub fn rename<'a>(
    rows: impl IntoIterator<Item = (&'a str, &'a str)>,
    name: &str,
) -> Option<String> {
    let matches = rows
        .into_iter()
        .filter_map(|(from, to)| rewrite(from, to, name));
    matches.max_by_key(|(rank, _)| *rank).map(|(_, name)| name)
}

/// Matches `pattern` against the beginning of `path` and writes the match into `target`; gives the
/// pattern's rank (segments, literal segments) and the result.
fn rewrite(pattern: &str, target: &str, path: &str) -> Option<((usize, usize), String)> {
    let mut rest = path.split('.');
    let mut bound: Vec<(&str, String)> = Vec::new();
    let mut literals = 0;
    let mut segments = 0;
    for expected in pattern.split('.') {
        let found = rest.next()?;
        segments += 1;
        match Placeholder::parse(expected) {
            Some(placeholder) => bound.push((placeholder.name, placeholder.read(found)?)),
            None if expected == found => literals += 1,
            None => return None,
        }
    }
    let write = |segment: &str| match Placeholder::parse(segment) {
        Some(placeholder) => {
            let bound = bound.iter().find(|(name, _)| *name == placeholder.name);
            bound.and_then(|(_, text)| placeholder.write(text))
        }
        None => Some(segment.to_owned()),
    };
    let written: Option<Vec<String>> = target.split('.').map(write).collect();
    let mut written = written?;
    written.extend(rest.map(str::to_owned));
    Some(((segments, literals), written.join(".")))
}

/// Splits the `[k/n]` off a checkpoint side.
fn block(checkpoint: &str) -> (&str, Option<Block>) {
    let parsed = || {
        let (name, block) = checkpoint.strip_suffix(']')?.rsplit_once('[')?;
        let (index, count) = block.split_once('/')?;
        let (index, count) = (index.parse().ok()?, count.parse().ok()?);
        Some((name, Some(Block { index, count })))
    };
    parsed().unwrap_or((checkpoint, None))
}

/// `before{name+offset}after`
struct Placeholder<'a> {
    before: &'a str,
    name: &'a str,
    offset: usize,
    after: &'a str,
}

impl<'a> Placeholder<'a> {
    fn parse(segment: &'a str) -> Option<Self> {
        let (before, rest) = segment.split_once('{')?;
        let (inner, after) = rest.split_once('}')?;
        let (name, offset) = match inner.split_once('+') {
            Some((name, offset)) => (name, offset.parse().ok()?),
            None => (inner, 0),
        };
        Some(Self {
            before,
            name,
            offset,
            after,
        })
    }

    /// What a segment binds to the name.
    fn read(&self, segment: &str) -> Option<String> {
        let text = segment
            .strip_prefix(self.before)?
            .strip_suffix(self.after)?;
        if self.offset == 0 {
            return (!text.is_empty()).then(|| text.to_owned());
        }
        let number: usize = text.parse().ok()?;
        Some(number.checked_sub(self.offset)?.to_string())
    }

    /// The segment for what is bound to the name.
    fn write(&self, text: &str) -> Option<String> {
        let (before, after) = (self.before, self.after);
        if self.offset == 0 {
            return Some(format!("{before}{text}{after}"));
        }
        let number = text.parse::<usize>().ok()?.checked_add(self.offset)?;
        Some(format!("{before}{number}{after}"))
    }
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
    fn placeholders_may_count_from_another_number() {
        let rows = &[(
            "layer{s+1}.{b}.conv{c+1}",
            "stages.{s}.blocks.{b}.convs.{c}",
        )];
        let map = KeyMap::new(rows, &[""]).ignore(&["layer{s}.{b}.bn{c}.tracked"]);
        assert_eq!(
            map.candidates("stages.0.blocks.11.convs.2.weight"),
            ["layer1.11.conv3.weight"]
        );
        // What is no number cannot be counted.
        assert_eq!(
            map.candidates("stages.x.blocks.0.convs.2.weight"),
            ["stages.x.blocks.0.convs.2.weight"]
        );
        assert!(map.ignores("layer4.0.bn1.tracked"));
        assert!(!map.ignores("layer4.0.bn.tracked"));
        assert!(!map.ignores("4.0.bn1.tracked"));
    }

    #[test]
    fn a_block_of_rows_stands_behind_its_key() {
        let rows = &[
            ("blocks.{i}.attn.qkv[0/3]", "layers.{i}.attention.query"),
            ("blocks.{i}.attn.qkv[2/3]", "layers.{i}.attention.value"),
            ("h{i}.in_proj_bias[1/3]", "layers.{i}.attention.key.bias"),
        ];
        let map = KeyMap::new(rows, &["", "module."]);
        let found = map.sources("layers.7.attention.value.weight");
        let block = |index| Some(super::Block { index, count: 3 });
        assert_eq!(found[0].key, "blocks.7.attn.qkv.weight");
        assert_eq!(found[1].key, "module.blocks.7.attn.qkv.weight");
        assert!(found.iter().all(|source| source.rows == block(2)));
        let found = map.sources("layers.7.attention.key.bias").remove(0);
        assert_eq!((&found.key[..], found.rows), ("h7.in_proj_bias", block(1)));
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
