//! The paths of what a project stores.

use percent_encoding::percent_decode_str;
use rules::policies::signatures::is_signer_name;
use rules::words::names::{LabelId, ProjectName, Reference, RepositoryName, Tag};

/// What of a project's stored content a path is about. A repository's name begins with the project
/// as the path has it, which may be its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// `summary`
    Summary,
    /// `_deletable`
    Deletable,
    /// `repositories`
    Repositories,
    /// `repositories/NAME`
    Repository(RepositoryName),
    /// `repositories/NAME/artifacts`
    Artifacts(RepositoryName),
    /// `repositories/NAME/artifacts/REFERENCE`
    Artifact(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/tags`
    Tags(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/tags/TAG`
    Tag(RepositoryName, Reference, Tag),
    /// `repositories/NAME/artifacts/REFERENCE/scan`
    Scan(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/scan/stop`
    ScanStop(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/scan/NUMBER/log`
    ScanLog(RepositoryName, Reference, u64),
    /// `repositories/NAME/artifacts/REFERENCE/additions/vulnerabilities`
    Vulnerabilities(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/additions/sbom`
    Sbom(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/explanation`
    Explanation(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/accessories`
    Accessories(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/signatures`
    Signatures(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/signatures/exemption`
    Exemption(RepositoryName, Reference),
    /// `signers`
    Signers,
    /// `signers/NAME`
    Signer(String),
    /// `signing`
    Signing,
    /// `signing/log`
    SignLog,
    /// `unsigned`
    Unsigned,
    /// `trash`
    Trash,
    /// `trash/restore`
    Restore,
    /// `scanner`
    Scanner,
    /// `scanner/candidates`
    ScannerCandidates,
    /// `repositories/NAME/artifacts/REFERENCE/labels`
    Labels(RepositoryName, Reference),
    /// `repositories/NAME/artifacts/REFERENCE/labels/ID`
    Label(RepositoryName, Reference, LabelId),
}

impl Stored {
    /// See [`Route::pattern`](super::route::Route::pattern).
    pub(super) fn pattern(&self) -> &'static str {
        match self {
            Stored::Summary => "/api/v2.0/projects/{project}/summary",
            Stored::Scanner => "/api/v2.0/projects/{project}/scanner",
            Stored::ScannerCandidates => "/api/v2.0/projects/{project}/scanner/candidates",
            Stored::Deletable => "/api/v2.0/projects/{project}/_deletable",
            Stored::Repositories => "/api/v2.0/projects/{project}/repositories",
            Stored::Repository(_) => "/api/v2.0/projects/{project}/repositories/{name}",
            Stored::Artifacts(_) => "/api/v2.0/projects/{project}/repositories/{name}/artifacts",
            Stored::Artifact(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}"
            }
            Stored::Tags(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags"
            }
            Stored::Tag(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags/{tag}"
            }
            Stored::Scan(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan"
            }
            Stored::ScanStop(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan/stop"
            }
            Stored::ScanLog(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan/{id}/log"
            }
            Stored::Vulnerabilities(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/additions/vulnerabilities"
            }
            Stored::Sbom(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/additions/sbom"
            }
            Stored::Explanation(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/explanation"
            }
            Stored::Accessories(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/accessories"
            }
            Stored::Signatures(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures"
            }
            Stored::Exemption(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures/exemption"
            }
            Stored::Signers => "/api/v2.0/projects/{project}/signers",
            Stored::Signer(_) => "/api/v2.0/projects/{project}/signers/{signer}",
            Stored::Signing => "/api/v2.0/projects/{project}/signing",
            Stored::SignLog => "/api/v2.0/projects/{project}/signing/log",
            Stored::Unsigned => "/api/v2.0/projects/{project}/unsigned",
            Stored::Trash => "/api/v2.0/projects/{project}/trash",
            Stored::Restore => "/api/v2.0/projects/{project}/trash/restore",
            Stored::Labels(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/labels"
            }
            Stored::Label(..) => {
                "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/labels/{label}"
            }
        }
    }

    /// See [`Route::methods`](super::route::Route::methods).
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Stored::Summary
            | Stored::Deletable
            | Stored::ScannerCandidates
            | Stored::Repositories
            | Stored::Explanation(..)
            | Stored::Accessories(..)
            | Stored::SignLog
            | Stored::Unsigned
            | Stored::Artifacts(_) => "GET, HEAD",
            Stored::Signers | Stored::Signing | Stored::Signatures(..) => "GET, HEAD, POST",
            Stored::Signer(_) => "GET, HEAD, PUT, DELETE",
            Stored::Exemption(..) => "PUT, DELETE",
            Stored::Scanner => "GET, HEAD, PUT",
            Stored::Repository(_) | Stored::Artifact(..) => "GET, HEAD, DELETE",
            Stored::Tags(..) => "GET, HEAD, POST",
            Stored::Trash => "GET, HEAD, DELETE",
            Stored::Labels(..) | Stored::Scan(..) | Stored::ScanStop(..) | Stored::Restore => {
                "POST"
            }
            Stored::ScanLog(..) | Stored::Vulnerabilities(..) | Stored::Sbom(..) => "GET, HEAD",
            Stored::Tag(..) | Stored::Label(..) => "DELETE",
        }
    }

    /// Parses what follows the project's name. Harbor's clients encode the slashes of a name twice
    /// (`a%252Fb`), and some write them as they are.
    pub(super) fn parse(project: &ProjectName, rest: &str) -> Option<Self> {
        match rest {
            "summary" => return Some(Stored::Summary),
            "scanner" => return Some(Stored::Scanner),
            "scanner/candidates" => return Some(Stored::ScannerCandidates),
            "signers" => return Some(Stored::Signers),
            "signing" => return Some(Stored::Signing),
            "signing/log" => return Some(Stored::SignLog),
            "unsigned" => return Some(Stored::Unsigned),
            "trash" => return Some(Stored::Trash),
            "trash/restore" => return Some(Stored::Restore),
            "_deletable" => return Some(Stored::Deletable),
            "repositories" => return Some(Stored::Repositories),
            _ => {}
        }
        if let Some(name) = rest.strip_prefix("signers/") {
            return is_signer_name(name).then(|| Stored::Signer(name.to_owned()));
        }
        let rest = rest.strip_prefix("repositories/")?;
        let name = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8().ok()?;
            format!("{project}/{decoded}").parse().ok()
        };
        let Some((front, last)) = rest.rsplit_once("/artifacts/") else {
            return match rest.strip_suffix("/artifacts") {
                Some(front) => name(front).map(Stored::Artifacts),
                None => name(rest).map(Stored::Repository),
            };
        };
        let repository = name(front)?;
        match last.split_once('/') {
            None => Some(Stored::Artifact(repository, last.parse().ok()?)),
            Some((reference, rest)) => {
                let reference = reference.parse().ok()?;
                match rest.split_once('/').unwrap_or((rest, "")) {
                    ("tags", "") => Some(Stored::Tags(repository, reference)),
                    ("tags", tag) => Some(Stored::Tag(repository, reference, tag.parse().ok()?)),
                    ("scan", "") => Some(Stored::Scan(repository, reference)),
                    ("scan", "stop") => Some(Stored::ScanStop(repository, reference)),
                    ("scan", of) => {
                        let number = of.strip_suffix("/log")?.parse().ok()?;
                        Some(Stored::ScanLog(repository, reference, number))
                    }
                    ("additions", "vulnerabilities") => {
                        Some(Stored::Vulnerabilities(repository, reference))
                    }
                    ("additions", "sbom") => Some(Stored::Sbom(repository, reference)),
                    ("explanation", "") => Some(Stored::Explanation(repository, reference)),
                    ("accessories", "") => Some(Stored::Accessories(repository, reference)),
                    ("signatures", "") => Some(Stored::Signatures(repository, reference)),
                    ("signatures", "exemption") => Some(Stored::Exemption(repository, reference)),
                    ("labels", "") => Some(Stored::Labels(repository, reference)),
                    ("labels", id) => {
                        Some(Stored::Label(repository, reference, LabelId(id.parse().ok()?)))
                    }
                    _ => None,
                }
            }
        }
    }

    /// Whether it is about scans or the trash. An edge is told only what decides about pulls.
    pub fn is_about_scans(&self) -> bool {
        matches!(
            self,
            Stored::Scanner
                | Stored::Unsigned
                | Stored::Trash
                | Stored::Restore
                | Stored::Signing
                | Stored::SignLog
                | Stored::ScannerCandidates
                | Stored::Scan(..)
                | Stored::ScanStop(..)
                | Stored::ScanLog(..)
                | Stored::Vulnerabilities(..)
                | Stored::Sbom(..)
        )
    }
}
