//! What an application hears while files are fetched, and how it stops that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A switch that ends what is under way, from any thread. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    switch: Arc<AtomicBool>,
    /// One that this is pulled with.
    parent: Option<Arc<Cancel>>,
}

impl Cancel {
    /// One that is not pulled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends it: within a fraction of a second, the fetch returns [`Error::Cancelled`](crate::Error::Cancelled). What
    /// came so far is kept, and the next fetch goes on from there.
    pub fn cancel(&self) {
        self.switch.store(true, Ordering::Relaxed);
    }

    /// Whether it was pulled.
    pub fn is_cancelled(&self) -> bool {
        let parent = self.parent.as_ref();
        self.switch.load(Ordering::Relaxed) || parent.is_some_and(|parent| parent.is_cancelled())
    }

    /// One that is pulled with this, and can be pulled alone.
    pub(crate) fn child(&self) -> Self {
        Self {
            switch: Arc::default(),
            parent: Some(Arc::new(self.clone())),
        }
    }
}

/// What happens during a fetch. Files are named as the repository names them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It is known what is to be fetched.
    Planned {
        /// How many files.
        files: usize,
        /// Their bytes together.
        bytes: u64,
    },
    /// A file begins.
    Started {
        /// The file.
        file: &'a str,
        /// Its length in bytes, if it is known.
        bytes: Option<u64>,
        /// How many of them came in an earlier, interrupted fetch.
        done: u64,
    },
    /// Bytes of a file came. A file that came damaged begins again, so that `done` falls back.
    Advanced {
        /// The file.
        file: &'a str,
        /// How many of its bytes are there.
        done: u64,
    },
    /// Nothing comes for a while.
    Waiting {
        /// The file, or the model's id while its files are listed.
        file: &'a str,
        /// Why.
        wait: Wait,
    },
    /// A file is there, whole and verified.
    Finished {
        /// The file.
        file: &'a str,
    },
}

/// Why nothing comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Another process fetches the same file.
    OtherProcess,
    /// The hub limits the rate, or is in trouble, and is asked again after this time.
    Retry(Duration),
}

/// Hears the [`Event`]s of a fetch, from several threads.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Hear>>);

type Hear = dyn Fn(Event<'_>) + Send + Sync;

impl Progress {
    /// Calls `hear` for each event. It is called often, and what it does is time that the fetch waits.
    pub fn new(hear: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    pub(crate) fn tell(&self, event: Event<'_>) {
        if let Some(hear) = &self.0 {
            hear(event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heard = if self.0.is_some() { "heard" } else { "unheard" };
        f.debug_tuple("Progress").field(&heard).finish()
    }
}
