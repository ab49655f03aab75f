//! Why an image is served at this node, or is not: the decision that a pull would meet now, what it
//! rests on, and what would change it. Not in Harbor.

use std::collections::BTreeSet;

use ground::clock;
use http::{Response, StatusCode};
use registry::view::Freshness;
use rules::ledger::cached_scans::{LookForCachedScans, decide_cached};
use rules::ledger::cached_signatures::LookForCachedSignatures;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::ledger::scanning::{DatabaseRecord, Facts, LookForScans, ScanRecord};
use rules::ledger::sign_due::{self, LookForDue};
use rules::ledger::signatures::{Facts as SignatureFacts, LookForSignatures};
use rules::policies::signatures::metadata as signed;
use rules::policies::signatures::{
    self, Context, Named, Own, Policy as SignaturePolicy, Refusal, Rule, SignatureRecord, counts,
    exempting, signed_under,
};
use rules::policies::vulnerabilities::{
    Decision, Gate, ScanStatus, Unscanned, Weakness, decide, metadata,
};
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, Reference, RepositoryName, Tag};
use serde_json::{Map, Value, json};

mod remedies;

use super::Harbor;
use super::artifacts::listed_in;
use super::stored::missing;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};

/// The metadata that the decision rests on.
const READ: [&str; 17] = [
    signed::AUTO,
    signed::HOST,
    signed::MODE,
    signed::REQUIRE,
    signed::NAME,
    signed::CHILDREN,
    signed::WAIT,
    signed::STATUS,
    signed::HARBOR_COSIGN,
    signed::HARBOR_NOTATION,
    metadata::PREVENT,
    metadata::SEVERITY,
    metadata::SYSTEM_ALLOWLIST,
    metadata::UNSCANNED,
    metadata::INSUFFICIENT,
    metadata::FIXABLE,
    metadata::AUTO_SCAN,
];
/// The maximum number of an index's images that are explained.
const CHILDREN: usize = 50;
/// The maximum number of findings that are shown of each kind.
const SHOWN: usize = 200;

/// The maximum number of bytes of manifests that are looked into for one answer: they may have
/// megabytes each.
const LOOKED_INTO: usize = 8 << 20;

/// What is read of one manifest.
struct Read {
    digest: Digest,
    /// Whether a runtime could run it, or could read it in several ways.
    is_image: bool,
    /// `None` without a gate, or if nothing is scanned in this mesh.
    facts: Option<Facts>,
    /// What is known of its scans, whether that decides or not.
    scan: Option<ScanRecord>,
    /// `None` without a policy about signatures.
    signatures: Option<SignatureFacts>,
    pushed: Timestamp,
}

impl Harbor {
    pub(super) async fn explain(
        &self,
        project: &Project,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let now = clock::timestamp();
        let look = |records: &dyn ReadRecords| {
            let (mut all, mut looked_into, mut gone) = (Vec::new(), 0, Vec::new());
            let mut blobs = BTreeSet::new();
            let gate = records.gate_of(project)?;
            let signing = records.signature_policy_of(project)?;
            let named = match reference {
                Reference::Tag(tag) => records.tag(name, tag)?.map(|tag| tag.digest),
                Reference::Digest(digest) => Some(*digest),
            };
            let Some(digest) = named else {
                return Ok((all, None, (0, gone, blobs), None, (gate, signing)));
            };
            let ruled = match tag {
                Some(tag) => by_rule(records, project, name, (&digest, tag), now)?,
                None => None,
            };
            let children = listed_in(records, name, &digest)?;
            let listed = children.len();
            for one in std::iter::once(digest).chain(children.into_iter().take(CHILDREN)) {
                if looked_into > LOOKED_INTO {
                    break;
                }
                // what a sparse index lists need not be here
                let Some(manifest) = records.manifest(name, &one)? else {
                    gone.push(one);
                    continue;
                };
                let facts = match &gate {
                    Some(gate) => records.scan_facts(gate, project.id, name, &one)?,
                    None => None,
                };
                let scan = match &facts {
                    Some(facts) => facts.scan.clone(),
                    None => records.scan_of(name, &one)?,
                };
                let signatures = match &signing {
                    // what an index lists is pulled by digest
                    Some(_) if project.upstream.is_none() && (tag.is_none() || one != digest) => {
                        Some(records.signature_facts_by_digest(project.id, name, &one)?)
                    }
                    Some(_) => Some(records.signature_facts(project.id, name, &one)?),
                    None => None,
                };
                looked_into += manifest.bytes.len();
                let pushed = manifest.pushed;
                blobs.extend(manifest.blobs.iter().copied());
                let is_image = Image::read(&manifest.bytes) != Runnable::Nothing;
                all.push(Read { digest: one, is_image, facts, scan, signatures, pushed });
            }
            let database = match gate.is_some() {
                true => records.scan_database()?,
                false => None,
            };
            Ok::<_, RecordError>((all, database, (listed, gone, blobs), ruled, (gate, signing)))
        };
        // a node that is cut off decides by what it has kept, and says so
        let ((all, database, (listed, gone, blobs), ruled, (gate, signing)), freshness) =
            self.door.read_at_length(look).await?;
        if all.is_empty() && project.upstream.is_some() {
            return Err(not_cached(name, reference));
        }
        if all.is_empty() {
            return Err(missing(&format!("artifact {name}@{reference}")));
        }
        let mut shown: Vec<Value> = all
            .iter()
            .enumerate()
            .map(|(at, one)| {
                let by_scan =
                    explanation(project, gate.as_ref(), name, one, database.as_ref(), now);
                let Some(policy) = &signing else { return by_scan };
                // what an index lists is pulled by digest
                let tag = tag.filter(|_| at == 0);
                with_signatures(by_scan, policy, project, (name, tag), one, now)
            })
            .collect();
        let children = shown.split_off(1.min(shown.len()));
        let mut answer = shown.pop().unwrap_or_else(|| json!({}));
        answer["node"] = self.neighbours.name_of(self.neighbours.me).into();
        answer["region"] = self.neighbours.region.to_string().into();
        answer["records"] = match freshness {
            Freshness::Fresh => "up to date".into(),
            Freshness::Stale => "may be old: this node does not hear the ledger's leader".into(),
            Freshness::Aged(ago) => {
                format!("kept {} s ago: this edge hears no replica", ago.as_secs()).into()
            }
            Freshness::Superseded(ago) => {
                let ago = ago.as_secs();
                format!("changed since they were kept {ago} s ago: this edge hears no replica")
                    .into()
            }
        };
        answer["policy"] = policy(project);
        if let Some(mut ruled) = ruled {
            // whether the primary can open the key is not in what decides
            if ruled["state"] == "due"
                && !self.neighbours.is_edge()
                && let Some(why) = self.waits_for_key(project).await?
            {
                (ruled["state"], ruled["why"]) = ("waits".into(), why.into());
            }
            answer["signing"] = ruled;
        }
        // what is not cached yet is asked of the upstream
        if project.upstream.is_none() && !gone.is_empty() {
            tell_of_gone(&mut answer, &project.name, listed, &gone);
        }
        // an edge cannot know, and what an upstream has is not lost
        if project.upstream.is_none() && !self.neighbours.is_edge() {
            let blobs: Vec<Digest> = blobs.into_iter().collect();
            tell_of_lost(&mut answer, &self.pulls.lost_among(&blobs).await?);
        }
        if listed > 0 {
            answer["images_in_all"] = listed.into();
            answer["images"] = children.into();
        }
        Ok(json_answer(StatusCode::OK, &answer))
    }
}

/// Nothing decides about an image of a registry that nobody has pulled.
fn not_cached(name: &RepositoryName, reference: &Reference) -> Failure {
    let mark = if matches!(reference, Reference::Digest(_)) { '@' } else { ':' };
    let said = format!(
        "{name}{mark}{reference} is not cached at this node, so nothing is known of it: the registry \
         that the project caches is asked when somebody pulls it. Pull it through this node, or \
         ask a node that has it (--url)"
    );
    Failure::new(Code::NotFound, said)
}

/// An index is served also if images are not here that it lists; whoever wants one of them gets none.
fn tell_of_gone(answer: &mut Value, project: &ProjectName, listed: usize, gone: &[Digest]) {
    let why = answer["why"].as_str().unwrap_or_default();
    let which = match gone.len() {
        all if all == listed => "none of the images that it lists is here".to_owned(),
        some => format!("{some} of the {listed} images that it lists are not here"),
    };
    answer["why"] =
        format!("{why}; but {which}, and a pull of one that is not is answered 404").into();
    answer["images_not_here"] = gone.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    let remedy = format!(
        "push the images that are not here again, or restore them if they were deleted: atoll trash list {project}"
    );
    match answer["remedies"].as_array_mut() {
        Some(remedies) => remedies.push(remedy.into()),
        None => answer["remedies"] = json!([remedy]),
    }
}

/// A manifest is served also if a blob that it names is lost; its pull fails then.
fn tell_of_lost(answer: &mut Value, lost: &[Digest]) {
    if lost.is_empty() {
        return;
    }
    let why = answer["why"].as_str().unwrap_or_default();
    let count = lost.len();
    answer["why"] = format!(
        "{why}; but no replica has a sound copy of {count} of its blobs, and a pull of one is answered 404"
    )
    .into();
    answer["blobs_lost"] = lost.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    let remedy = "push all layers of the image again with docker, podman or skopeo; crane and oras send nothing while the manifest is there: delete it first (`atoll artifact delete`)";
    match answer["remedies"].as_array_mut() {
        Some(remedies) => remedies.push(remedy.into()),
        None => answer["remedies"] = json!([remedy]),
    }
}

/// The metadata of the project that the decision rests on.
fn policy(project: &Project) -> Value {
    let entry = |key: &&str| {
        let value = project.metadata.get(*key)?;
        Some(((*key).to_owned(), Value::from(value.as_str())))
    };
    Value::Object(READ.iter().filter_map(entry).collect::<Map<_, _>>())
}

fn explanation(
    project: &Project,
    gate: Option<&Gate>,
    name: &RepositoryName,
    read: &Read,
    database: Option<&DatabaseRecord>,
    now: Timestamp,
) -> Value {
    let digest = read.digest;
    let says = |decision: &str, why: &str| {
        json!({
            "artifact": format!("{name}@{digest}"),
            "decision": decision,
            "why": why,
            "remedies": [],
        })
    };
    let Some(gate) = gate else {
        let mut answer = says(
            "pass",
            match project.upstream {
                Some(_) => {
                    "the project, which caches a registry, prevents no vulnerable images (prevent_vul is not true, or was set before feature level 13: set it again)"
                }
                None => "the project prevents no vulnerable images (prevent_vul is not true)",
            },
        );
        // a scan that fails is not seen where it decides nothing
        if let Some(scan) = &read.scan {
            answer["scan_status"] = scan.status().word().into();
            answer["last_scan"] = last_scan(Some(scan));
        }
        return answer;
    };
    if !read.is_image {
        return says(
            "pass",
            "it is no image that a runtime could run: an index, a chart, a signature",
        );
    }
    let Some(facts) = &read.facts else {
        return says(
            "pass",
            "this mesh has no database of vulnerabilities (scan.database), and the project no other scanner",
        );
    };
    let decided = match project.upstream {
        None => decide(gate, facts.known(), &facts.allowed, now),
        Some(_) => decide_cached(gate, facts.known(), &facts.allowed, now),
    };
    let (decision, why) = match decided {
        Decision::Pass => ("pass", pass(gate, facts)),
        Decision::Wait(wait, why) => {
            ("wait", format!("a pull waits up to {} s for the scan; else: {why}", wait.as_secs()))
        }
        Decision::Refuse(why) => ("refuse", why.to_string()),
    };
    let mut answer = says(decision, &why);
    answer["scan_status"] =
        facts.scan.as_ref().map_or(ScanStatus::NotScanned, |one| one.status()).word().into();
    let report = facts.scan.as_ref().and_then(|scan| scan.report.as_ref());
    let found = report.map(|report| report.found.as_slice()).unwrap_or_default();
    let counted: Vec<&Weakness> = gate.counted(found, &facts.allowed, now).collect();
    let exempted: Vec<&Weakness> = gate.exempted(found, &facts.allowed, now).collect();
    let list = |of: &[&Weakness]| of.iter().take(SHOWN).map(|one| show(one)).collect::<Vec<_>>();
    answer["counted"] = list(&counted).into();
    answer["counted_in_all"] = counted.len().into();
    answer["allowed"] = list(&exempted).into();
    answer["allowlist"] = json!({
        "of": if gate.system_allowlist { "mesh" } else { "project" },
        "ids": facts.allowed.ids.len(),
        "expires_at": facts.allowed.expires.map(|end| end.0 / 1000),
        "ended": facts.allowed.expires.is_some_and(|end| now >= end),
    });
    answer["report"] = report.map_or(Value::Null, |report| {
        json!({
            "number": report.number,
            "at": report.at.to_string(),
            "engine": report.engine,
            "database": (!report.is_from_elsewhere()).then(|| report.database.to_string()),
            "insufficient": report.insufficient,
            "found": report.found.len(),
        })
    });
    answer["last_scan"] = last_scan(facts.scan.as_ref());
    answer["database"] = database.map_or(
        Value::Null,
        |used| json!({"digest": used.digest.to_string(), "updated_at": used.updated.to_string()}),
    );
    if decision != "pass" {
        answer["remedies"] = remedies(gate, &project.name, name, digest, facts, &counted).into();
    }
    answer
}

/// How the last scan has ended, if it has no report: what counts is older then, or there is nothing.
fn last_scan(scan: Option<&ScanRecord>) -> Value {
    let unfinished = scan.and_then(|scan| scan.unfinished.as_ref());
    unfinished.map_or(Value::Null, |one| {
        json!({
            "number": one.number,
            "at": one.at.to_string(),
            "why": one.why.as_deref().unwrap_or("it was stopped"),
        })
    })
}

/// The same with what signatures decide: that is asked first.
fn with_signatures(
    mut answer: Value,
    policy: &SignaturePolicy,
    project: &Project,
    (name, tag): (&RepositoryName, Option<&Tag>),
    read: &Read,
    now: Timestamp,
) -> Value {
    let Some(facts) = &read.signatures else { return answer };
    // the upstream's word is not waited for here
    let cached = project.upstream.is_some();
    let pushed = if cached { Timestamp(0) } else { read.pushed };
    let tags = facts.tags();
    let context = Context { repository: name, cached, tag, tags, pushed, now };
    let decided = signatures::decide(policy, &facts.signers, &facts.own, &facts.parents, &context);
    let all = facts.own.evidence.iter().flat_map(|one| &one.signatures);
    let (word, why) = match &decided {
        signatures::Decision::Pass => ("pass", enough(policy, facts, &context)),
        signatures::Decision::Warn(why) => ("warn", why.to_string()),
        signatures::Decision::Wait(wait, why) => {
            ("wait", format!("a pull waits up to {} s for signatures; else: {why}", wait.as_secs()))
        }
        signatures::Decision::Refuse(why) => ("refuse", why.to_string()),
    };
    answer["signatures"] = json!({
        "decision": word,
        "why": why,
        "count": all.count(),
        "inherited_from": facts.own.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let refusal = match decided {
        signatures::Decision::Refuse(refusal) | signatures::Decision::Wait(_, refusal) => refusal,
        _ => {
            // both let it pass, or the scan does not
            if answer["decision"] == "pass" {
                let scan = answer["why"].as_str().unwrap_or_default();
                answer["why"] = format!("{why}; {scan}").into();
            }
            return answer;
        }
    };
    answer["decision"] = word.into();
    answer["why"] = why.into();
    let (image, whole, project) = (format!("{name}@{}", read.digest), project, &project.name);
    let host = sign_due::host(whole).unwrap_or("HOST");
    let mut remedies = match &refusal {
        Refusal::Absent(tool) => vec![format!("sign it with {tool}")],
        Refusal::Unsigned if cached => vec![format!(
            "sign it at the registry that the project caches; it is asked for signatures when somebody pulls {image}"
        )],
        Refusal::Unsigned => Vec::new(),
        Refusal::Insufficient { .. } => {
            vec![format!("see what is wrong with each signature: atoll signatures {image}")]
        }
    };
    if !cached && !matches!(refusal, Refusal::Absent(_)) {
        let names = (host, &*image);
        let told = remedies::to_sign(policy, &facts.signers, &refusal, &context, names);
        remedies.splice(0..0, told);
    }
    if facts.signers.is_empty() && policy.mode != signatures::Mode::Off {
        remedies.push(format!(
            "the project trusts nobody yet: atoll signer add NAME --project {project} --key FILE"
        ));
    }
    remedies.push(format!(
        "in an emergency, serve it for a while: atoll exempt {image} --reason TEXT --until DATE"
    ));
    if let Some(known) = answer["remedies"].as_array() {
        remedies.extend(known.iter().filter_map(|one| one.as_str().map(str::to_owned)));
    }
    answer["remedies"] = remedies.into();
    answer
}

/// By what an image passes that needs signatures.
fn enough(policy: &SignaturePolicy, facts: &SignatureFacts, context: &Context<'_>) -> String {
    if let Some((index, exemption)) = exempting(&facts.own, &facts.parents, context.now) {
        let (until, by, why) = (exemption.until, &exemption.by, &exemption.why);
        return match index.and_then(|at| facts.own.parents.get(at)) {
            Some(index) => {
                format!("{by} has exempted the index {index}, which lists it, until {until}: {why}")
            }
            None => format!("{by} has exempted it until {until}: {why}"),
        };
    }
    let parents = facts.parents.iter().filter(|_| policy.children);
    let names = |record: &SignatureRecord| {
        let seen = record.evidence.iter().flat_map(|one| &one.signatures);
        let good = seen.filter_map(|seen| {
            let names = counts(policy, &facts.signers, seen, context).ok()?;
            // "mesh" also stands for each of the project's own keys, which are there by name
            let is_it = move |name: &&str| {
                facts.signers.iter().any(|one| one.name == **name && one.is(&seen.signature.by))
            };
            Some(names.into_iter().filter(is_it))
        });
        good.flatten().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (own, inherited): (BTreeSet<_>, BTreeSet<_>) =
        (names(&facts.own), parents.flat_map(names).collect());
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    match (own.is_empty(), inherited.is_empty()) {
        (false, _) => format!("it is signed by {}", list(&own)),
        (true, false) => format!("an index that lists it is signed by {}", list(&inherited)),
        (true, true) => "the project demands no signature of it".to_owned(),
    }
}

/// What the mesh's own rule says of an image: whether it is signed, and what it waits for.
fn by_rule(
    records: &dyn ReadRecords,
    project: &Project,
    name: &RepositoryName,
    (digest, tag): (&Digest, &Tag),
    now: Timestamp,
) -> Result<Option<Value>, RecordError> {
    let Some(rule) = Rule::of(&project.metadata) else { return Ok(None) };
    let says = |state: &str, why: String| {
        let rule = project.metadata.get(signed::AUTO);
        Ok(Some(json!({"rule": rule, "state": state, "why": why})))
    };
    if !rule.covers(tag) {
        return says("none", format!("the rule is not about the tag {tag}"));
    }
    let Some(host) = sign_due::host(project) else {
        let why =
            "the project does not say under which name clients know this registry (signature_host)";
        return says("waits", why.into());
    };
    let signers = records.trusted(project.id)?.signers;
    let Some(own) = Own::of(&signers) else {
        let name = &project.name;
        let why = format!("the project has no key of its own: atoll sign key --project {name}");
        return says("waits", why);
    };
    // a form for notation that is to come is not waited for
    let own = Own { authority: None, ..own };
    let reference = sign_due::reference(host, name, Some(tag));
    if signed_under(&records.signatures_of(name, digest)?, &own, &Named::new()).contains(&reference)
    {
        return says("signed", format!("the mesh has signed it as {reference}"));
    }
    let parts = records.parts_of(project, name, *digest)?;
    match records.why_not(project, name, &parts, now)? {
        Some(why) => says("waits", why),
        None => says("due", "its primary signs it in a moment".into()),
    }
}

/// Why it passes.
fn pass(gate: &Gate, facts: &Facts) -> String {
    let Some(report) = facts.scan.as_ref().and_then(|scan| scan.report.as_ref()) else {
        return "it has no report, and the project lets such images pass (vul_unscanned)".into();
    };
    let (threshold, only) =
        (gate.threshold.word(), if gate.fixable_only { " and with a fix" } else { "" });
    match &report.insufficient {
        Some(why) => format!(
            "too little is known of it ({why}), and the project lets such images pass (vul_insufficient)"
        ),
        None => format!(
            "nothing of severity {threshold} or higher{only} was found that the allowlist does not let pass"
        ),
    }
}

fn show(weakness: &Weakness) -> Value {
    json!({
        "id": weakness.id.to_string(),
        "severity": weakness.severity.word(),
        "fixable": weakness.fixable,
    })
}

/// What would let the image pass, the best first.
fn remedies(
    gate: &Gate,
    project: &ProjectName,
    name: &RepositoryName,
    digest: Digest,
    facts: &Facts,
    counted: &[&Weakness],
) -> Vec<String> {
    let mut all = Vec::new();
    let image = format!("{name}@{digest}");
    let failed = facts.scan.as_ref().and_then(|scan| scan.unfinished.as_ref()?.why.as_ref());
    let report = facts.scan.as_ref().and_then(|scan| scan.report.as_ref());
    let status = facts.scan.as_ref().map_or(ScanStatus::NotScanned, |one| one.status());
    if report.is_none() {
        match status {
            ScanStatus::Pending | ScanStatus::Running => {
                all.push(format!("wait for the scan: atoll scan {image}"));
            }
            _ if failed.is_some() => all.push(format!(
                "mend why its scan has failed (last_scan), and scan it again: atoll scan {image}"
            )),
            _ => all.push(format!("scan it: atoll scan {image}")),
        }
        if gate.unscanned == Unscanned::Block {
            all.push(format!(
                "let pulls wait for scans: atoll project set {} vul_unscanned=\"wait 30\"",
                project
            ));
        }
        return all;
    }
    let fixable = counted.iter().filter(|one| one.fixable).count();
    if fixable > 0 {
        all.push(format!(
            "build it anew with packages that have the fixes ({fixable} of {} have one): atoll vulnerabilities {image} --fixable",
            counted.len()
        ));
    }
    if !counted.is_empty() {
        let of = match gate.system_allowlist {
            true => "of the mesh: atoll allowlist add ID...".to_owned(),
            false => format!("of the project: atoll allowlist add --project {project} ID..."),
        };
        // without the ids: they come from a database that others write
        all.push(format!("let them pass: add their ids to the allowlist {of}"));
    } else {
        all.push(format!(
            "let images of such systems pass: atoll project set {} vul_insufficient=allow",
            project
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rules::ledger::scanning::{Report, ScanRecord, Unfinished};
    use rules::policies::vulnerabilities::{Allowlist, Severity, VulnerabilityId};

    use super::*;

    fn facts(found: Vec<Weakness>, ids: &[&str]) -> Facts {
        let report = Report {
            number: 1,
            begun: Timestamp(1),
            at: Timestamp(1),
            engine: "Atoll".into(),
            database: Digest::sha256(b"database"),
            insufficient: None,
            found,
            log: String::new(),
        };
        let scan = Some(ScanRecord { report: Some(report), ..ScanRecord::default() });
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        Facts { scan, allowed: Allowlist { ids, expires: None } }
    }

    #[test]
    fn an_index_without_its_images_is_not_said_to_be_whole() {
        let project: ProjectName = "shop".parse().unwrap();
        let gone = [Digest::sha256(b"a"), Digest::sha256(b"b")];
        let mut answer = json!({"why": "it is an index", "remedies": []});
        tell_of_gone(&mut answer, &project, 3, &gone);
        let why = answer["why"].as_str().unwrap();
        assert!(why.contains("2 of the 3 images that it lists are not here"), "{why}");
        assert_eq!(answer["images_not_here"][1], gone[1].to_string());
        assert!(answer["remedies"][0].as_str().unwrap().contains("atoll trash list shop"));
        tell_of_gone(&mut answer, &project, 2, &gone);
        assert!(answer["why"].as_str().unwrap().contains("none of the images"));
        let said = not_cached(&"hub/library/nginx".parse().unwrap(), &"latest".parse().unwrap());
        assert!(said.message().starts_with("hub/library/nginx:latest is not cached"), "{said:?}");
    }

    #[test]
    fn what_would_let_an_image_pass_is_told_the_best_first() {
        let weak = |id: &str, fixable| Weakness {
            id: VulnerabilityId::from(id),
            severity: Severity::High,
            fixable,
        };
        let found = vec![weak("CVE-2024-0001", true), weak("CVE-2024-0002", false)];
        let facts = facts(found.clone(), &["CVE-2020-0009"]);
        let metadata: BTreeMap<String, String> =
            [(metadata::PREVENT.to_owned(), "true".to_owned())].into();
        let gate = Gate::of(&metadata).unwrap();
        let counted: Vec<&Weakness> = found.iter().collect();
        let project = "shop".parse().unwrap();
        let name = "shop/web".parse().unwrap();
        let digest = Digest::sha256(b"image");
        let said = remedies(&gate, &project, &name, digest, &facts, &counted);
        assert!(said[0].contains("1 of 2 have one"), "{said:?}");
        assert_eq!(
            said[1],
            "let them pass: add their ids to the allowlist of the mesh: atoll allowlist add ID..."
        );
        let unscanned = Facts::default();
        let said = remedies(&gate, &project, &name, digest, &unscanned, &[]);
        assert_eq!(said[0], format!("scan it: atoll scan shop/web@{digest}"));
        assert!(said[1].contains("vul_unscanned"), "{said:?}");
        assert_eq!(last_scan(unscanned.scan.as_ref()), Value::Null);
        let why = Some("the scanner has no room".to_owned());
        let unfinished = Some(Unfinished { number: 7, at: Timestamp(1), why });
        let scan = Some(ScanRecord { unfinished, ..ScanRecord::default() });
        let failed = Facts { scan, ..Facts::default() };
        assert_eq!(last_scan(failed.scan.as_ref())["why"], "the scanner has no room");
        let said = remedies(&gate, &project, &name, digest, &failed, &[]);
        assert!(said[0].contains("mend why its scan has failed"), "{said:?}");
    }
}
