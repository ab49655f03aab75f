//! The paths of the mesh's upkeep: collections and purges of the audit log, as Harbor has them.

use rules::ledger::upkeep::UpkeepKind;

/// What a path of the upkeep is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// `/api/v2.0/system/gc`, `/api/v2.0/system/purgeaudit`: the runs.
    Runs(UpkeepKind),
    /// `../schedule`
    Schedule(UpkeepKind),
    /// `../ID`
    Run(UpkeepKind, u64),
    /// `../ID/log`
    Log(UpkeepKind, u64),
}

impl Upkeep {
    /// See [`Route::pattern`](super::route::Route::pattern).
    pub(super) fn pattern(self) -> &'static str {
        use UpkeepKind::{Collection, Purge};
        match self {
            Upkeep::Runs(Collection) => "/api/v2.0/system/gc",
            Upkeep::Runs(Purge) => "/api/v2.0/system/purgeaudit",
            Upkeep::Schedule(Collection) => "/api/v2.0/system/gc/schedule",
            Upkeep::Schedule(Purge) => "/api/v2.0/system/purgeaudit/schedule",
            Upkeep::Run(Collection, _) => "/api/v2.0/system/gc/{id}",
            Upkeep::Run(Purge, _) => "/api/v2.0/system/purgeaudit/{id}",
            Upkeep::Log(Collection, _) => "/api/v2.0/system/gc/{id}/log",
            Upkeep::Log(Purge, _) => "/api/v2.0/system/purgeaudit/{id}/log",
        }
    }

    /// See [`Route::methods`](super::route::Route::methods).
    pub(super) fn methods(self) -> &'static str {
        match self {
            Upkeep::Schedule(_) => "GET, HEAD, POST, PUT",
            Upkeep::Run(..) => "GET, HEAD, PUT",
            Upkeep::Runs(_) | Upkeep::Log(..) => "GET, HEAD",
        }
    }

    /// What a whole path is about.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/api/v2.0/system/")?;
        let (kind, rest) = match rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b))) {
            ("gc", rest) => (UpkeepKind::Collection, rest),
            ("purgeaudit", rest) => (UpkeepKind::Purge, rest),
            _ => return None,
        };
        let Some(rest) = rest else { return Some(Upkeep::Runs(kind)) };
        if rest == "schedule" {
            return Some(Upkeep::Schedule(kind));
        }
        let (id, log) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
        let id = id.parse().ok()?;
        match log {
            None => Some(Upkeep::Run(kind, id)),
            Some("log") => Some(Upkeep::Log(kind, id)),
            Some(_) => None,
        }
    }

    /// One of each, for tests.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Upkeep> {
        let of = |kind| {
            [Upkeep::Runs(kind), Upkeep::Schedule(kind), Upkeep::Run(kind, 1), Upkeep::Log(kind, 1)]
        };
        [of(UpkeepKind::Collection), of(UpkeepKind::Purge)].concat()
    }
}
