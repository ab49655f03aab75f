//! Projects that cache other registries.
//!
//! | module | what it does |
//! |---|---|
//! | [`listing`] | which tags an upstream's repository has, asked once for the whole mesh |
//! | [`resolving`] | what a tag or digest means upstream, asked once for the whole mesh |
//! | `recording` | keeps what upstreams gave |
//! | [`confirming`] | makes the upstream show a blob that is in the mesh for another's sake |
//! | [`questions`] | how many questions to upstreams each client may cause |
//! | [`moving`] | takes what earlier builds have recorded of it out of the ledger |
//! | `under_way` | questions that are under way, each once |
//! | [`mirrors`] | which repository a request means that names another registry |

pub mod confirming;
pub mod listing;
pub mod mirrors;
pub mod moving;
pub mod questions;
mod recording;
pub mod resolving;
pub(crate) mod under_way;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rules::proxies::denials::Denials;
use rules::proxies::tags::RecentAnswers;
use upstream::UpstreamError;
use upstream::budget::Answers;

use crate::upstreams::Upstreams;

/// How long an upstream may take before cached content is served. The question continues, so that a
/// slow answer is there for the next client.
const UPSTREAM: Duration = Duration::from_millis(2200);
/// How long the primary may take; with [`UPSTREAM`] once more after it, a client has its answer
/// within five seconds.
const PRIMARY: Duration = Duration::from_millis(2500);
/// After a failure an upstream is not asked about the same thing for this long.
const RETRY: Duration = Duration::from_secs(5);
/// What an upstream's 401 or 403 means: some registries say it of what does not exist.
const DENIED: &str = "it is not there, or the registry's credential may not see it";

/// How long what upstreams say is good for; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct ProxyTerms {
    /// How long a resolved tag counts as fresh, and a list of tags.
    pub fresh_for: Duration,
    /// How long a 404 is remembered.
    pub missing_for: Duration,
}

/// What is remembered of upstreams' answers. When a registry's record changes, nothing that was
/// remembered counts: another address said it, or it was said to somebody else.
struct Remembered<T> {
    upstreams: Arc<Upstreams>,
    /// With the value of [`Upstreams::replaced`] at the time of the answers.
    said: Mutex<(T, u64)>,
}

impl<T: Forgets> Remembered<T> {
    fn new(upstreams: Arc<Upstreams>, nothing: T) -> Self {
        let said = Mutex::new((nothing, upstreams.replaced()));
        Remembered { upstreams, said }
    }

    fn lock(&self) -> MappedMutexGuard<'_, T> {
        let mut said = self.said.lock();
        let replaced = self.upstreams.replaced();
        if std::mem::replace(&mut said.1, replaced) != replaced {
            said.0.forget_all();
        }
        MutexGuard::map(said, |said| &mut said.0)
    }
}

/// A memory that can be emptied.
trait Forgets {
    fn forget_all(&mut self);
}

impl Forgets for Answers {
    fn forget_all(&mut self) {
        Answers::forget_all(self);
    }
}

impl<K: Clone + Eq + std::hash::Hash> Forgets for Denials<K> {
    fn forget_all(&mut self) {
        Denials::forget_all(self);
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Forgets for RecentAnswers<K, V> {
    fn forget_all(&mut self) {
        RecentAnswers::forget_all(self);
    }
}

fn slow() -> UpstreamError {
    UpstreamError::Unreachable("it did not answer in time".into())
}
