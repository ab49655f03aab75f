//! The paths about scans of the whole mesh.

/// What of all scans a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanning {
    /// `/api/v2.0/system/CVEAllowlist`
    Allowlist,
    /// `/api/v2.0/scanners`
    Scanners,
    /// `/api/v2.0/scanners/ping`
    Ping,
    /// `/api/v2.0/scanners/ID`
    Scanner(String),
    /// `/api/v2.0/scanners/ID/metadata`
    Metadata(String),
    /// `/api/v2.0/system/scanAll/schedule`
    Schedule,
    /// `/api/v2.0/system/scanAll/stop`
    StopAll,
    /// `/api/v2.0/scans/all/metrics`, and the same of scheduled ones
    Metrics,
    /// `/api/v2.0/security/summary`
    Summary,
    /// `/api/v2.0/security/vul`
    Vulnerabilities,
    /// Below `/api/v2.0/export/cve`
    Export(Export),
}

/// What of exports a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// `/api/v2.0/export/cve`
    New,
    /// `/api/v2.0/export/cve/executions`
    All,
    /// `/api/v2.0/export/cve/execution/ID`
    One(u64),
    /// `/api/v2.0/export/cve/download/ID`
    Download(u64),
}

impl Scanning {
    const ALL: [Scanning; 10] = [
        Scanning::Allowlist,
        Scanning::Scanners,
        Scanning::Ping,
        Scanning::Schedule,
        Scanning::StopAll,
        Scanning::Metrics,
        Scanning::Summary,
        Scanning::Vulnerabilities,
        Scanning::Export(Export::New),
        Scanning::Export(Export::All),
    ];

    /// See [`Route::pattern`](super::route::Route::pattern).
    pub(super) fn pattern(&self) -> &'static str {
        match self {
            Scanning::Allowlist => "/api/v2.0/system/CVEAllowlist",
            Scanning::Scanners => "/api/v2.0/scanners",
            Scanning::Ping => "/api/v2.0/scanners/ping",
            Scanning::Scanner(_) => "/api/v2.0/scanners/{scanner}",
            Scanning::Metadata(_) => "/api/v2.0/scanners/{scanner}/metadata",
            Scanning::Schedule => "/api/v2.0/system/scanAll/schedule",
            Scanning::StopAll => "/api/v2.0/system/scanAll/stop",
            Scanning::Metrics => "/api/v2.0/scans/all/metrics",
            Scanning::Summary => "/api/v2.0/security/summary",
            Scanning::Vulnerabilities => "/api/v2.0/security/vul",
            Scanning::Export(Export::New) => "/api/v2.0/export/cve",
            Scanning::Export(Export::All) => "/api/v2.0/export/cve/executions",
            Scanning::Export(Export::One(_)) => "/api/v2.0/export/cve/execution/{id}",
            Scanning::Export(Export::Download(_)) => "/api/v2.0/export/cve/download/{id}",
        }
    }

    /// See [`Route::methods`](super::route::Route::methods).
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Scanning::Allowlist => "GET, HEAD, PUT",
            Scanning::Schedule => "GET, HEAD, POST, PUT",
            Scanning::Ping | Scanning::StopAll | Scanning::Export(Export::New) => "POST",
            Scanning::Scanner(_) => "GET, HEAD, PUT, PATCH, DELETE",
            Scanning::Scanners => "GET, HEAD, POST",
            Scanning::Metadata(_)
            | Scanning::Metrics
            | Scanning::Summary
            | Scanning::Export(_)
            | Scanning::Vulnerabilities => "GET, HEAD",
        }
    }

    /// What a whole path is about.
    pub(super) fn parse(path: &str) -> Option<Self> {
        if path == "/api/v2.0/scans/schedule/metrics" {
            return Some(Scanning::Metrics);
        }
        if let Some(one) = Scanning::ALL.into_iter().find(|one| one.pattern() == path) {
            return Some(one);
        }
        if let Some(rest) = path.strip_prefix("/api/v2.0/export/cve/") {
            let (what, id) = rest.split_once('/')?;
            let id = id.parse().ok()?;
            return match what {
                "execution" => Some(Scanning::Export(Export::One(id))),
                "download" => Some(Scanning::Export(Export::Download(id))),
                _ => None,
            };
        }
        let (id, what) = {
            let rest = path.strip_prefix("/api/v2.0/scanners/")?;
            rest.split_once('/').map_or((rest, None), |(id, what)| (id, Some(what)))
        };
        match what {
            None => Some(Scanning::Scanner(id.to_owned())),
            Some("metadata") => Some(Scanning::Metadata(id.to_owned())),
            Some(_) => None,
        }
    }
}
