//! `salamander hub`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::HumanBytes;
use salamander::hub::registry::{Query, SortBy};
use salamander::hub::torch::{Options, Question, Source, TorchHub, TrustRepo};
use salamander::hub::{
    self, FileState, GarbageReason, PublicKey, Search, SecretKey, Sort, verify_signature,
};
use serde_json::{Value, json};

use crate::Failure;
use crate::output::{excerpt, json_line, remark, table};

#[derive(Args)]
pub(crate) struct Hub {
    /// The cache's directory, instead of HF_HUB_CACHE
    #[arg(long, global = true, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Make no request: only what is in the cache
    #[arg(long, global = true)]
    offline: bool,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch models, and print their directories
    Download(Download),
    /// List the models in the cache
    List,
    /// Show a model's commit, files and what the hub says of it
    Show {
        /// `owner/name[@revision]`
        id: String,
    },
    /// Find models on the hub or in a registry
    Search(SearchArguments),
    /// Sum the files of models in the cache, or check the signature of a directory
    Verify(Verify),
    /// Remove models from the cache
    Remove {
        /// `owner/name`, or `owner/name@revision` for one commit
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Say what in the cache is of no use, and remove it
    Gc(Gc),
    /// List, trust or distrust repositories of code, and pin keys to owners of models
    Trust(Trust),
    /// Pin the commits and sums of models in a lock file
    Lock(Lock),
    /// Sign a model directory
    Sign(Sign),
    /// List the entry points of a repository of code, explain one, or fetch what it stands for
    Entries(Entries),
}

#[derive(Args)]
struct Download {
    /// `owner/name[@revision]`, or with --registry `name[@version]`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Fetch the files that match instead of those that an inference needs; `*` and `?` stand for any letters
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Ask the hub for the commit that a branch is now
    #[arg(long, conflicts_with = "include")]
    update: bool,
    /// The file or address of a registry's index
    #[arg(long, value_name = "FILE|URL", conflicts_with_all = ["include", "update"])]
    registry: Option<String>,
}

#[derive(Args)]
struct SearchArguments {
    /// Words
    text: Vec<String>,
    /// A task, such as text-classification
    #[arg(long)]
    task: Option<String>,
    /// A library, such as transformers
    #[arg(long, conflicts_with = "registry")]
    library: Option<String>,
    /// The owner
    #[arg(long, conflicts_with = "registry")]
    author: Option<String>,
    /// The order; `name`, `size` and a metric's name are for registries, `likes`, `modified`, `created` and `trending`
    /// for the hub
    #[arg(long, default_value = "downloads")]
    sort: String,
    /// How many at most
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// The file or address of a registry's index
    #[arg(long, value_name = "FILE|URL")]
    registry: Option<String>,
    /// A registry's category: vision, text, audio, …
    #[arg(long, requires = "registry")]
    category: Option<String>,
    /// A registry's architecture
    #[arg(long, requires = "registry")]
    architecture: Option<String>,
    /// A registry's license
    #[arg(long, requires = "registry")]
    license: Option<String>,
}

#[derive(Args)]
struct Verify {
    /// `owner/name[@revision]`, or a directory
    #[arg(required = true, value_name = "ID|DIR")]
    models: Vec<String>,
    /// Throw damaged files away and fetch them again
    #[arg(long)]
    repair: bool,
    /// The public key that a directory must be signed with
    #[arg(long)]
    key: Vec<PublicKey>,
}

#[derive(Args)]
struct Gc {
    /// Also remove commits that no branch or tag is any more
    #[arg(long)]
    detached: bool,
    /// Remove without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct Trust {
    /// `owner/repo` of code; or with --key `owner` or `owner/name` of models. Without any, the trusted are listed
    name: Option<String>,
    /// Take it off the list
    #[arg(long, requires = "name")]
    remove: bool,
    /// The public key that its models must be signed with
    #[arg(long, requires = "name")]
    key: Option<PublicKey>,
}

#[derive(Args)]
struct Lock {
    /// `owner/name[@revision]`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The lock file
    #[arg(long, value_name = "FILE", default_value = "salamander.lock")]
    file: PathBuf,
}

#[derive(Args)]
struct Sign {
    /// The model directory
    directory: PathBuf,
    /// The file with the secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Make a new key and write it to that file first
    #[arg(long)]
    new: bool,
}

#[derive(Args)]
struct Entries {
    /// `owner/repo[:ref]` on GitHub, or a directory
    repository: String,
    /// The entry point to explain
    entry: Option<String>,
    /// Fetch the entry point's model, and print where it is
    #[arg(long, requires = "entry")]
    load: bool,
    /// An argument of the entry point; the value is JSON, or else a text
    #[arg(long, value_name = "NAME=VALUE", requires = "load")]
    argument: Vec<String>,
    /// Whether the repository is trusted: as listed, yes, or ask
    #[arg(long, value_enum, default_value = "check")]
    trust: TrustArgument,
    /// Fetch the repository again
    #[arg(long)]
    force_reload: bool,
    /// Do not look whether the ref is the repository's own
    #[arg(long)]
    skip_validation: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum TrustArgument {
    Check,
    Yes,
    Ask,
}

impl Hub {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut hub = hub::default()?;
        if let Some(cache) = self.cache {
            hub.cache = cache;
        }
        hub.offline |= self.offline;
        let mut out = Output {
            out: &mut io::stdout().lock(),
            json: self.json,
        };
        match self.command {
            Command::Download(arguments) => arguments.run(&hub, &mut out),
            Command::List => list(&hub, &mut out),
            Command::Show { id } => show(&hub, &id, &mut out),
            Command::Search(arguments) => arguments.run(&hub, &mut out),
            Command::Verify(arguments) => arguments.run(&hub, &mut out),
            Command::Remove { ids } => remove(&hub, &ids, &mut out),
            Command::Gc(arguments) => arguments.run(&hub, &mut out),
            Command::Trust(arguments) => arguments.run(&hub, &mut out),
            Command::Lock(arguments) => arguments.run(&hub, &mut out),
            Command::Sign(arguments) => arguments.run(&mut out),
            Command::Entries(arguments) => arguments.run(&hub, &mut out),
        }
    }
}

/// Standard output, for people or programs.
struct Output<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl Output<'_> {
    fn line(&mut self, text: &str, object: &Value) -> Result<(), Failure> {
        if self.json {
            return json_line(self.out, object);
        }
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// A head and rows, or the objects, one a line.
    fn rows(
        &mut self,
        head: &[&str],
        rows: Vec<Vec<String>>,
        objects: &[Value],
    ) -> Result<(), Failure> {
        if self.json {
            return objects
                .iter()
                .try_for_each(|object| json_line(self.out, object));
        }
        if rows.is_empty() {
            remark("nothing");
            return Ok(());
        }
        let head = head.iter().map(|&word| word.to_owned()).collect();
        let all: Vec<_> = std::iter::once(head).chain(rows).collect();
        table(self.out, &all)?;
        Ok(())
    }
}

impl Download {
    fn run(&self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        let registry = match &self.registry {
            Some(source) => Some(hub.registry(source)?),
            None => None,
        };
        let patterns: Vec<&str> = self.include.iter().map(String::as_str).collect();
        for id in &self.ids {
            let path = match &registry {
                Some(registry) => hub.fetch_registered(registry, id)?,
                None if !patterns.is_empty() => hub.fetch_files(id, &patterns)?,
                None if self.update => hub.update(id)?,
                None => hub.fetch(id)?,
            };
            let object = json!({"id": id, "path": path});
            out.line(&path.display().to_string(), &object)?;
        }
        Ok(())
    }
}

fn list(hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
    let models = hub.list()?;
    let mut rows = Vec::new();
    for model in &models {
        for (index, revision) in model.revisions.iter().enumerate() {
            let refs = match revision.refs.join(", ") {
                refs if refs.is_empty() => "-".to_owned(),
                refs => refs,
            };
            rows.push(vec![
                if index == 0 {
                    model.id.clone()
                } else {
                    String::new()
                },
                refs,
                revision.commit.chars().take(12).collect(),
                revision.files.to_string(),
                HumanBytes(revision.bytes).to_string(),
                age(revision.modified),
                age(model.accessed),
            ]);
        }
    }
    let objects: Result<Vec<_>, _> = models.iter().map(serde_json::to_value).collect();
    let head = [
        "MODEL", "REVISION", "COMMIT", "FILES", "SIZE", "FETCHED", "USED",
    ];
    out.rows(&head, rows, &objects?)?;
    if !out.json && !models.is_empty() {
        let total = models.iter().map(|model| model.bytes).sum();
        let count = models.len();
        remark(&format!(
            "{count} models, {} in {}",
            HumanBytes(total),
            hub.cache.display()
        ));
    }
    Ok(())
}

/// How long ago, in the largest unit.
fn age(time: SystemTime) -> String {
    let seconds = time.elapsed().unwrap_or_default().as_secs();
    let (number, unit) = match seconds {
        0..60 => return "now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..31_536_000 => (seconds / 86_400, "day"),
        _ => (seconds / 31_536_000, "year"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

fn show(hub: &hub::Hub, id: &str, out: &mut Output<'_>) -> Result<(), Failure> {
    let shown = hub.show(id)?;
    if out.json {
        return json_line(out.out, &shown);
    }
    let text = |value: &Value| match value {
        Value::String(text) => excerpt(text),
        Value::Array(list) => {
            let texts: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            excerpt(&texts.join(", "))
        }
        other => excerpt(&other.to_string()),
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for name in ["id", "revision", "commit"] {
        rows.push(vec![name.to_owned(), text(&shown[name])]);
    }
    for (label, name) in [
        ("task", "pipeline_tag"),
        ("library", "library_name"),
        ("license", "license"),
        ("downloads", "downloads"),
        ("likes", "likes"),
        ("modified", "lastModified"),
        ("gated", "gated"),
        ("private", "private"),
        ("tags", "tags"),
    ] {
        let value = &shown["hub"][name];
        let value = match (name, value) {
            ("license", Value::Null) => &shown["hub"]["cardData"]["license"],
            (_, value) => value,
        };
        if !matches!(value, Value::Null | Value::Bool(false)) {
            rows.push(vec![label.to_owned(), text(value)]);
        }
    }
    table(out.out, &rows)?;
    writeln!(out.out)?;
    let files = shown["files"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = files.iter().map(|file| {
        let sum = file["sha256"].as_str().or(file["blob"].as_str());
        vec![
            file["name"].as_str().unwrap_or_default().to_owned(),
            HumanBytes(file["bytes"].as_u64().unwrap_or_default()).to_string(),
            if file["cached"] == true {
                "cached"
            } else {
                "-"
            }
            .to_owned(),
            sum.unwrap_or_default().chars().take(12).collect(),
        ]
    });
    out.rows(&["FILE", "SIZE", "HERE", "SUM"], rows.collect(), &[])
}

impl SearchArguments {
    fn run(self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        let text = self.text.join(" ");
        if let Some(source) = &self.registry {
            let sort = match &self.sort[..] {
                "downloads" => SortBy::Downloads,
                "name" => SortBy::Name,
                "size" => SortBy::Size,
                metric => SortBy::Metric(metric.to_owned()),
            };
            let registry = hub.registry(source)?;
            let query = Query {
                text,
                category: self.category,
                task: self.task,
                architecture: self.architecture,
                license: self.license,
                sort,
                limit: Some(self.limit),
                all_versions: false,
            };
            let found = registry.search(&query);
            let rows = found.iter().map(|model| {
                vec![
                    model.name.clone(),
                    model.version.to_string(),
                    model.task.clone(),
                    model.license.clone(),
                    HumanBytes(model.bytes()).to_string(),
                    model.downloads.to_string(),
                    excerpt(&model.description),
                ]
            });
            let rows = rows.collect();
            let objects: Result<Vec<_>, _> = found.iter().map(serde_json::to_value).collect();
            let head = [
                "MODEL",
                "VERSION",
                "TASK",
                "LICENSE",
                "SIZE",
                "DOWNLOADS",
                "DESCRIPTION",
            ];
            return out.rows(&head, rows, &objects?);
        }
        let sort = match &self.sort[..] {
            "downloads" => Sort::Downloads,
            "likes" => Sort::Likes,
            "modified" => Sort::Modified,
            "created" => Sort::Created,
            "trending" => Sort::Trending,
            other => {
                let orders = "downloads, likes, modified, created or trending";
                return Err(format!("--sort {other}: the hub sorts by {orders}").into());
            }
        };
        let search = Search {
            text,
            task: self.task,
            library: self.library,
            author: self.author,
            sort,
            limit: self.limit,
        };
        let found = hub.search(&search)?;
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let rows = found.iter().map(|model| {
            vec![
                model.id.clone(),
                or_none(&model.task),
                or_none(&model.library),
                model.downloads.to_string(),
                model.likes.to_string(),
                or_none(&model.modified).chars().take(10).collect(),
            ]
        });
        let rows = rows.collect();
        let objects: Result<Vec<_>, _> = found.iter().map(serde_json::to_value).collect();
        let head = ["MODEL", "TASK", "LIBRARY", "DOWNLOADS", "LIKES", "MODIFIED"];
        out.rows(&head, rows, &objects?)
    }
}

impl Verify {
    fn run(&self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        let mut damaged = 0;
        let (mut rows, mut objects) = (Vec::new(), Vec::new());
        for model in &self.models {
            if Path::new(model).is_dir() {
                if self.key.is_empty() {
                    return Err(
                        format!("{model}: say with --key whose signature it is to have").into(),
                    );
                }
                verify_signature(Path::new(model), &self.key)?;
                let files = "SHA256SUMS".to_owned();
                rows.push(vec![
                    model.clone(),
                    files,
                    "-".to_owned(),
                    "signed".to_owned(),
                ]);
                objects.push(json!({"path": model, "state": "signed"}));
                continue;
            }
            let verified = if self.repair {
                hub.repair(model)?
            } else {
                hub.verify(model)?
            };
            for file in verified {
                let state = match file.state {
                    FileState::Good => "good",
                    FileState::Unknown => "unknown",
                    FileState::Missing if self.repair => "was missing",
                    FileState::Damaged if self.repair => "was damaged",
                    FileState::Missing => "missing",
                    _ => "damaged",
                };
                let is_damaged = matches!(file.state, FileState::Missing | FileState::Damaged);
                damaged += usize::from(is_damaged && !self.repair);
                let bytes = HumanBytes(file.bytes).to_string();
                rows.push(vec![
                    model.clone(),
                    file.file.clone(),
                    bytes,
                    state.to_owned(),
                ]);
                let mut object = serde_json::to_value(&file)?;
                object["id"] = json!(model);
                object["repaired"] = json!(is_damaged && self.repair);
                objects.push(object);
            }
        }
        out.rows(&["MODEL", "FILE", "SIZE", "STATE"], rows, &objects)?;
        if damaged > 0 {
            return Err(format!(
                "{damaged} files are damaged or missing; --repair fetches them again"
            )
            .into());
        }
        Ok(())
    }
}

fn remove(hub: &hub::Hub, ids: &[String], out: &mut Output<'_>) -> Result<(), Failure> {
    for id in ids {
        let bytes = hub.remove(id)?;
        let object = json!({"id": id, "bytes": bytes});
        out.line(&format!("{id}: {} freed", HumanBytes(bytes)), &object)?;
    }
    Ok(())
}

impl Gc {
    fn run(&self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        let garbage = hub.garbage(self.detached)?;
        let rows = garbage.iter().map(|garbage| {
            let reason = match garbage.reason {
                GarbageReason::Unreferenced => "no snapshot links to it",
                GarbageReason::Incomplete => "interrupted",
                GarbageReason::Detached => "no branch or tag is it any more",
                _ => "a link without content",
            };
            let path = garbage
                .path
                .strip_prefix(&hub.cache)
                .unwrap_or(&garbage.path);
            vec![
                HumanBytes(garbage.bytes).to_string(),
                reason.to_owned(),
                path.display().to_string(),
            ]
        });
        let rows = rows.collect();
        let objects: Result<Vec<_>, _> = garbage.iter().map(serde_json::to_value).collect();
        out.rows(&["SIZE", "WHY", "WHAT"], rows, &objects?)?;
        if garbage.is_empty() {
            return Ok(());
        }
        let total = HumanBytes(garbage.iter().map(|garbage| garbage.bytes).sum());
        let question = format!("Remove these, and free {total}?");
        if !self.yes && !ask(&question) {
            remark(&format!("{total} would be freed; --yes removes"));
            return Ok(());
        }
        let freed = hub.gc(self.detached)?;
        let text = format!("{} freed", HumanBytes(freed));
        out.line(&text, &json!({"freed": freed}))
    }
}

/// Asks a person, if there is one.
fn ask(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    remark(&format!("{question} [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && ["y", "yes"].contains(&&*answer.trim().to_lowercase())
}

impl Trust {
    fn run(self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        let torch = TorchHub::from_env()?;
        let Some(name) = self.name else {
            let mut rows = Vec::new();
            let mut objects = Vec::new();
            for listed in torch.trusted()? {
                objects.push(json!({"repository": listed}));
                rows.push(vec![listed, "code on GitHub".to_owned()]);
            }
            for (name, key) in &hub.keys {
                objects.push(json!({"owner": name, "key": key.to_string()}));
                rows.push(vec![name.clone(), key.to_string()]);
            }
            return out.rows(&["WHO", "FOR WHAT"], rows, &objects);
        };
        let object = json!({"name": name, "trusted": !self.remove});
        match (self.key, self.remove) {
            (Some(key), _) => {
                let path = hub::set_key(&name, Some(key))?;
                let said = format!(
                    "{name}: models must be signed with {key} ({})",
                    path.display()
                );
                out.line(&said, &object)
            }
            (None, true) => {
                let was_pinned = hub.keys.iter().any(|(pinned, _)| *pinned == name);
                if was_pinned {
                    hub::set_key(&name, None)?;
                }
                let was_trusted = name.contains('/') && torch.distrust(&name)?;
                if !was_pinned && !was_trusted {
                    return Err(format!("{name} is not trusted").into());
                }
                out.line(&format!("{name}: no longer trusted"), &object)
            }
            (None, false) => {
                torch.trust(&name)?;
                out.line(&format!("{name}: trusted"), &object)
            }
        }
    }
}

impl Lock {
    fn run(&self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        for id in &self.ids {
            let locked = hub.lock(id, &self.file)?;
            let said = format!("{id}: {} with {} files", locked.commit, locked.files.len());
            out.line(&said, &serde_json::to_value(&locked)?)?;
        }
        Ok(())
    }
}

impl Sign {
    fn run(&self, out: &mut Output<'_>) -> Result<(), Failure> {
        let key = if self.new {
            SecretKey::generate(&self.key)?
        } else {
            SecretKey::read(&self.key)?
        };
        let files = key.sign(&self.directory)?;
        let public = key.public();
        let said = format!("{files} files signed; the public key is {public}");
        out.line(&said, &json!({"files": files, "key": public.to_string()}))
    }
}

impl Entries {
    fn run(self, hub: &hub::Hub, out: &mut Output<'_>) -> Result<(), Failure> {
        let mut torch = TorchHub::from_env()?;
        torch.offline |= hub.offline;
        torch.progress = hub.progress.clone();
        torch.question = Question::new(|repository| {
            ask(&format!(
                "{repository} is not on the list of trusted repositories. Trust it?"
            ))
        });
        let source = if Path::new(&self.repository).is_dir() {
            Source::Local
        } else {
            Source::Github
        };
        let options = Options {
            source,
            trust_repo: match self.trust {
                TrustArgument::Check => TrustRepo::Check,
                TrustArgument::Yes => TrustRepo::Yes,
                TrustArgument::Ask => TrustRepo::Ask,
            },
            force_reload: self.force_reload,
            skip_validation: self.skip_validation,
            verbose: false,
        };
        let repository = &self.repository;
        match &self.entry {
            None => {
                for entry in torch.list(repository, &options)? {
                    out.line(&entry, &json!({"entry": entry}))?;
                }
                Ok(())
            }
            Some(entry) if self.load => {
                let mut arguments = std::collections::BTreeMap::new();
                for argument in &self.argument {
                    let (name, value) = argument
                        .split_once('=')
                        .ok_or_else(|| format!("--argument {argument}: write NAME=VALUE"))?;
                    let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                    arguments.insert(name.to_owned(), value);
                }
                let loaded = torch.load(repository, entry, &arguments, &options)?;
                let said = loaded.path.display().to_string();
                if let Some(preset) = &loaded.preset {
                    remark(&format!("open it with --architecture {preset}"));
                }
                out.line(&said, &serde_json::to_value(&loaded)?)
            }
            Some(entry) => {
                let help = torch.help(repository, entry, &options)?;
                out.line(&help, &json!({"entry": entry, "documentation": help}))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::age;

    #[test]
    fn an_age_is_in_the_largest_unit() {
        for (seconds, text) in [
            (5, "now"),
            (61, "1 minute ago"),
            (7300, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
            (86_400 * 800, "2 years ago"),
        ] {
            assert_eq!(age(SystemTime::now() - Duration::from_secs(seconds)), text);
        }
    }
}
