//! How much a project may store, and whether something more fits.
//!
//! A project's storage is counted as Harbor does (`src/controller/quota` and
//! `src/server/middleware/quota`): each blob once, however many of its repositories and manifests
//! refer to it, and manifests like blobs. Limits of the numbers of tags and repositories are Atoll's
//! own.

use serde::{Deserialize, Serialize};

/// From this share of a limit on, in percent, people are warned (`QUOTA_WARNING` of Harbor).
pub const WARNED_AT: u64 = 85;

/// What a project may have. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Storage in bytes.
    pub storage: Option<u64>,
    /// The number of tags, in all repositories.
    pub tags: Option<u64>,
    /// The number of repositories.
    pub repositories: Option<u64>,
}

impl Limits {
    /// Whether there is no limit at all.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }

    /// The limit of a resource.
    pub fn of(&self, resource: Counted) -> Option<u64> {
        match resource {
            Counted::Storage => self.storage,
            Counted::Tags => self.tags,
            Counted::Repositories => self.repositories,
        }
    }
}

/// What a project has, or what is to be added to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes.
    pub storage: u64,
    /// Tags.
    pub tags: u64,
    /// Repositories.
    pub repositories: u64,
}

impl Usage {
    /// How much of a resource it is.
    pub fn of(&self, resource: Counted) -> u64 {
        match resource {
            Counted::Storage => self.storage,
            Counted::Tags => self.tags,
            Counted::Repositories => self.repositories,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Bytes.
    Storage,
    /// Tags.
    Tags,
    /// Repositories.
    Repositories,
}

impl Counted {
    /// All of them.
    pub const ALL: [Counted; 3] = [Counted::Storage, Counted::Tags, Counted::Repositories];

    /// Its word in Harbor's API.
    pub fn word(self) -> &'static str {
        match self {
            Counted::Storage => "storage",
            Counted::Tags => "tags",
            Counted::Repositories => "repositories",
        }
    }

    /// A value for people.
    pub fn shown(self, value: u64) -> String {
        match self {
            Counted::Storage => bytes(value),
            Counted::Tags | Counted::Repositories => value.to_string(),
        }
    }
}

/// A number of bytes for people, as in Harbor's messages.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let (mut shown, mut unit) = (value as f64 / 1024.0, 0);
    while shown >= 1024.0 {
        (shown, unit) = (shown / 1024.0, unit + 1);
    }
    format!("{shown:.1} {}", UNITS[unit])
}

/// Something does not fit. The text is Harbor's (`src/pkg/quota/errors.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "adding {} of {} resource, which when updated to current usage of {} will exceed the configured upper limit of {}.",
    resource.shown(*added), resource.word(), resource.shown(*used), resource.shown(*limit)
)]
pub struct OverQuota {
    resource: Counted,
    added: u64,
    used: u64,
    limit: u64,
}

/// Whether `added` fits beside what is `used`. What adds nothing always fits: a limit may have become
/// lower than what is there.
pub fn fits(limits: &Limits, used: &Usage, added: &Usage) -> Result<(), OverQuota> {
    for resource in Counted::ALL {
        let (used, added) = (used.of(resource), added.of(resource));
        if let Some(limit) = limits.of(resource)
            && added > 0
            && used.saturating_add(added) > limit
        {
            return Err(OverQuota { resource, added, used, limit });
        }
    }
    Ok(())
}

/// The maximum length of a blob that a project does not have yet; `None` if any fits.
pub fn room(limits: &Limits, used: &Usage) -> Option<u64> {
    limits.storage.map(|limit| limit.saturating_sub(used.storage))
}

/// What people are told when usage has grown from `before` to `after`: once for each time that it
/// comes to [`WARNED_AT`] percent of a limit.
pub fn warnings(limits: &Limits, before: &Usage, after: &Usage) -> Vec<String> {
    let near =
        |limit: u64, used: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(WARNED_AT);
    let warned = Counted::ALL.into_iter().filter_map(|resource| {
        let limit = limits.of(resource)?;
        let (before, after) = (before.of(resource), after.of(resource));
        (near(limit, after) && !near(limit, before)).then(|| {
            let (after, limit) = (resource.shown(after), resource.shown(limit));
            format!("{}: {after} of {limit} are used", resource.word())
        })
    });
    warned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(storage: u64) -> Usage {
        Usage { storage, ..Usage::default() }
    }

    #[test]
    fn what_fits_exactly_fits_and_one_byte_more_does_not() {
        let limits = Limits { storage: Some(100), ..Limits::default() };
        assert_eq!(fits(&limits, &storage(60), &storage(40)), Ok(()));
        assert!(fits(&limits, &storage(60), &storage(41)).is_err());
        assert_eq!(fits(&limits, &storage(200), &storage(0)), Ok(()), "it adds nothing");
        assert!(fits(&limits, &storage(1), &storage(u64::MAX)).is_err());
        assert_eq!(fits(&Limits::default(), &storage(1), &storage(u64::MAX)), Ok(()));
        assert_eq!(
            (room(&limits, &storage(60)), room(&limits, &storage(200))),
            (Some(40), Some(0))
        );
        assert_eq!(room(&Limits::default(), &storage(60)), None);
        let limits = Limits { tags: Some(2), repositories: Some(1), ..Limits::default() };
        let tags = |tags| Usage { tags, ..Usage::default() };
        assert_eq!(fits(&limits, &tags(1), &tags(1)), Ok(()));
        let refused = fits(&limits, &tags(1), &tags(2)).unwrap_err().to_string();
        let said = "adding 2 of tags resource, which when updated to current usage of 1 will exceed the configured upper limit of 2.";
        assert_eq!(refused, said);
    }

    #[test]
    fn the_refusal_is_harbors() {
        let limits = Limits { storage: Some(10 << 20), ..Limits::default() };
        let (used, added) = (storage(8_703_180), storage(2_202_010));
        let refused = fits(&limits, &used, &added).unwrap_err().to_string();
        let said = "adding 2.1 MiB of storage resource, which when updated to current usage of 8.3 MiB will exceed the configured upper limit of 10.0 MiB.";
        assert_eq!(refused, said);
    }

    #[test]
    fn sizes_are_in_the_unit_that_fits() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "16.0 EiB"]
        );
    }

    #[test]
    fn people_are_warned_once_for_each_crossing() {
        let limits = Limits { storage: Some(100), tags: Some(20), ..Limits::default() };
        let warned = |before, after| warnings(&limits, &storage(before), &storage(after));
        assert_eq!(warned(0, 84), [""; 0]);
        assert_eq!(warned(84, 85), ["storage: 85 B of 100 B are used"]);
        assert_eq!(warned(85, 99), [""; 0], "they were told already");
        assert_eq!(warned(10, 100).len(), 1);
        assert_eq!(warned(90, 80), [""; 0]);
        let tags = |tags| Usage { tags, ..Usage::default() };
        assert_eq!(warnings(&limits, &tags(16), &tags(17)), ["tags: 17 of 20 are used"]);
        let huge = Limits { storage: Some(u64::MAX), ..Limits::default() };
        assert_eq!(warnings(&huge, &storage(0), &storage(u64::MAX)).len(), 1, "no overflow");
    }
}
