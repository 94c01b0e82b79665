//! Repositories of code on GitHub, in the layout that `torch.hub` keeps them in.

use std::fs;
use std::path::PathBuf;

use reqwest::Url;
use reqwest::header::{self, HeaderValue};
use serde::Deserialize;
use tracing::{info, warn};

use super::{Repository, TorchHub, TrustRepo, archive};
use crate::Error;
use crate::download::{Wanted, download};
use crate::files::{self, Lock};
use crate::http::{Client, Fault, Request, on_own_thread};
use crate::progress::{Event, Wait};

/// Owners whose repositories are trusted without asking, as in torch 2.15.
const TRUSTED_OWNERS: [&str; 4] = [
    "facebookresearch",
    "facebookincubator",
    "pytorch",
    "fairinternal",
];

/// More pages than any repository has branches or tags.
const MOST_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Ref {
    name: String,
    commit: Commit,
}

#[derive(Deserialize)]
struct Commit {
    sha: String,
}

/// `owner/repo[:ref]`
pub(super) struct Github {
    text: String,
    owner: String,
    repo: String,
    reference: Option<String>,
}

impl Github {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Refused {
            option: format!("the repository `{text}`"),
            reason: format!("{reason}; write `owner/repo` or `owner/repo:ref`"),
        };
        let (path, reference) = match text.split_once(':') {
            Some((path, reference)) => (path, Some(reference)),
            None => (text, None),
        };
        let (owner, repo) = path
            .split_once('/')
            .ok_or_else(|| refuse("there is no owner"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_word =
            |word: &str| !word.is_empty() && !word.starts_with('.') && word.chars().all(plain);
        if !is_word(owner) || !is_word(repo) {
            return Err(refuse(
                "owner and repo have letters, digits, `-`, `_` and `.` only",
            ));
        }
        let is_ref = |reference: &str| {
            let forbidden =
                |c: char| c.is_whitespace() || c.is_control() || "\\:*?\"<>|~^[".contains(c);
            !reference.contains(forbidden) && files::is_plain(reference)
        };
        if reference.is_some_and(|reference| !is_ref(reference)) {
            return Err(refuse("the ref is no branch, tag or commit"));
        }
        Ok(Self {
            text: text.to_owned(),
            owner: owner.to_owned(),
            repo: repo.to_owned(),
            reference: reference.map(str::to_owned),
        })
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.owner, self.repo)
    }

    /// As in the trusted list.
    fn listed(&self) -> String {
        format!("{}_{}", self.owner, self.repo)
    }

    /// The directory of a ref: `/` in a branch's name would be another one.
    fn directory(&self, reference: &str) -> String {
        format!("{}_{}", self.listed(), reference.replace('/', "_"))
    }
}

impl TorchHub {
    /// The repository's directory, fetched if it is not there.
    pub(super) fn repository(
        &self,
        github: &Github,
        trust: TrustRepo,
        force_reload: bool,
        skip_validation: bool,
    ) -> Result<Repository, Error> {
        let id = &github.text;
        let directory = &self.directory;
        fs::create_dir_all(directory).map_err(Error::io(id, directory))?;
        if self.offline {
            let reference = self.cached_reference(github)?;
            let path = directory.join(github.directory(&reference));
            self.check_trust(github, &reference, trust)?;
            if !path.is_dir() {
                return Err(self.not_cached(id));
            }
            return Ok(self.repository_at(github, path));
        }
        on_own_thread(|| {
            let client = Client::new(self.settings()).map_err(|fault| self.error(id, fault))?;
            let reference = match &github.reference {
                Some(reference) => reference.clone(),
                None => self.default_branch(&client, github)?,
            };
            self.check_trust(github, &reference, trust)?;
            let path = directory.join(github.directory(&reference));
            if path.is_dir() && !force_reload {
                return Ok(self.repository_at(github, path));
            }
            if !skip_validation {
                self.validate(&client, github, &reference)?;
            }
            self.unpack(&client, github, &reference, &path, force_reload)?;
            Ok(self.repository_at(github, path))
        })
    }

    fn repository_at(&self, github: &Github, path: PathBuf) -> Repository {
        Repository {
            id: github.text.clone(),
            name: Some(github.name()),
            path,
        }
    }

    fn not_cached(&self, id: &str) -> Error {
        Error::NotCached {
            id: id.to_owned(),
            cache: self.directory.clone(),
        }
    }

    /// The ref, or the default branch by what is in the cache.
    fn cached_reference(&self, github: &Github) -> Result<String, Error> {
        if let Some(reference) = &github.reference {
            return Ok(reference.clone());
        }
        let is_there = |reference: &&str| self.directory.join(github.directory(reference)).is_dir();
        let reference = ["main", "master"].into_iter().find(is_there);
        let not_cached = || self.not_cached(&github.text);
        reference.map(str::to_owned).ok_or_else(not_cached)
    }

    /// `main` if the repository has it, else `master`.
    fn default_branch(&self, client: &Client, github: &Github) -> Result<String, Error> {
        let url = self.url(
            &self.github,
            [&*github.owner, &github.repo, "tree", "main", ""],
        )?;
        match client.get(&github.text, &Request::new(url)) {
            Ok(_) => Ok("main".to_owned()),
            Err(Fault::Status(status)) if status.status == 404 => Ok("master".to_owned()),
            Err(fault) => {
                let is_unreachable = matches!(fault, Fault::Transport(_));
                match self.cached_reference(github) {
                    Ok(reference) if is_unreachable => Ok(reference),
                    _ => Err(self.error(&github.text, fault)),
                }
            }
        }
    }

    /// Whether the ref is the repository's own: GitHub also gives commits of its forks.
    fn validate(&self, client: &Client, github: &Github, reference: &str) -> Result<(), Error> {
        let mut token = match &self.token {
            Some(token) => HeaderValue::from_str(&format!("token {token}")).ok(),
            None => None,
        };
        for kind in ["branches", "tags"] {
            for page in 1..MOST_PAGES {
                let parts = ["repos", &github.owner, &github.repo, kind];
                let mut url = self.url(&self.github_api, parts)?;
                url.set_query(Some(&format!("per_page=100&page={page}")));
                let request = |token: Option<&HeaderValue>| {
                    Request::new(url.clone())
                        .with(header::ACCEPT, "application/vnd.github.v3+json")
                        .authorized(token)
                };
                let mut answer = client.get(&github.text, &request(token.as_ref()));
                // The token may not be for this repository.
                if let (Err(Fault::Status(status)), true) = (&answer, token.is_some())
                    && matches!(status.status, 401 | 403 | 404)
                {
                    token = None;
                    answer = client.get(&github.text, &request(None));
                }
                let refs = answer.and_then(|answer| answer.json::<Vec<Ref>>());
                let refs = refs.map_err(|fault| self.error(&github.text, fault))?;
                if refs.is_empty() {
                    break;
                }
                let is_it = |r: &Ref| r.name == reference || r.commit.sha.starts_with(reference);
                if refs.iter().any(is_it) {
                    return Ok(());
                }
            }
        }
        Err(Error::Refused {
            option: format!("the ref `{reference}`"),
            reason: format!(
                "{} has no such branch or tag; a commit of a fork is loaded from the fork, and one that is no branch's last with `skip_validation`",
                github.name()
            ),
        })
    }

    fn unpack(
        &self,
        client: &Client,
        github: &Github,
        reference: &str,
        path: &std::path::Path,
        force_reload: bool,
    ) -> Result<(), Error> {
        let id = &github.text;
        let lock = self.lock_path(&github.directory(reference));
        let waiting = || {
            self.progress.tell(Event::Waiting {
                file: id,
                wait: Wait::OtherProcess,
            });
        };
        let held = Lock::acquire(&lock, &self.cancel, waiting).map_err(Error::io(id, &lock))?;
        let _held = held.ok_or_else(|| Error::Cancelled { id: id.clone() })?;
        // Another process has fetched it while this one waited.
        if path.is_dir() && !force_reload {
            return Ok(());
        }
        let io = || Error::io(id, &self.directory);
        let temporary = tempfile::Builder::new()
            .prefix(".tmp-")
            .tempdir_in(&self.directory)
            .map_err(io())?;
        let zip = temporary.path().join("archive.zip");
        let archive_of = |reference: &str| {
            let parts = [&*github.owner, &*github.repo, "zipball"];
            let url = self.url(&self.github, parts.into_iter().chain(reference.split('/')))?;
            info!(%url, "fetching");
            Ok::<_, Error>(Wanted {
                name: id,
                url,
                authorization: None,
                size: None,
                digest: None,
            })
        };
        let mut fetched = download(client, &archive_of(reference)?, &zip);
        if let Err(Fault::Status(status)) = &fetched
            && status.status == 300
        {
            warn!(reference, "both a branch and a tag; the branch is taken");
            let branch = format!("refs/heads/{reference}");
            fetched = download(client, &archive_of(&branch)?, &zip);
        }
        fetched.map_err(|fault| self.error(id, fault))?;
        let unpacked = temporary.path().join("unpacked");
        let unpacked = archive::unpack(id, &zip, &unpacked, &self.cancel)?;
        if path.exists() {
            let old = temporary.path().join("old");
            fs::rename(path, old).map_err(Error::io(id, path))?;
        }
        fs::rename(&unpacked, path).map_err(Error::io(id, path))?;
        self.progress.tell(Event::Finished { file: id });
        Ok(())
    }

    /// Whether the repository may be used, asking where it is not known; one that is trusted gets into the list.
    fn check_trust(&self, github: &Github, reference: &str, trust: TrustRepo) -> Result<(), Error> {
        let is_trusted = self.trusted()?.contains(&github.listed())
            || TRUSTED_OWNERS.contains(&&*github.owner)
            // What was fetched before there was a list.
            || self.directory.join(github.directory(reference)).is_dir();
        let asks = match trust {
            TrustRepo::Yes => false,
            TrustRepo::Check => !is_trusted,
            TrustRepo::Ask => true,
        };
        if asks {
            let is_granted = self.question.ask(&github.name());
            if !is_granted {
                return Err(Error::UntrustedRepository { id: github.name() });
            }
        }
        if !is_trusted {
            self.trust(&github.name())?;
        }
        Ok(())
    }

    /// The trusted list: `owner_repo` a line.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn trusted(&self) -> Result<Vec<String>, Error> {
        let path = self.directory.join("trusted_list");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => {
                let text = other.map_err(Error::io("the trusted list", &path))?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                Ok(lines.map(str::to_owned).collect())
            }
        }
    }

    /// Adds `owner/repo` to the trusted list.
    ///
    /// # Errors
    /// It is no repository, or the list cannot be written.
    pub fn trust(&self, repository: &str) -> Result<(), Error> {
        let listed = Github::parse(repository)?.listed();
        let mut trusted = self.trusted()?;
        if !trusted.contains(&listed) {
            trusted.push(listed);
        }
        self.write_trusted(&trusted)
    }

    /// Takes `owner/repo` off the trusted list; whether it was on it.
    ///
    /// # Errors
    /// It is no repository, or the list cannot be written.
    pub fn distrust(&self, repository: &str) -> Result<bool, Error> {
        let listed = Github::parse(repository)?.listed();
        let mut trusted = self.trusted()?;
        let before = trusted.len();
        trusted.retain(|other| *other != listed);
        self.write_trusted(&trusted)?;
        Ok(trusted.len() < before)
    }

    fn write_trusted(&self, trusted: &[String]) -> Result<(), Error> {
        let path = self.directory.join("trusted_list");
        let lines: String = trusted.iter().map(|line| format!("{line}\n")).collect();
        files::write(&path, lines.as_bytes()).map_err(Error::io("the trusted list", &path))
    }

    fn url<'p>(&self, base: &str, parts: impl IntoIterator<Item = &'p str>) -> Result<Url, Error> {
        let refuse = || Error::Refused {
            option: format!("the address `{base}`"),
            reason: "it is none; give one such as https://github.com".to_owned(),
        };
        let mut url: Url = base.parse().map_err(|_| refuse())?;
        url.path_segments_mut()
            .map_err(|()| refuse())?
            .pop_if_empty()
            .extend(parts);
        Ok(url)
    }
}
