//! The environment variables of Python's `huggingface_hub`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::signature::parse_keys;
use crate::{Error, Hub};

/// The variables, and the home directory.
struct Environment<V> {
    variable: V,
    home: Option<PathBuf>,
}

impl<V: Fn(&str) -> Option<OsString>> Environment<V> {
    fn value(&self, name: &str) -> Option<OsString> {
        // As in Python, an empty variable is one that is not set.
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name)
            .map(|value| expand(&value, self.home.as_deref()))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)
            .map(|value| value.to_string_lossy().trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn is_on(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| {
            matches!(
                value.to_ascii_uppercase().as_str(),
                "1" | "ON" | "YES" | "TRUE"
            )
        })
    }

    fn hf_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME")
            .or_else(|| Some(self.path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(self.home.as_ref()?.join(".cache").join("huggingface")))
    }

    fn keys_file(&self) -> Option<PathBuf> {
        self.path("SALAMANDER_KEYS")
            .or_else(|| Some(self.hf_home()?.join("trusted_keys")))
    }
}

/// The file with the pinned keys.
pub(crate) fn keys_file(
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    Environment { variable, home }.keys_file()
}

/// The settings that `variable` and the home directory give.
pub(crate) fn hub(
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Result<Hub, Error> {
    let environment = Environment { variable, home };
    let path = |name: &str| environment.path(name);
    let text = |name: &str| environment.text(name);
    let is_on = |name: &str| environment.is_on(name);

    let hf_home = environment.hf_home();
    let cache = path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(hf_home.as_ref()?.join("hub")))
        .ok_or(Error::NoCache)?;

    let mut hub = Hub::new(cache);
    let seconds = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok());
    if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
        hub.timeout = Duration::from_secs(seconds);
    }
    hub.lock_file = path("SALAMANDER_LOCK");
    hub.audit = path("SALAMANDER_AUDIT");
    if let Some(keys) = environment.keys_file() {
        match std::fs::read_to_string(&keys) {
            Ok(text) => hub.keys = parse_keys(&keys, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Not to know the keys is not to verify.
            Err(error) => return Err(Error::io("the pinned keys", &keys)(error)),
        }
    }
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
