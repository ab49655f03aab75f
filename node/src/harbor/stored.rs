//! What a project stores, in Harbor's API: from a path to the verb. Harbor's numbers are made here of
//! names and digests, so that every node shows the same ones and none needs a record.

use http::{Method, Response};
use registry::people::Caller;
use registry::writes::Refusal;
use rules::ledger::events::Actor;
use rules::ledger::records::Project;
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;

use super::Harbor;
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::route::Stored;
use crate::http::{Code, Failure, Payload};

/// A number for a name: the same at every node, positive, and small enough for JavaScript.
pub(super) fn number(name: &str) -> u64 {
    let hash = Digest::sha256(name.as_bytes()).to_key();
    let first = hash.iter().skip(1).take(8).fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
    (first >> 12).max(1)
}

/// 404.
pub(super) fn missing(what: &str) -> Failure {
    Failure::new(Code::NotFound, format!("{what} does not exist"))
}

impl Harbor {
    /// Answers a request about what a project stores.
    pub(super) async fn answer_about_stored(
        &self,
        request: Request,
        project: Project,
        stored: Stored,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let by = &actor(caller, &request);
        // the path may call the project by its number
        let own = |name: &RepositoryName| -> Result<RepositoryName, Failure> {
            let rest = name.as_str().split_once('/').map_or("", |(_, rest)| rest);
            format!("{}/{rest}", project.name)
                .parse()
                .map_err(|e| Failure::new(Code::NameInvalid, format!("{e}")))
        };
        match (&request.method, stored) {
            (&Method::DELETE, Stored::Repository(name)) => {
                self.delete_repository(&own(&name)?, by).await
            }
            (_, Stored::Repositories) => self.list_repositories(&request, &project).await,
            (_, Stored::Repository(name)) => self.show_repository(&project, &own(&name)?).await,
            (_, Stored::Artifacts(name)) => {
                self.list_artifacts(&request, &project, &own(&name)?).await
            }
            (&Method::DELETE, Stored::Artifact(name, reference)) => {
                self.delete_artifact(&own(&name)?, &reference, by).await
            }
            (_, Stored::Artifact(name, reference)) => {
                self.show_artifact(&request, &project, &own(&name)?, &reference).await
            }
            (&Method::POST, Stored::Tags(name, reference)) => {
                self.add_tag(request, &own(&name)?, &reference, by).await
            }
            (_, Stored::Tags(name, reference)) => {
                self.list_tags(&request, &project, &own(&name)?, &reference).await
            }
            (_, Stored::Tag(name, reference, tag)) => {
                self.remove_tag(&own(&name)?, &reference, &tag, by).await
            }
            (_, Stored::Scan(name, reference)) => {
                let name = own(&name)?;
                self.ask_for_scan(request, &project, name, &reference, by).await
            }
            (_, Stored::ScanStop(name, reference)) => {
                let name = own(&name)?;
                self.stop_scan(name, &reference, by).await
            }
            (_, Stored::ScanLog(name, reference, number)) => {
                self.show_scan_log(&own(&name)?, &reference, number).await
            }
            (_, Stored::Vulnerabilities(name, reference)) => {
                self.show_vulnerabilities(&project, &own(&name)?, &reference).await
            }
            (_, Stored::Sbom(name, reference)) => {
                self.show_sbom(&request, &own(&name)?, &reference).await
            }
            (_, Stored::Explanation(name, reference)) => {
                self.explain(&project, &own(&name)?, &reference).await
            }
            (_, Stored::Accessories(name, reference)) => {
                self.list_accessories(&request, &own(&name)?, &reference).await
            }
            (&Method::POST, Stored::Signatures(name, reference)) => {
                self.sign(&project, &own(&name)?, &reference, by).await
            }
            (_, Stored::Signatures(name, reference)) => {
                self.show_signatures(&project, &own(&name)?, &reference).await
            }
            (&Method::POST, Stored::Signing) => self.make_signing_key(request, &project, by).await,
            (_, Stored::Signing) => self.show_signing(&project).await,
            (_, Stored::SignLog) => self.show_sign_log(&request, &project).await,
            (&Method::PUT, Stored::Exemption(name, reference)) => {
                self.exempt(request, &own(&name)?, &reference, by).await
            }
            (_, Stored::Exemption(name, reference)) => {
                self.end_exemption(&own(&name)?, &reference, by).await
            }
            (&Method::POST, Stored::Signers) => self.add_signer(request, &project, by).await,
            (_, Stored::Signers) => self.list_signers(&request, &project).await,
            (&Method::PUT, Stored::Signer(name)) => {
                self.change_signer(request, &project, &name, by).await
            }
            (&Method::DELETE, Stored::Signer(name)) => {
                self.remove_signer(&project, &name, by).await
            }
            (_, Stored::Signer(name)) => self.show_one_signer(&project, &name).await,
            (&Method::DELETE, Stored::Trash) => self.empty_trash(&request, &project, by).await,
            (_, Stored::Trash) => self.list_trash(&request, &project).await,
            (_, Stored::Restore) => self.restore(request, &project, by).await,
            (_, Stored::Unsigned) => self.list_unsigned(&request, &project).await,
            (_, Stored::Labels(name, reference)) => {
                let name = own(&name)?;
                let digest = self.digest_of(&name, &reference).await?;
                self.attach_label(request, &project, name, digest, by).await
            }
            (_, Stored::Label(name, reference, label)) => {
                let name = own(&name)?;
                let digest = self.digest_of(&name, &reference).await?;
                self.detach_label(name, digest, label, by).await
            }
            (&Method::PUT, Stored::Scanner) => self.choose_scanner(request, &project, by).await,
            (_, Stored::Scanner) => self.show_project_scanner(&project).await,
            (_, Stored::ScannerCandidates) => self.list_scanners(&request).await,
            (_, Stored::Summary) => self.summarize(caller, &project).await,
            (_, Stored::Deletable) => self.show_deletable(&project).await,
        }
    }

    pub(super) async fn change_stored(
        &self,
        name: &RepositoryName,
        kind: WriteKind,
        by: &Actor,
    ) -> Result<(), Failure> {
        match self.writes.commit(&name.project(), kind, by).await {
            Ok(_) => Ok(()),
            Err(Refusal::NotFound) => Err(missing(&format!("it, in {name},"))),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
