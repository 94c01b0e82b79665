//! Requests: answers of a bounded length, asked for again where that may help, and ended when cancelled.

use std::fmt;
use std::future::Future;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tracing::debug;

use crate::progress::{Cancel, Event, Progress, Wait};

/// How long to wait for a connection, as in Python.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often something is asked for that brings nothing, and how long to wait before the second time; then twice as
/// long each time.
const ATTEMPTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// How soon a cancellation is seen.
const TICK: Duration = Duration::from_millis(100);
/// The longest answer that is held in memory.
const LONGEST_ANSWER: u64 = 64 << 20;
/// How many redirects are followed.
const MOST_REDIRECTS: usize = 10;
/// How much is read of an answer that tells a failure.
const LONGEST_MESSAGE: u64 = 4 << 10;

/// How requests are made.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long a connection may be silent.
    pub(crate) timeout: Duration,
    /// How long to wait, at most, where the server says to come back later.
    pub(crate) patience: Duration,
    pub(crate) cancel: Cancel,
    pub(crate) progress: Progress,
}

/// What is wrong with a request, while it is not yet said what it was for.
#[derive(Debug)]
pub(crate) enum Fault {
    Cancelled,
    /// An answer that tells a failure.
    Status(Status),
    /// No answer, or one that breaks off.
    Transport(reqwest::Error),
    /// An answer with something else than what was asked for.
    Unexpected {
        url: String,
        reason: String,
    },
    WrongSize {
        expected: u64,
        actual: u64,
    },
    WrongHash {
        expected: String,
        actual: String,
    },
    Disk {
        path: PathBuf,
        source: io::Error,
    },
}

/// An answer that tells a failure.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) url: String,
    pub(crate) status: u16,
    /// The hub's own code, `X-Error-Code`.
    pub(crate) code: Option<String>,
    /// What it says, on one line.
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Status {
    /// Whether the server does not know the address, rather than what it is about: the hub says the latter by a code.
    pub(crate) fn is_unknown_address(&self) -> bool {
        self.code.is_none() && matches!(self.status, 400 | 404 | 405 | 410 | 422 | 501)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers {}", self.url, self.status)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Status {}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        Self::Transport(error)
    }
}

/// How to go on after attempts that brought nothing.
pub(crate) struct Attempts {
    made: u32,
    patience: Duration,
}

impl Attempts {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            made: 0,
            patience: settings.patience,
        }
    }

    /// Something came.
    pub(crate) fn reset(&mut self) {
        self.made = 0;
    }

    /// How long to wait before the next attempt, or the fault if there is to be none.
    pub(crate) fn after(&mut self, fault: Fault) -> Result<Duration, Fault> {
        let own = FIRST_DELAY * 2_u32.pow(self.made);
        let delay = match &fault {
            Fault::Transport(error) if error.is_builder() || error.is_redirect() => None,
            Fault::Transport(_) => Some(own),
            Fault::Status(status) => match status.status {
                408 | 429 | 500 | 502 | 503 | 504 => Some(status.retry_after.unwrap_or(own)),
                _ => None,
            },
            _ => None,
        };
        self.made += 1;
        match delay {
            Some(delay) if self.made < ATTEMPTS && delay <= self.patience => {
                debug!(?fault, ?delay, "trying again");
                Ok(delay)
            }
            _ => Err(fault),
        }
    }
}

/// A client for one thread.
pub(crate) struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    /// The same, but redirects are answers.
    unredirected: reqwest::Client,
    pub(crate) settings: Settings,
}

/// What to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
}

impl Request {
    pub(crate) fn new(url: Url) -> Self {
        // Lengths, ranges and sums are those of the content as it is stored.
        let identity = (
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        Self {
            url,
            headers: HeaderMap::from_iter([identity]),
        }
    }

    /// With the header `Authorization`, which a redirect to another host does not get.
    pub(crate) fn authorized(mut self, value: Option<&HeaderValue>) -> Self {
        if let Some(value) = value {
            self.headers.insert(header::AUTHORIZATION, value.clone());
        }
        self
    }

    pub(crate) fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Fault::Disk {
                path: PathBuf::from("the network"),
                source,
            })?;
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("salamander/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(settings.timeout)
        };
        let unredirected = builder().redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            runtime,
            http: builder().build()?,
            unredirected: unredirected.build()?,
            settings,
        })
    }

    /// Runs a conversation to its end.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The answer to one attempt, if it tells no failure.
    pub(crate) async fn attempt(&self, request: &Request) -> Result<Response, Fault> {
        let sent = self
            .http
            .get(request.url.clone())
            .headers(request.headers.clone())
            .send();
        let response = self.unless_cancelled(sent).await??;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(self.refusal(request, response).await)
    }

    /// What an answer says that tells a failure.
    async fn refusal(&self, request: &Request, mut response: Response) -> Fault {
        let status = response.status();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(one_line(&String::from_utf8_lossy(value.as_bytes())))
        };
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let retry_after = header("retry-after")
            .and_then(|value| retry_after(&value))
            .or_else(|| rate_limit_reset(header("ratelimit").as_deref()?));
        let message = match message {
            Some(message) => message,
            None => {
                let body = self.body(&mut response, LONGEST_MESSAGE).await.ok();
                let body = body.and_then(|body| decoded(response.headers(), body).ok());
                body.map_or_else(String::new, |body| message_of(&body))
            }
        };
        Fault::Status(Status {
            url: request.url.to_string(),
            status: status.as_u16(),
            code,
            message,
            retry_after,
        })
    }

    /// The answer, asked for again where that may help.
    pub(crate) fn get(&self, what: &str, request: &Request) -> Result<Answer, Fault> {
        self.again(what, async || {
            let mut response = self.attempt(request).await?;
            let unexpected = |reason| Fault::Unexpected {
                url: request.url.to_string(),
                reason,
            };
            let content = self.body(&mut response, LONGEST_ANSWER).await?;
            let content = decoded(response.headers(), content).map_err(unexpected)?;
            if content.len() as u64 >= LONGEST_ANSWER {
                return Err(unexpected(format!("more than {LONGEST_ANSWER} bytes")));
            }
            Ok(Answer {
                url: request.url.clone(),
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                content,
            })
        })
    }

    /// The headers that tell of a content, of the first of the answers to `HEAD` that `is_enough`, or the last one;
    /// redirects lead from one to the next.
    pub(crate) fn head(
        &self,
        what: &str,
        request: &Request,
        is_enough: impl Fn(&HeaderMap) -> bool,
    ) -> Result<HeaderMap, Fault> {
        self.again(what, async || {
            let mut request = request.clone();
            for _ in 0..MOST_REDIRECTS {
                let sent = self.unredirected.head(request.url.clone());
                let sent = sent.headers(request.headers.clone()).send();
                let response = self.unless_cancelled(sent).await??;
                let headers = response.headers();
                if is_enough(headers) || response.status().is_success() {
                    return Ok(headers.clone());
                }
                let next = headers
                    .get(header::LOCATION)
                    .filter(|_| response.status().is_redirection())
                    .and_then(|location| request.url.join(location.to_str().ok()?).ok());
                let Some(next) = next else {
                    return Err(self.refusal(&request, response).await);
                };
                if next.origin() != request.url.origin() {
                    request.headers.remove(header::AUTHORIZATION);
                }
                request.url = next;
            }
            Err(Fault::Unexpected {
                url: request.url.to_string(),
                reason: "redirects without an end".to_owned(),
            })
        })
    }

    /// What attempts come to, which are made again where that may help.
    fn again<T>(
        &self,
        what: &str,
        attempt: impl AsyncFn() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut attempts = Attempts::new(&self.settings);
        loop {
            match self.block_on(attempt()) {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    let delay = attempts.after(fault)?;
                    self.block_on(self.wait(what, delay))?;
                }
            }
        }
    }

    /// Waits before another attempt.
    pub(crate) async fn wait(&self, what: &str, delay: Duration) -> Result<(), Fault> {
        self.settings.progress.tell(Event::Waiting {
            file: what,
            wait: Wait::Retry(delay),
        });
        self.unless_cancelled(tokio::time::sleep(delay)).await
    }

    /// What the future gives, unless it is cancelled before.
    pub(crate) async fn unless_cancelled<F: Future>(&self, future: F) -> Result<F::Output, Fault> {
        let mut future = pin!(future);
        loop {
            if self.settings.cancel.is_cancelled() {
                return Err(Fault::Cancelled);
            }
            if let Ok(output) = tokio::time::timeout(TICK, future.as_mut()).await {
                return Ok(output);
            }
        }
    }

    async fn body(&self, response: &mut Response, limit: u64) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while (body.len() as u64) < limit {
            match self.unless_cancelled(response.chunk()).await?? {
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        Ok(body)
    }
}

/// An answer held in memory.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) url: Url,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.content).map_err(|error| {
            let is_html = self
                .header(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.contains("html"))
                || self.content.trim_ascii_start().starts_with(b"<");
            self.unexpected(if is_html {
                "a page of HTML instead of JSON".to_owned()
            } else {
                format!("JSON that cannot be used ({error})")
            })
        })
    }

    pub(crate) fn unexpected(&self, reason: String) -> Fault {
        Fault::Unexpected {
            url: self.url.to_string(),
            reason,
        }
    }

    /// The page that follows, by the header `Link`.
    pub(crate) fn next(&self) -> Option<&str> {
        self.header(header::LINK)?.split(',').find_map(|link| {
            let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            parameters.contains("rel=\"next\"").then_some(url)
        })
    }
}

/// How a body is encoded for its transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    /// Servers and proxies compress although it was not asked for.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let value = headers.get(header::CONTENT_ENCODING);
        let name = value.map_or(&b""[..], HeaderValue::as_bytes);
        match name.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            other => Err(format!(
                "a content compressed by `{}`, which was not asked for",
                one_line(&String::from_utf8_lossy(other))
            )),
        }
    }
}

/// The content of a body, cut off where an answer is too long.
fn decoded(headers: &HeaderMap, body: Vec<u8>) -> Result<Vec<u8>, String> {
    match Encoding::of(headers)? {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => {
            let mut content = Vec::new();
            flate2::read::MultiGzDecoder::new(&body[..])
                .take(LONGEST_ANSWER)
                .read_to_end(&mut content)
                .map_err(|error| format!("gzip that cannot be read ({error})"))?;
            Ok(content)
        }
    }
}

/// How long until an exhausted limit is reset, by the field `RateLimit` (draft-ietf-httpapi-ratelimit-headers):
/// `"api";r=0;t=271` names a policy, what remains of it and the seconds until there is more.
fn rate_limit_reset(value: &str) -> Option<Duration> {
    let of_policy = |policy: &str| {
        let parameter = |name: &str| {
            let parameters = policy.split(';').skip(1);
            let mut found =
                parameters.filter_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.next()?.trim().parse::<u64>().ok()
        };
        (parameter("r")? == 0).then(|| parameter("t")).flatten()
    };
    let seconds = value.split(',').filter_map(of_policy).max()?;
    Some(Duration::from_secs(seconds))
}

/// Seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What a failure's body says: the field `error` of JSON, or a short text.
fn message_of(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| {
        let field = json.get("error").or_else(|| json.get("message"))?;
        field.as_str()
    });
    match said {
        Some(said) => one_line(said),
        None if body.trim_ascii_start().starts_with(b"<") => String::new(),
        None => one_line(&String::from_utf8_lossy(body)),
    }
}

fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(300).map(plain).collect::<String>()
}

/// Runs work on a thread of its own, so that the caller may itself be inside of an asynchronous runtime.
pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{message_of, rate_limit_reset, retry_after};

    #[test]
    fn a_time_to_come_back_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&date).unwrap();
        assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon"), None);
        assert_eq!(retry_after("-1"), None);
    }

    #[test]
    fn a_rate_limit_says_when_it_is_reset() {
        for (value, seconds) in [
            (r#""api";r=0;t=271"#, Some(271)),
            (r#""api"; r=0; t=2, "pages";r=0;t=9"#, Some(9)),
            (r#""api";r=5;t=2"#, None),
            (r#""api";r=0"#, None),
            ("soon", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(rate_limit_reset(value), expected, "{value}");
        }
    }

    #[test]
    fn a_failures_text_is_on_one_line() {
        assert_eq!(message_of(br#"{"error": "no\nsuch"}"#), "no such");
        assert_eq!(message_of(b"plain"), "plain");
        assert_eq!(message_of(b"<html>long</html>"), "");
    }
}
