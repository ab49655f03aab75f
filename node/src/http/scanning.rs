//! The paths about scans of the whole mesh.

/// What of all scans a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanning {
    /// `/api/v2.0/system/CVEAllowlist`
    Allowlist,
    /// `/api/v2.0/scanners`
    Scanners,
    /// `/api/v2.0/system/scanAll/schedule`
    Schedule,
    /// `/api/v2.0/scans/all/metrics`, and the same of scheduled ones
    Metrics,
    /// `/api/v2.0/security/summary`
    Summary,
    /// `/api/v2.0/security/vul`
    Vulnerabilities,
}

impl Scanning {
    const ALL: [Scanning; 6] = [
        Scanning::Allowlist,
        Scanning::Scanners,
        Scanning::Schedule,
        Scanning::Metrics,
        Scanning::Summary,
        Scanning::Vulnerabilities,
    ];

    /// See [`Route::pattern`](super::route::Route::pattern).
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Scanning::Allowlist => "/api/v2.0/system/CVEAllowlist",
            Scanning::Scanners => "/api/v2.0/scanners",
            Scanning::Schedule => "/api/v2.0/system/scanAll/schedule",
            Scanning::Metrics => "/api/v2.0/scans/all/metrics",
            Scanning::Summary => "/api/v2.0/security/summary",
            Scanning::Vulnerabilities => "/api/v2.0/security/vul",
        }
    }

    /// See [`Route::methods`](super::route::Route::methods).
    pub(super) fn methods(self) -> &'static str {
        match self {
            Scanning::Allowlist => "GET, HEAD, PUT",
            Scanning::Schedule => "GET, HEAD, POST, PUT",
            Scanning::Scanners
            | Scanning::Metrics
            | Scanning::Summary
            | Scanning::Vulnerabilities => "GET, HEAD",
        }
    }

    /// What a whole path is about.
    pub(super) fn parse(path: &str) -> Option<Self> {
        if path == "/api/v2.0/scans/schedule/metrics" {
            return Some(Scanning::Metrics);
        }
        Scanning::ALL.into_iter().find(|one| one.pattern() == path)
    }
}
