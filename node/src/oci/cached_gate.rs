//! The gate before images that a proxy project has cached: a pull has the upstream asked for the
//! signatures that its project demands, and asks for the scan that it wants. It is judged by what is
//! known then.

use std::net::IpAddr;
use std::time::Duration;

use ground::clock;
use registry::scans::cached::Puller;
use registry::view::Freshness;
use rules::ledger::admitted::Pull;
use rules::ledger::cached_scans::{LookForCachedScans, wants_scans};
use rules::ledger::cached_signatures::LookForCachedSignatures;
use rules::ledger::records::Project;
use rules::ledger::signatures::Facts as SignatureFacts;
use rules::policies::signatures::{self, Context, Mode, Policy};
use rules::policies::vulnerabilities::Gate;
use rules::wire::Sought;
use rules::words::fallback::Fallback;
use rules::words::image::{Image, Runnable};
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, RepositoryName};

use super::Registry;
use super::gate::{About, Basis, Patience, Served, about, come_back, unsigned, warn_unsigned};
use crate::http::Failure;

/// How long a pull waits in any case for what the upstream says of signatures. Then the project says how
/// long it waits (`signature_wait`).
const UPSTREAM: Duration = Duration::from_millis(2000);
/// After this time a pull that passes asks again whether a scan is due.
const ASKS_AGAIN: Duration = Duration::from_secs(60);
/// After this time an edge has heard of what was recorded.
const HEARD: Duration = Duration::from_millis(3000);

impl Registry {
    /// Refuses what a proxy project has cached if it does not let it pass.
    pub(super) async fn check_cached(
        &self,
        project: &Project,
        (repository, reference): (&RepositoryName, &Reference),
        served: Served<'_>,
        client: IpAddr,
    ) -> Result<(), Failure> {
        let (demands, scans) = (signatures::is_on(&project.metadata), wants_scans(project));
        if !demands && !scans {
            return Ok(());
        }
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let (repository, digest) = (repository.clone(), *served.digest);
        let pull = Pull { project: project.id, repository, digest, tag };
        let stamp = self.door.stamp(&pull.repository);
        if self.was_admitted(&pull, project, stamp) {
            return Ok(());
        }
        let mut basis = Basis::default();
        let passes = match demands {
            true => {
                self.check_cached_signatures(project, &pull, &served, client, &mut basis).await?
            }
            false => true,
        };
        if scans {
            self.check_cached_scans(project, &pull, &served, client, &mut basis).await?;
            // a scan that is out of date is asked for by a pull
            let end = clock::timestamp().after(ASKS_AGAIN);
            basis.rests_on(Freshness::Fresh, Some(end));
        }
        self.check_age(&basis, project)?;
        if passes {
            self.remember(pull, project, stamp, basis);
        }
        Ok(())
    }

    /// Asks for the scan that the project wants, and refuses the image for what was found in it.
    async fn check_cached_scans(
        &self,
        project: &Project,
        pull: &Pull,
        served: &Served<'_>,
        client: IpAddr,
        basis: &mut Basis,
    ) -> Result<(), Failure> {
        let repository = &pull.repository;
        if let Runnable::Image(_) = Image::read(served.bytes) {
            let puller = Puller::Client(client);
            self.scans.pulled(project, repository, served.digest, puller).await;
        }
        let gate = match self.door.read(|records| records.gate_of(project)).await {
            Ok((gate, freshness)) => {
                basis.rests_on(freshness, None);
                gate
            }
            // one that is cut off, and has kept nothing of this
            Err(_) if self.neighbours.is_edge() => {
                basis.rests_on(Freshness::Stale, None);
                Gate::of(&project.metadata)
            }
            Err(failure) => return Err(failure),
        };
        match gate {
            Some(gate) => self.check_scans(&gate, project, repository, served, basis).await,
            None => Ok(()),
        }
    }

    /// Refuses what is not signed as the project demands. If what is known is not enough, the upstream is
    /// asked for signatures. Says whether that may be remembered: what is only warned of is asked for
    /// again.
    async fn check_cached_signatures(
        &self,
        project: &Project,
        Pull { repository, digest, tag, .. }: &Pull,
        served: &Served<'_>,
        client: IpAddr,
        basis: &mut Basis,
    ) -> Result<bool, Failure> {
        let policy = match self.door.read(|records| records.signature_policy_of(project)).await {
            Ok((policy, freshness)) => {
                basis.rests_on(freshness, None);
                policy
            }
            Err(_) if self.neighbours.is_edge() => {
                basis.rests_on(Freshness::Stale, None);
                Policy::of(&project.metadata)
            }
            Err(failure) => return Err(failure),
        };
        let Some(policy) = policy else { return Ok(true) };
        let tag = tag.as_ref();
        let fallback = tag.and_then(Fallback::of);
        let subject = match about(served, fallback.is_some()) {
            About::Another => return Ok(true),
            About::AnotherIfSignatures => {
                fallback.and_then(|fallback| fallback.digest()).or(served.subject)
            }
            About::Itself => None,
        };
        let image = subject.as_ref().unwrap_or(digest);
        let (mut sought, mut is_counted, mut patience) = (None, false, Patience::default());
        loop {
            if subject.is_some() && self.are_signatures(repository, image, digest, basis).await? {
                return Ok(true);
            }
            let (facts, freshness) = self.signature_facts(project, repository, digest, tag).await?;
            let (pushed, now) = (Timestamp(0), clock::timestamp());
            let context = Context { repository, cached: true, tag, tags: &[], pushed, now };
            let SignatureFacts { signers, own, parents, .. } = &facts;
            let decision = signatures::decide(&policy, signers, own, parents, &context);
            let (refusal, warns) = match decision {
                signatures::Decision::Pass => {
                    let until = signatures::changes_at(signers, own, parents, now);
                    match policy.mode {
                        Mode::Enforce | Mode::Off => basis.rests_on(freshness, until),
                        Mode::Warn => basis.warns_by(freshness, until),
                    }
                    return Ok(true);
                }
                signatures::Decision::Warn(refusal) => (refusal, true),
                signatures::Decision::Refuse(refusal) | signatures::Decision::Wait(_, refusal) => {
                    (refusal, false)
                }
            };
            let alone = self.neighbours.is_edge() && freshness != Freshness::Fresh;
            let more = match &sought {
                None if alone => Some("this edge hears no replica now".to_owned()),
                None => {
                    if !is_counted && let Err(refused) = self.questions.ask(client, &project.name) {
                        if warns {
                            warn_unsigned(repository, digest, &refusal);
                            return Ok(false);
                        }
                        return Err(refused.into());
                    }
                    is_counted = true;
                    let within = if warns { UPSTREAM } else { policy.wait.max(UPSTREAM) };
                    let asked =
                        self.seeking.seek(project, (repository, image), client, within).await;
                    if asked == Some(Sought::Known) {
                        self.questions.give_back(client, &project.name);
                    }
                    sought = Some(asked);
                    continue;
                }
                Some(Some(Sought::Found))
                    if self.neighbours.is_edge() && patience.lasts(HEARD).await =>
                {
                    continue;
                }
                Some(None | Some(Sought::Busy)) if !warns => {
                    let why =
                        "has no signature yet that counts; its upstream is being asked; try again";
                    return Err(come_back(repository, digest, why));
                }
                Some(None | Some(Sought::Busy)) => None,
                Some(Some(Sought::Failed(why))) => {
                    Some(format!("its upstream could not be asked for signatures: {why}"))
                }
                Some(Some(Sought::Known | Sought::Nothing | Sought::Found)) => None,
            };
            if warns {
                warn_unsigned(repository, digest, &refusal);
                return Ok(false);
            }
            let more = more.as_deref();
            return Err(unsigned(&policy, project, repository, digest, &refusal, more));
        }
    }
}
