use crate::Error;

/// Where the public hub's pages are.
const HUB_HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// `owner/name@revision`, checked, so that its parts can be put into addresses and paths.
#[derive(Debug, Clone)]
pub(crate) struct ModelId {
    /// As it was written, or as the pasted address of a page says it.
    pub(crate) text: String,
    /// The hub's oldest models, such as `gpt2`, have none; the hub redirects to whom they belong now.
    pub(crate) owner: Option<String>,
    pub(crate) name: String,
    pub(crate) revision: String,
}

impl ModelId {
    /// Reads an id, or the address of a model's page at the public hub or at `endpoint`.
    pub(crate) fn parse(text: &str, endpoint: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidId {
            id: text.to_owned(),
            reason,
        };
        let id = match page_path(text, endpoint) {
            Some(path) => id_of_page(path).map_err(invalid)?,
            None if text.contains("://") => {
                return Err(invalid("the address is not one of the hub's"));
            }
            None => text.to_owned(),
        };
        let (repository, revision) = match id.split_once('@') {
            Some((repository, revision)) => (repository, revision),
            None => (&*id, "main"),
        };
        let (owner, name) = match repository.split_once('/') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, repository),
        };
        for word in owner.into_iter().chain([name]) {
            if let Some(reason) = word_fault(word) {
                return Err(invalid(reason));
            }
        }
        // The hub's own limit.
        if repository.len() > 96 {
            return Err(invalid("it has more than 96 characters"));
        }
        if let Some(reason) = revision_fault(revision) {
            return Err(invalid(reason));
        }
        Ok(Self {
            owner: owner.map(str::to_owned),
            name: name.to_owned(),
            revision: revision.to_owned(),
            text: id,
        })
    }

    /// `owner/name`, or `name` where there is no owner.
    pub(crate) fn repository(&self) -> String {
        self.segments().collect::<Vec<_>>().join("/")
    }

    /// The parts of [`repository`](Self::repository).
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.owner.as_deref().into_iter().chain([&*self.name])
    }

    /// The same revision under the id by which the hub answers, `owner/name`; unchanged if that is no id.
    pub(crate) fn renamed(&self, repository: &str) -> Self {
        let renamed = Self::parse(repository, "");
        renamed.map_or_else(
            |_| self.clone(),
            |renamed| Self {
                text: self.text.clone(),
                revision: self.revision.clone(),
                ..renamed
            },
        )
    }
}

/// The path of a page at the hub, without query and fragment.
fn page_path<'a>(text: &'a str, endpoint: &str) -> Option<&'a str> {
    let path = |rest: &'a str| {
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        rest[..end].trim_matches('/')
    };
    if let Some(rest) = text.strip_prefix("hf://") {
        return Some(path(rest));
    }
    let endpoint = endpoint.trim_end_matches('/');
    if !endpoint.is_empty()
        && let Some(rest) = text.strip_prefix(endpoint)
        && rest.starts_with('/')
    {
        return Some(path(rest));
    }
    let bare = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let (host, rest) = bare.split_once('/')?;
    let is_hub = HUB_HOSTS.iter().any(|hub| hub.eq_ignore_ascii_case(host));
    is_hub.then(|| path(rest))
}

/// The id that a page such as `owner/name/tree/v1` is about.
fn id_of_page(path: &str) -> Result<String, &'static str> {
    // Revisions with a `/` are escaped in addresses.
    let path = path.replace("%2F", "/").replace("%2f", "/");
    let path = path.strip_prefix("models/").unwrap_or(&path);
    let words: Vec<&str> = path.split('/').collect();
    match *words {
        [
            "datasets" | "spaces" | "collections" | "papers" | "docs" | "blog",
            ..,
        ] => Err("the address is not that of a model"),
        [] | [""] => Err("the address names no model"),
        [_, _, "resolve" | "blob" | "raw", _, _, ..] => Err(
            "the address is that of one file; give the model's, or fetch the file with `salamander hub download \
             owner/name --include FILE`",
        ),
        [
            owner,
            name,
            "tree" | "commit" | "commits",
            ref revision @ ..,
        ] if !revision.is_empty() => {
            // A revision and a folder cannot be told apart, and pull requests are revisions with a `/`.
            Ok(format!("{owner}/{name}@{}", revision.join("/")))
        }
        [owner, name, "discussions" | "tree" | "blob" | "commits", ..] | [owner, name] => Ok(
            format!("{owner}/{}", name.strip_suffix(".git").unwrap_or(name)),
        ),
        [name] => Ok(name.to_owned()),
        _ => Err("the address is not that of a model"),
    }
}

fn word_fault(word: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if word.is_empty() {
        Some("the owner or the name is empty")
    } else if !word.chars().all(plain) {
        Some("owner and name have letters, digits, `-`, `_` and `.` only")
    } else if word.starts_with(['-', '.']) || word.ends_with(['-', '.']) {
        Some("owner and name do not begin or end with `-` or `.`")
    } else if word.contains("..") || word.contains("--") {
        // `--` is what separates the parts of a directory's name in the cache.
        Some("owner and name do not have `--` or `..`")
    } else {
        None
    }
}

fn revision_fault(revision: &str) -> Option<&'static str> {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.');
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\\:*?\"<>|~^[".contains(c);
    if revision.is_empty() {
        Some("there is nothing after `@`")
    } else if revision.contains(forbidden) {
        Some("the revision has characters that no branch or tag has")
    } else if !revision.split('/').all(part) || revision.contains("..") {
        Some("the revision is no branch, tag or commit")
    } else {
        None
    }
}

/// Whether a revision is a commit, which never names other files than it did before.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40
        && revision
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::{ModelId, is_commit};

    #[test]
    fn an_id_has_owner_name_and_revision() {
        let id = ModelId::parse("google-bert/bert-base-uncased", "").unwrap();
        assert_eq!(
            (id.owner.as_deref(), &*id.name, &*id.revision),
            (Some("google-bert"), "bert-base-uncased", "main")
        );
        for revision in ["v1.0", "refs/pr/7", "feature/x"] {
            let id = ModelId::parse(&format!("o/n@{revision}"), "").unwrap();
            assert_eq!(id.revision, revision);
        }
    }

    #[test]
    fn the_oldest_models_have_no_owner() {
        let id = ModelId::parse("gpt2@v1", "").unwrap();
        assert_eq!((id.owner.as_deref(), &*id.repository()), (None, "gpt2"));
        let renamed = id.renamed("openai-community/gpt2");
        assert_eq!(renamed.repository(), "openai-community/gpt2");
        assert_eq!((&*renamed.text, &*renamed.revision), ("gpt2@v1", "v1"));
        assert_eq!(id.renamed("../up").repository(), "gpt2");
    }

    #[test]
    fn an_address_of_the_hub_names_its_model() {
        for (address, expected) in [
            ("https://huggingface.co/o/n", "o/n"),
            ("http://www.huggingface.co/o/n/", "o/n"),
            ("huggingface.co/o/n?library=transformers", "o/n"),
            ("https://hf.co/o/n#usage", "o/n"),
            ("https://HuggingFace.co/o/n.git", "o/n"),
            ("hf://o/n@v1", "o/n@v1"),
            ("https://huggingface.co/gpt2", "gpt2"),
            ("https://huggingface.co/o/n/tree/main", "o/n@main"),
            (
                "https://huggingface.co/o/n/tree/refs%2Fpr%2F3",
                "o/n@refs/pr/3",
            ),
            ("https://huggingface.co/o/n/discussions/4", "o/n"),
            ("http://localhost:80/hub/o/n", "o/n"),
        ] {
            let id = ModelId::parse(address, "http://localhost:80/hub/").unwrap();
            assert_eq!(id.text, expected, "{address}");
        }
        for (address, said) in [
            ("https://example.org/o/n", "not one of the hub's"),
            ("https://huggingface.co/datasets/o/n", "not that of a model"),
            ("https://huggingface.co/", "names no model"),
            (
                "https://huggingface.co/o/n/blob/main/model.gguf",
                "--include",
            ),
            ("https://huggingface.co/o/n/tree/..", "revision"),
        ] {
            let error = ModelId::parse(address, "").unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "/name",
            "owner/",
            "a/b/c",
            "../up",
            "o/..",
            "o/.hidden",
            "o/a..b",
            "o/a--b",
            "o/na me",
            "o/n@",
            "o/n@../../x",
            "o/n@a//b",
            "o/n@/etc",
            "o/n@a\\b",
            "o/n@C:x",
            "C:\\models\\x",
        ] {
            let error = ModelId::parse(text, "").unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains("owner/name"),
                "{error}"
            );
        }
    }

    #[test]
    fn commits_are_40_hexadecimal_digits() {
        assert!(is_commit(&"0123456789".repeat(4)));
        assert!(!is_commit("main"));
        assert!(!is_commit(&"A".repeat(40)));
    }
}
