use crate::Error;

/// `owner/name@revision`, checked, so that its parts can be put into addresses and paths.
#[derive(Debug, Clone)]
pub(crate) struct ModelId {
    /// As it was written.
    pub(crate) text: String,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) revision: String,
}

impl ModelId {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidId {
            id: text.to_owned(),
            reason,
        };
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, revision),
            None => (text, "main"),
        };
        let (owner, name) = repository
            .split_once('/')
            .ok_or_else(|| invalid("there is no owner"))?;
        for word in [owner, name] {
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
            text: text.to_owned(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
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
        let id = ModelId::parse("google-bert/bert-base-uncased").unwrap();
        assert_eq!(
            (&*id.owner, &*id.name, &*id.revision),
            ("google-bert", "bert-base-uncased", "main")
        );
        for revision in ["v1.0", "refs/pr/7", "feature/x"] {
            let id = ModelId::parse(&format!("o/n@{revision}")).unwrap();
            assert_eq!(id.revision, revision);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "name",
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
            let error = ModelId::parse(text).unwrap_err().to_string();
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
