//! Recent failures of upstreams to give a blob, so that one client's request does not become a
//! hundred requests of this mesh.
//!
//! A flight that finds no source asks again, and so do flights of other nodes that wait for it.
//! Each of them would ask the upstream again for what it has just refused.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use rules::words::names::RepositoryName;

use upstream::UpstreamError;

/// How long a failure is given as the answer to all requests.
const LATELY: Duration = Duration::from_secs(2);
/// How often an upstream must fail within that time before this happens. Single failures that pass
/// at once are common.
const TRIES: u32 = 3;
/// The maximum number of failures that are remembered.
const MOST: usize = 10_000;

#[derive(Debug)]
struct Refusal {
    since: Moment,
    times: u32,
    error: UpstreamError,
}

/// The failures of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<(RepositoryName, Digest), Refusal>>);

impl Refusals {
    /// The last failure of `repository`'s upstream for this blob, if it has failed often enough.
    pub(super) fn standing(
        &self,
        now: Moment,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Option<UpstreamError> {
        let lately = self.0.lock();
        let refusal = lately.get(&(repository.clone(), digest))?;
        (refusal.times >= TRIES && now.since(refusal.since) < LATELY).then(|| refusal.error.clone())
    }

    /// The upstream could not give the blob.
    pub(super) fn note(
        &self,
        now: Moment,
        repository: &RepositoryName,
        digest: Digest,
        error: UpstreamError,
    ) {
        let mut lately = self.0.lock();
        if lately.len() >= MOST {
            lately.retain(|_, refusal| now.since(refusal.since) < LATELY);
        }
        if lately.len() >= MOST {
            return;
        }
        let new = || Refusal { since: now, times: 0, error: error.clone() };
        let refusal = lately.entry((repository.clone(), digest)).or_insert_with(new);
        if now.since(refusal.since) >= LATELY {
            *refusal = new();
        }
        refusal.times += 1;
        refusal.error = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_a_few_times_stands_for_a_while() {
        let (refusals, digest) = (Refusals::default(), Digest::sha256(b"blob"));
        let (hub, other): (RepositoryName, RepositoryName) =
            ("hub/a".parse().unwrap(), "hub/b".parse().unwrap());
        let at = |millis: u64| Moment::from_micros(millis * 1_000);
        for time in 0..TRIES {
            assert_eq!(refusals.standing(at(0), &hub, digest), None, "after {time}");
            refusals.note(at(0), &hub, digest, UpstreamError::NotFound);
        }
        assert_eq!(refusals.standing(at(1_999), &hub, digest), Some(UpstreamError::NotFound));
        assert_eq!(refusals.standing(at(1_999), &other, digest), None);
        assert_eq!(refusals.standing(at(2_000), &hub, digest), None);
        refusals.note(at(2_000), &hub, digest, UpstreamError::NotFound);
        assert_eq!(refusals.standing(at(2_001), &hub, digest), None, "it begins anew");
    }
}
