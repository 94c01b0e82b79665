//! The environment variables of Python's `huggingface_hub`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Error, Hub};

/// The settings that `variables` and the home directory give.
pub(crate) fn hub(
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Result<Hub, Error> {
    // As in Python, an empty variable is one that is not set.
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let path = |name: &str| variable(name).map(|value| expand(&value, home.as_deref()));
    let text = |name: &str| {
        variable(name)
            .map(|value| value.to_string_lossy().trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    let is_on = |name: &str| {
        text(name).is_some_and(|value| {
            matches!(
                value.to_ascii_uppercase().as_str(),
                "1" | "ON" | "YES" | "TRUE"
            )
        })
    };

    let hf_home = path("HF_HOME")
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(home.as_ref()?.join(".cache").join("huggingface")));
    let cache = path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(hf_home.as_ref()?.join("hub")))
        .ok_or(Error::NoCache)?;

    let mut hub = Hub::new(cache);
    if let Some(endpoint) = text("HF_ENDPOINT") {
        hub.endpoint = endpoint;
    }
    hub.offline = is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE");
    if !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        hub.token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| {
                let file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")))?;
                // A token that cannot be read is no failure: most models need none.
                let token = std::fs::read_to_string(file).ok()?;
                Some(token.trim().to_owned()).filter(|token| !token.is_empty())
            });
    }
    Ok(hub)
}

fn expand(value: &OsString, home: Option<&Path>) -> PathBuf {
    let path = Path::new(value);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::{Error, Hub};

    fn hub(variables: &[(&str, &str)]) -> Result<Hub, Error> {
        let get = |name: &str| {
            let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
            Some((*value).into())
        };
        super::hub(get, Some(PathBuf::from("/home/u")))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |variables: &[(&str, &str)]| hub(variables).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]),
            Path::new("/home/u/hf/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]),
            Path::new("/c")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "")]),
            Path::new("/hf/hub")
        );
    }

    #[test]
    fn without_a_home_the_cache_must_be_named() {
        let error = super::hub(|_| None, None).unwrap_err();
        assert!(matches!(error, Error::NoCache), "{error}");
    }

    #[test]
    fn endpoint_and_offline_are_read() {
        let plain = hub(&[]).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert!(!plain.offline);
        let set = hub(&[("HF_ENDPOINT", "http://h/"), ("HF_HUB_OFFLINE", "yes")]).unwrap();
        assert_eq!(set.endpoint, "http://h/");
        assert!(set.offline);
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
    }

    #[test]
    fn the_token_is_the_variables_or_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_str().unwrap();
        std::fs::write(directory.path().join("token"), "from-file\n").unwrap();
        let token = |variables: &[(&str, &str)]| hub(variables).unwrap().token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("from-file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", " from-variable\n")]).as_deref(),
            Some("from-variable")
        );
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
    }
}
