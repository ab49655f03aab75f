//! The gate before manifests: images with vulnerabilities, or without signatures, that their project
//! does not let pass are refused here, at every node (`rules::policies` decides). A replica remembers
//! what it has let pass (`rules::ledger::admitted`).

use std::time::Duration;

use ground::clock;
use http::header;
use rules::ledger::admitted::{AT_AN_EDGE, Admission, Pull, Stamp};
use rules::ledger::cached_scans::decide_cached;
use rules::ledger::records::{ManifestRecord, Project, ReadRecords};
use rules::ledger::scanning::{Facts, LookForScans};
use rules::ledger::signatures::{Facts as SignatureFacts, LookForSignatures};
use rules::ledger::told::HEARD_FOR;
use rules::policies::alone::{ALONE, alone_for};
use rules::policies::signatures::{self, Context, Mode, Policy, Refusal};
use rules::policies::vulnerabilities::{Decision, Gate, Prevented, decide, is_on};
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::image::{Image, Layer, Runnable};
use rules::words::moment::{Moment, Timestamp};
use rules::words::names::{Reference, RepositoryName, Tag};
use rules::words::roles::{Operation, Permission, Resource};
use serde_json::{Map, Value, json};

use super::Registry;
use crate::http::{Code, Failure};
use registry::people::Caller;
use registry::view::Freshness;

/// Who may make accessories may read what is not signed yet: it has to be read to be signed.
const SIGN: Permission = Permission::new(Resource::Accessory, Operation::Create);

/// The time between two looks whether what a pull waits for is there: a scan's end, or a signature.
const LOOK: Duration = Duration::from_millis(250);

/// The maximum number of admissions that a node remembers, of about half a kilobyte each.
pub const MOST_ADMISSIONS: usize = 16_384;

/// A manifest that a client is about to get.
#[derive(Clone, Copy)]
pub(super) struct Served<'a> {
    /// Its digest.
    pub(super) digest: &'a Digest,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// The manifest that it is about, if it says so.
    pub(super) subject: Option<Digest>,
}

impl<'a> Served<'a> {
    /// One that is recorded.
    pub(super) fn of(digest: &'a Digest, record: &'a ManifestRecord) -> Self {
        Served { digest, bytes: &record.bytes, subject: record.subject }
    }
}

/// How long a pull has waited for what it lacks.
#[derive(Default)]
pub(super) struct Patience {
    end: Option<Moment>,
}

impl Patience {
    /// Rests until it is time to look again; `false` if this was asked for the first time longer ago than
    /// `wait`.
    pub(super) async fn lasts(&mut self, wait: Duration) -> bool {
        let now = clock::now();
        if now >= *self.end.get_or_insert(now + wait) {
            return false;
        }
        tokio::time::sleep(LOOK).await;
        true
    }
}

/// Whether and for how long a decision may be remembered.
pub(super) struct Basis {
    /// Whether all that was read was fresh.
    is_fresh: bool,
    /// When time may change it.
    until: Option<Timestamp>,
    /// What was lacking, if the project only warns.
    lacking: Option<Refusal>,
    /// Whether what was read may refuse the image.
    binds: bool,
    /// Whether some of it has changed since, as far as that edge had heard.
    superseded: bool,
}

impl Default for Basis {
    fn default() -> Self {
        Basis { is_fresh: true, until: None, lacking: None, binds: false, superseded: false }
    }
}

impl Basis {
    /// Something was read that holds until this moment.
    pub(super) fn rests_on(&mut self, freshness: Freshness, until: Option<Timestamp>) {
        self.is_fresh &= freshness == Freshness::Fresh;
        self.binds = true;
        self.superseded |= matches!(freshness, Freshness::Superseded(_));
        self.until = self.until.into_iter().chain(until).min();
    }
}

impl Basis {
    /// What only warns was read: it refuses nothing, however old it is.
    pub(super) fn warns_by(&mut self, freshness: Freshness, until: Option<Timestamp>) {
        self.is_fresh &= freshness == Freshness::Fresh;
        self.until = self.until.into_iter().chain(until).min();
    }
}

impl Registry {
    /// Refuses the manifest if its project does not let it pass.
    pub(super) async fn check_gates(
        &self,
        caller: &Caller,
        project: &Project,
        repository: &RepositoryName,
        reference: &Reference,
        (digest, manifest): (&Digest, &ManifestRecord),
    ) -> Result<(), Failure> {
        let (policy, gate) = (signatures::is_on(&project.metadata), is_on(&project.metadata));
        if !policy && !gate {
            return Ok(());
        }
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let pull =
            Pull { project: project.id, repository: repository.clone(), digest: *digest, tag };
        let stamp = self.door.stamp(repository);
        if self.was_admitted(&pull, project, stamp) {
            return Ok(());
        }
        let mut basis = Basis::default();
        let passes = match Policy::of(&project.metadata) {
            Some(policy) => {
                self.check_signatures(&policy, caller, project, &pull, manifest, &mut basis).await?
            }
            None => true,
        };
        if let Some(gate) = Gate::of(&project.metadata) {
            let served = Served::of(digest, manifest);
            self.check_scans(&gate, project, repository, &served, &mut basis).await?;
        }
        self.check_age(&basis, project)?;
        if passes {
            self.remember(pull, project, stamp, basis);
        }
        Ok(())
    }

    /// Refuses what an edge would let pass by records that have changed since, or longer after it heard
    /// of changes than the project allows: it hears no replica, or only some that hear no leader.
    pub(super) fn check_age(&self, basis: &Basis, project: &Project) -> Result<(), Failure> {
        if !basis.binds || !self.neighbours.is_edge() {
            return Ok(());
        }
        let (alone, name) = ("this edge can reach no replica that is up to date", &project.name);
        if basis.superseded {
            return Err(Failure::new(
                Code::Unavailable,
                format!(
                    "{alone}, and what decides about this image of project {name} has changed since it \
                     asked; pull from another node"
                ),
            ));
        }
        let Some(most) = alone_for(&project.metadata) else { return Ok(()) };
        // one that is not cut off is told every two seconds
        match self.neighbours.records.told_ago() {
            Some(age) if age <= most.max(HEARD_FOR) => Ok(()),
            _ => Err(Failure::new(
                Code::Unavailable,
                format!(
                    "{alone}, and has not heard of changes in project {name} for longer than its \
                     metadata allow ({ALONE}={}); pull from another node",
                    project.metadata.get(ALONE).map_or("", String::as_str)
                ),
            )),
        }
    }

    /// Whether this pull was let pass, and nothing has changed since.
    pub(super) fn was_admitted(
        &self,
        pull: &Pull,
        project: &Project,
        stamp: Option<Stamp>,
    ) -> bool {
        let lacking = stamp.and_then(|stamp| {
            let mut admissions = self.admissions.lock();
            let found = admissions.find(pull, &project.metadata, stamp, clock::timestamp());
            found.map(|admission| admission.lacking.clone())
        });
        let from = if lacking.is_some() { "memory" } else { "records" };
        metrics::counter!("atoll_gate_decisions_total", "from" => from).increment(1);
        if let Some(Some(refusal)) = &lacking {
            warn_unsigned(&pull.repository, &pull.digest, refusal);
        }
        lacking.is_some()
    }

    /// Remembers that a pull was let pass, if all that was read for it was fresh. The stamp is from
    /// before that.
    pub(super) fn remember(
        &self,
        pull: Pull,
        project: &Project,
        stamp: Option<Stamp>,
        basis: Basis,
    ) {
        let Basis { is_fresh: true, until, lacking, .. } = basis else { return };
        let Some(stamp) = stamp else { return };
        // not earlier: something may have begun to count since
        let at = clock::timestamp();
        let end = self.neighbours.is_edge().then(|| at.after(AT_AN_EDGE));
        let until = until.into_iter().chain(end).min();
        let admission = Admission { metadata: project.metadata.clone(), stamp, at, until, lacking };
        self.admissions.lock().remember(pull, admission);
    }

    /// Refuses the manifest for what was found in it. What no runtime could run passes.
    pub(super) async fn check_scans(
        &self,
        gate: &Gate,
        project: &Project,
        repository: &RepositoryName,
        served: &Served<'_>,
        basis: &mut Basis,
    ) -> Result<(), Failure> {
        let (read, digest) = (Image::read(served.bytes), served.digest);
        // what runtimes may read in another way than this registry has no report, and does not pass
        if read == Runnable::Nothing {
            let is_index = Image::parts(served.bytes).is_none_or(|one| one == Image::default());
            return match is_index && carries_manifests(served.bytes) {
                true => Err(hidden(project)),
                false => Ok(()),
            };
        }
        let is_cached = project.upstream.is_some();
        // a pull of what is cached has asked for the scan itself, if there can be one
        let asks = is_cached && matches!(read, Runnable::Image(_));
        let mut patience = Patience::default();
        loop {
            let (facts, freshness) = self.facts(gate, project, repository, digest).await?;
            let Some(facts) = facts else {
                basis.rests_on(freshness, None);
                return Ok(());
            };
            let (known, now) = (facts.known(), clock::timestamp());
            let decision = match asks {
                true => decide_cached(gate, known, &facts.allowed, now),
                false => decide(gate, known, &facts.allowed, now),
            };
            match decision {
                Decision::Pass => {
                    basis.rests_on(freshness, facts.allowed.changes_at(now));
                    return Ok(());
                }
                Decision::Refuse(why) => return Err(refusal(repository, digest, &why)),
                Decision::Wait(wait, why) => {
                    if patience.lasts(wait).await {
                        continue;
                    }
                    return Err(match is_cached {
                        true => come_back(
                            repository,
                            digest,
                            &format!("is being scanned; try again ({why})"),
                        ),
                        false => refusal(repository, digest, &why),
                    });
                }
            }
        }
    }

    /// What decides; `None` if nothing is scanned in this mesh. A node that is cut off uses what it
    /// knows, and an edge that knows nothing of the image counts it as not scanned.
    async fn facts(
        &self,
        gate: &Gate,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(Option<Facts>, Freshness), Failure> {
        let read =
            self.door.read(|records| records.scan_facts(gate, project.id, repository, digest));
        match read.await {
            Err(_) if self.neighbours.is_edge() => Ok((Some(Facts::default()), Freshness::Stale)),
            read => read,
        }
    }
}

impl Registry {
    /// Refuses the manifest if its project demands signatures that it does not have. Signatures, and
    /// what else is only about other manifests, pass; so does everything for those who may sign. Says
    /// whether it would pass for everybody.
    async fn check_signatures(
        &self,
        policy: &Policy,
        caller: &Caller,
        project: &Project,
        pull: &Pull,
        manifest: &ManifestRecord,
        basis: &mut Basis,
    ) -> Result<bool, Failure> {
        let Pull { repository, digest, tag, .. } = pull;
        let tag = tag.as_ref();
        let fallback = tag.and_then(Fallback::of);
        match about(&Served::of(digest, manifest), fallback.is_some()) {
            About::Another => return Ok(true),
            About::AnotherIfSignatures => {
                let subject = fallback.and_then(|fallback| fallback.digest());
                if let Some(subject) = subject.or(manifest.subject)
                    && self.are_signatures(repository, &subject, digest, basis).await?
                {
                    return Ok(true);
                }
            }
            About::Itself => {}
        }
        let mut patience = Patience::default();
        loop {
            let (facts, freshness) = self.signature_facts(project, repository, digest, tag).await?;
            // a tag that is moved is no change of what is remembered
            basis.is_fresh &= facts.tags.is_none();
            let (SignatureFacts { signers, own, parents, .. }, tags) = (&facts, facts.tags());
            let (pushed, now) = (manifest.pushed, clock::timestamp());
            let context = Context { repository, cached: false, tag, tags, pushed, now };
            let until = || signatures::changes_at(signers, own, parents, now);
            let refusal = match signatures::decide(policy, signers, own, parents, &context) {
                signatures::Decision::Pass => {
                    match policy.mode {
                        Mode::Enforce | Mode::Off => basis.rests_on(freshness, until()),
                        Mode::Warn => basis.warns_by(freshness, until()),
                    }
                    return Ok(true);
                }
                signatures::Decision::Warn(refusal) => {
                    basis.warns_by(freshness, until());
                    warn_unsigned(repository, digest, &refusal);
                    basis.lacking = Some(refusal);
                    return Ok(true);
                }
                signatures::Decision::Refuse(refusal) => refusal,
                signatures::Decision::Wait(wait, refusal) => {
                    if self.may_sign(caller, project).await? {
                        return Ok(false);
                    }
                    if patience.lasts(wait).await {
                        continue;
                    }
                    refusal
                }
            };
            if self.may_sign(caller, project).await? {
                return Ok(false);
            }
            return Err(unsigned(policy, project, repository, digest, &refusal, None));
        }
    }

    /// Whether the primary has read this manifest, and found that all its blobs are text about
    /// `subject`.
    pub(super) async fn are_signatures(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        manifest: &Digest,
        basis: &mut Basis,
    ) -> Result<bool, Failure> {
        let read = self.door.read(|records| records.signatures_of(repository, subject));
        let known = match read.await {
            Ok((known, freshness)) => {
                basis.rests_on(freshness, None);
                known
            }
            Err(_) if self.neighbours.is_edge() => return Ok(false),
            Err(failure) => return Err(failure),
        };
        Ok(known.evidence.iter().any(|one| one.manifest == *manifest && one.is_text))
    }

    async fn may_sign(&self, caller: &Caller, project: &Project) -> Result<bool, Failure> {
        let read = self.door.read(|records| caller.identity.may(records, SIGN, project));
        Ok(read.await?.0)
    }

    /// What decides. An edge that is cut off and knows nothing of an image counts it as unsigned.
    pub(super) async fn signature_facts(
        &self,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<(SignatureFacts, Freshness), Failure> {
        let by_digest = tag.is_none() && project.upstream.is_none();
        let look = |records: &dyn ReadRecords| match by_digest {
            true => records.signature_facts_by_digest(project.id, repository, digest),
            false => records.signature_facts(project.id, repository, digest),
        };
        let read = self.door.read(look);
        match read.await {
            Err(_) if self.neighbours.is_edge() => {
                Ok((SignatureFacts::default(), Freshness::Stale))
            }
            read => read,
        }
    }
}

/// Why a manifest needs no signature of its own, if it needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Nothing runs it, and it only says something of another manifest; or it is a list of such, and
    /// what it lists is judged for itself.
    Another,
    /// The same, if what it calls signatures are some: it has the configuration of an image, so docker
    /// would take them for layers.
    AnotherIfSignatures,
    /// It may be something to run.
    Itself,
}

pub(super) fn about(served: &Served<'_>, behind_such_a_tag: bool) -> About {
    if Image::read(served.bytes) != Runnable::Nothing {
        return About::Itself;
    }
    match Image::parts(served.bytes) {
        Some(parts) if parts == Image::default() => {
            match behind_such_a_tag && !carries_manifests(served.bytes) {
                true => About::Another,
                false => About::Itself,
            }
        }
        Some(parts) if parts.has_image_config() => match parts.attests() {
            true => About::AnotherIfSignatures,
            false => About::Itself,
        },
        Some(parts)
            if parts.attests() || served.subject.is_some() && parts.layers.iter().all(is_text) =>
        {
            About::Another
        }
        _ => About::Itself,
    }
}

/// Whether an index has manifests inside (`data`): clients that read them never ask for what it lists,
/// so nobody could refuse that. Go's JSON takes the key in any case.
fn carries_manifests(bytes: &[u8]) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return true };
    let lists = fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case("manifests"));
    let entries = lists.flat_map(|(_, list)| list.as_array().into_iter().flatten());
    let mut keys = entries.flat_map(|entry| entry.as_object().into_iter().flat_map(Map::keys));
    keys.any(|key| key.eq_ignore_ascii_case("data"))
}

/// Whether a layer is text or a signature: no runtime takes it for a program. The types of programs
/// for other machines (WebAssembly) are none of these.
fn is_text(layer: &Layer) -> bool {
    let kind = layer.media_type.to_ascii_lowercase();
    let ends = ["+json", "/json", "+xml", "/xml", "/cose"];
    kind.starts_with("text/") || ends.iter().any(|end| kind.ends_with(end))
}

pub(super) fn warn_unsigned(repository: &RepositoryName, digest: &Digest, refusal: &Refusal) {
    count_unsigned("warned");
    tracing::info!(%repository, %digest, %refusal, "served without signatures");
}

fn count_unsigned(what: &'static str) {
    metrics::counter!("atoll_unsigned_pulls_total", "result" => what).increment(1);
}

/// The refusal, with what else is to be said of it.
pub(super) fn unsigned(
    policy: &Policy,
    project: &Project,
    repository: &RepositoryName,
    digest: &Digest,
    refusal: &Refusal,
    more: Option<&str>,
) -> Failure {
    count_unsigned("refused");
    tracing::debug!(%repository, %digest, %refusal, "a pull is refused");
    let harbors = policy.as_harbor || matches!(refusal, Refusal::Absent(_));
    let code = if harbors { Code::Prevented } else { Code::Denied };
    let message = match refusal {
        // Harbor's own words
        Refusal::Absent(_) => refusal.to_string(),
        _ => {
            let name = &project.name;
            format!("project {name} serves signed images only (signature_policy), and {refusal}")
        }
    };
    let message = more.map_or(message.clone(), |more| format!("{message}; {more}"));
    let detail = json!({
        "project": project.name.to_string(),
        "artifact": format!("{repository}@{digest}"),
        "reason": refusal.reason(),
        "policy": policy.mode.as_str(),
    });
    Failure::new(code, message).detail(detail)
}

fn hidden(project: &Project) -> Failure {
    let name = &project.name;
    let said = format!(
        "project {name} refuses vulnerable images (prevent_vul), and this index carries manifests inside (data), which nobody could refuse"
    );
    Failure::new(Code::Prevented, said)
}

/// What is cached may have to be asked of the upstream first, which takes longer than a client waits: one
/// that asks again finds the answer.
pub(super) fn come_back(repository: &RepositoryName, digest: &Digest, why: &str) -> Failure {
    tracing::debug!(%repository, %digest, why, "a pull is to come again");
    Failure::new(Code::Unavailable, format!("{repository}@{digest} {why}"))
        .header(header::RETRY_AFTER, "5")
}

fn refusal(repository: &RepositoryName, digest: &Digest, why: &Prevented) -> Failure {
    metrics::counter!("atoll_pulls_prevented_total").increment(1);
    tracing::debug!(%repository, %digest, %why, "a pull is refused");
    Failure::new(Code::Prevented, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_come_again_is_told_when() {
        let repository = "hub/app".parse().unwrap();
        let said = come_back(&repository, &Digest::sha256(b"x"), "is being scanned").response();
        assert_eq!(said.status(), http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said.headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn an_index_that_carries_its_images_hides_them() {
        let listed = json!({"schemaVersion": 2, "manifests": [{"digest": "x"}]});
        let inside = json!({"schemaVersion": 2, "manifests": [{"digest": "x", "data": "e30="}]});
        assert!(!carries_manifests(listed.to_string().as_bytes()));
        assert!(carries_manifests(inside.to_string().as_bytes()));
    }

    #[test]
    fn only_what_nothing_runs_needs_no_signature() {
        let digest = Digest::sha256(b"x").to_string();
        let blob = |kind: &str| json!({"mediaType": kind, "digest": digest, "size": 7});
        let of = |config: &str, layer: &str| json!({"schemaVersion": 2, "config": blob(config), "layers": [blob(layer)]});
        let judge = |manifest: &Value, subject_of: bool, behind: bool| {
            let bytes = manifest.to_string().into_bytes();
            let (digest, subject) = (Digest::sha256(&bytes), Digest::sha256(b"subject"));
            let subject = subject_of.then_some(subject);
            about(&Served { digest: &digest, bytes: &bytes, subject }, behind)
        };
        let image = "application/vnd.oci.image.config.v1+json";
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let empty = "application/vnd.oci.empty.v1+json";
        let simple = "application/vnd.dev.cosign.simplesigning.v1+json";
        let wasm = "application/vnd.wasm.config.v0+json";
        let chart = "application/vnd.cncf.helm.config.v1+json";
        let inside = json!({"manifests": [{"digest": "x", "Data": "e30="}]});
        for (manifest, subject, behind, expected) in [
            (of(image, layer), false, false, About::Itself),
            (of(image, layer), true, true, About::Itself),
            (of(image, simple), false, true, About::AnotherIfSignatures),
            (of(image, simple), false, false, About::AnotherIfSignatures),
            (
                of(empty, "application/vnd.dev.sigstore.bundle.v0.3+json"),
                true,
                false,
                About::Another,
            ),
            (
                of("application/vnd.cncf.notary.signature", "application/cose"),
                true,
                false,
                About::Another,
            ),
            (of(empty, "application/spdx+json"), false, false, About::Another),
            (of(wasm, "application/wasm"), true, true, About::Itself),
            (of(chart, "application/x-tar"), true, true, About::Itself),
            (of(empty, "application/vnd.acme.report+json"), true, false, About::Another),
            (of(empty, "application/vnd.acme.report+json"), false, true, About::Itself),
            (json!({"schemaVersion": 2, "manifests": []}), false, false, About::Itself),
            (json!({"schemaVersion": 2, "manifests": []}), false, true, About::Another),
            (inside, false, true, About::Itself),
        ] {
            assert_eq!(
                judge(&manifest, subject, behind),
                expected,
                "{manifest} {subject} {behind}"
            );
        }
    }
}
