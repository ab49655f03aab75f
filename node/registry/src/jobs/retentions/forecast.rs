//! What a policy would delete today and on later days, if nothing is pushed or pulled until then. It
//! only reads, so any replica can say it.

use std::collections::HashMap;

use rules::ledger::policies::{LookForPolicies, Policies};
use rules::ledger::records::{ReadRecords, RecordError, key};
use rules::policies::retention::{Fate, fates};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName};
use serde::Serialize;

use super::contents::{Contents, Gone};

/// The maximum number of days that one forecast is for.
pub const MOST_DAYS: usize = 8;

const DAY: u64 = 24 * 3600 * 1000;

/// What would have gone by a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InDays {
    /// So many days from now.
    pub days: u32,
    /// The number of artifacts that would have been deleted.
    pub deleted: u64,
    /// The number of bytes that the repository would no longer have, or the project: what others of
    /// its manifests refer to stays.
    pub bytes: u64,
}

/// What would become of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfRepository {
    /// Its name.
    pub repository: String,
    /// The number of its artifacts.
    pub artifacts: u64,
    /// What would have gone by each day.
    pub forecast: Vec<InDays>,
}

/// What would become of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The number of artifacts that rules are about.
    pub artifacts: u64,
    /// What would have gone by each day, of all repositories together.
    pub forecast: Vec<InDays>,
    /// The repositories that rules are about. Those that lose most bytes by the last day come first.
    pub repositories: Vec<OfRepository>,
}

/// What this policy would delete in a project by each of these days, at most [`MOST_DAYS`].
pub fn forecast(
    view: &dyn ReadRecords,
    policies: &Policies,
    project: &ProjectName,
    now: Timestamp,
    days: &[u32],
) -> Result<Forecast, RecordError> {
    let days = &days[..days.len().min(MOST_DAYS)];
    let rules = policies.retention.as_ref().map_or(&[][..], |retention| &retention.rules);
    let since = view.pulls_counted_since()?;
    let mut all = Sum::default();
    let (mut repositories, mut artifacts) = (Vec::new(), 0);
    let mut deleted = vec![0; days.len()];
    for (place, _) in view.scan(&key::repositories_of(project), None, usize::MAX)? {
        let Ok(repository) = key::name_of(&place).parse::<RepositoryName>() else { continue };
        let within = repository.as_str().split_once('/').map_or("", |(_, rest)| rest);
        let contents = Contents::of(view, policies, &repository, within)?;
        let on = |days: &u32| Timestamp(now.0 + u64::from(*days) * DAY);
        let futures: Option<Vec<Vec<Fate>>> = days
            .iter()
            .map(|day| fates(rules, within, &contents.candidates, on(day), since))
            .collect();
        // a repository that no rule is about is counted, since it may share blobs with others
        let judged = futures.is_some();
        let futures: Vec<Gone> = match futures {
            Some(futures) => {
                let settled = futures.into_iter().map(|fates| contents.settled(fates));
                settled.map(|fates| contents.gone(&fates)).collect()
            }
            None => days.iter().map(|_| contents.gone(&[])).collect(),
        };
        let mut own = Sum::default();
        for (digest, size, stays) in contents.stays(&futures) {
            own.add(digest, size, stays);
            all.add(digest, size, stays);
        }
        if !judged {
            continue;
        }
        let count = contents.candidates.len() as u64;
        artifacts += count;
        let gone: Vec<u64> = futures.iter().map(|gone| gone.artifacts).collect();
        deleted.iter_mut().zip(&gone).for_each(|(sum, gone)| *sum += gone);
        repositories.push(OfRepository {
            repository: within.to_owned(),
            artifacts: count,
            forecast: own.in_days(days, &gone),
        });
    }
    let lost =
        |one: &OfRepository| one.forecast.last().map_or((0, 0), |day| (day.bytes, day.deleted));
    // it is stable, so those that lose the same are in the order of their names
    repositories.sort_by_key(|one| std::cmp::Reverse(lost(one)));
    Ok(Forecast { artifacts, forecast: all.in_days(days, &deleted), repositories })
}

/// Manifests and blobs, each once, with its bytes and the days on which it would still be there.
#[derive(Default)]
struct Sum(HashMap<Digest, (u64, u8)>);

impl Sum {
    fn add(&mut self, digest: Digest, size: u64, stays: u8) {
        self.0.entry(digest).or_insert((size, 0)).1 |= stays;
    }

    fn in_days(&self, days: &[u32], deleted: &[u64]) -> Vec<InDays> {
        let on = |(at, (days, deleted)): (usize, (&u32, &u64))| {
            let gone = self.0.values().filter(|(_, stays)| stays & 1 << at == 0);
            let bytes = gone.map(|(size, _)| *size).fold(0, u64::saturating_add);
            InDays { days: *days, deleted: *deleted, bytes }
        };
        days.iter().zip(deleted).enumerate().map(on).collect()
    }
}
