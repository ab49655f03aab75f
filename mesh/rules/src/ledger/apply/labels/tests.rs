use super::*;
use crate::ledger::apply::trial::Ledger;
use crate::ledger::command::{Command, NewManifest, NewProject};
use crate::ledger::records::{MemoryRecords, ReadRecords, key as records_key};
use crate::proxies::proxy::ProxyChange;
use crate::words::manifest::media_type;
use crate::words::names::{Epoch, NodeId, ProjectName};

impl Ledger {
    fn label(&mut self, change: LabelChange) -> Outcome {
        self.run(Command::Label(Box::new(change)))
    }

    fn make(&mut self, project: Option<ProjectId>, name: &str) -> Outcome {
        self.label(LabelChange::Create { project, terms: terms(name) })
    }

    fn labelled_project(&mut self, name: &str) -> ProjectId {
        let name: ProjectName = name.parse().unwrap();
        let project = NewProject {
            name: name.clone(),
            public: false,
            durability: 1,
            home: NodeId(1),
            upstream: None,
            proxy: ProxyChange::default(),
            metadata: [("auto_scan".to_owned(), "true".to_owned())].into(),
        };
        assert_eq!(self.run(Command::CreateProject(project)), Outcome::Done);
        self.records.project(&name).unwrap().unwrap().id
    }

    fn push(&mut self, repository: &str, bytes: &str) -> Digest {
        let digest = Digest::sha256(bytes.as_bytes());
        let new = NewManifest {
            epoch: Epoch::FIRST,
            repository: repository.parse().unwrap(),
            digest,
            media_type: media_type::OCI_MANIFEST.into(),
            bytes: bytes.into(),
            tags: vec![],
            blobs: vec![],
            subject: None,
        };
        assert_eq!(self.run(Command::PutManifest(new)), Outcome::Done);
        digest
    }

    fn put_on(&mut self, repository: &str, digest: Digest, id: u64) -> Outcome {
        let repository = repository.parse().unwrap();
        self.label(LabelChange::Attach { repository, digest, id: LabelId(id) })
    }

    fn on(&self, repository: &str, digest: Digest) -> Vec<u64> {
        let found = self.records.labels_on(&repository.parse().unwrap(), &digest).unwrap();
        found.into_iter().map(|id| id.0).collect()
    }

    fn delete_manifest(&mut self, repository: &str, digest: Digest) -> Outcome {
        let (epoch, repository) = (Epoch::FIRST, repository.parse().unwrap());
        self.run(Command::DeleteManifest { epoch, repository, digest })
    }
}

fn terms(name: &str) -> LabelTerms {
    LabelTerms { name: name.into(), ..LabelTerms::default() }
}

fn about_labels(records: &MemoryRecords) -> usize {
    let counter = key::last();
    records.0.keys().filter(|place| matches!(place[0], b'3' | b'4') && **place != counter).count()
}

#[test]
fn a_name_is_given_once_in_a_project_and_numbers_are_not_used_again() {
    let mut ledger = Ledger::raised();
    let (one, other) = (ledger.labelled_project("one"), ledger.labelled_project("other"));
    for project in [None, Some(one), Some(other)] {
        assert_eq!(ledger.make(project, "good"), Outcome::Done);
        assert_eq!(ledger.make(project, "good"), Outcome::Exists);
    }
    assert_eq!(ledger.make(Some(ProjectId(99)), "good"), Outcome::NotFound);
    assert_eq!(ledger.make(Some(one), "bad"), Outcome::Done);
    let rename = |id: u64, name: &str| LabelChange::Change { id: LabelId(id), terms: terms(name) };
    assert_eq!(ledger.label(rename(4, "good")), Outcome::Exists);
    assert_eq!(ledger.label(rename(4, "bad")), Outcome::Done, "its own name is free for it");
    assert_eq!(ledger.label(rename(9, "new")), Outcome::NotFound);
    assert_eq!(ledger.label(LabelChange::Delete { id: LabelId(4) }), Outcome::Done);
    assert_eq!(ledger.label(LabelChange::Delete { id: LabelId(4) }), Outcome::NotFound);
    assert_eq!(ledger.make(Some(one), "bad"), Outcome::Done);
    let ids: Vec<u64> = ledger.records.labels(Some(one)).unwrap().iter().map(|l| l.id.0).collect();
    assert_eq!(ids, [2, 5]);
}

#[test]
fn labels_go_with_the_artifact_the_label_and_the_project() {
    let mut ledger = Ledger::raised();
    let (one, other) = (ledger.labelled_project("one"), ledger.labelled_project("other"));
    for project in [None, Some(one), Some(other)] {
        assert_eq!(ledger.make(project, "l"), Outcome::Done);
    }
    let (a, b) = (ledger.push("one/app", "a"), ledger.push("one/app", "b"));
    assert_eq!(ledger.put_on("one/app", a, 1), Outcome::Done);
    assert_eq!(ledger.put_on("one/app", a, 1), Outcome::Exists);
    assert_eq!(ledger.put_on("one/app", a, 2), Outcome::Done);
    assert_eq!(ledger.put_on("one/app", a, 3), Outcome::NotFound, "another project's label");
    assert_eq!(ledger.put_on("one/app", a, 9), Outcome::NotFound);
    assert_eq!(ledger.put_on("one/app", Digest::sha256(b"x"), 1), Outcome::NotFound);
    assert_eq!(ledger.put_on("one/app", b, 1), Outcome::Done);
    let off =
        LabelChange::Detach { repository: "one/app".parse().unwrap(), digest: b, id: LabelId(1) };
    assert_eq!(ledger.label(off.clone()), Outcome::Done);
    assert_eq!(ledger.label(off), Outcome::NotFound);
    assert_eq!((ledger.on("one/app", a), ledger.on("one/app", b)), (vec![1, 2], vec![]));

    assert_eq!(ledger.label(LabelChange::Delete { id: LabelId(1) }), Outcome::Done);
    assert_eq!(ledger.on("one/app", a), [2]);
    assert_eq!(ledger.delete_manifest("one/app", a), Outcome::Done);
    assert_eq!(ledger.push("one/app", "a"), a);
    assert!(ledger.on("one/app", a).is_empty(), "what comes again has no label");
    for digest in [a, b] {
        assert_eq!(ledger.delete_manifest("one/app", digest), Outcome::Done);
    }
    for name in ["one", "other"] {
        let (name, epoch) = (name.parse().unwrap(), Epoch::FIRST);
        assert_eq!(ledger.run(Command::DeleteProject { name, epoch }), Outcome::Done);
    }
    assert_eq!(about_labels(&ledger.records), 0);
}

#[test]
fn labels_are_bounded_and_one_on_many_artifacts_is_deleted_in_parts() {
    let mut ledger = Ledger::raised();
    let project = ledger.labelled_project("one");
    for n in 0..MOST_LABELS {
        assert_eq!(ledger.make(Some(project), &n.to_string()), Outcome::Done);
    }
    assert!(matches!(ledger.make(Some(project), "more"), Outcome::Refused(_)));
    assert_eq!(ledger.make(None, "more"), Outcome::Done, "each project counts for itself");
    let first = ledger.push("one/app", "0");
    for id in 1..=MOST_ON_ARTIFACT as u64 {
        assert_eq!(ledger.put_on("one/app", first, id), Outcome::Done);
    }
    assert!(matches!(ledger.put_on("one/app", first, 100), Outcome::Refused(_)));
    for n in 1..=EMPTIED_AT_ONCE {
        let digest = ledger.push("one/app", &n.to_string());
        assert_eq!(ledger.put_on("one/app", digest, 1), Outcome::Done);
    }
    let delete = LabelChange::Delete { id: LabelId(1) };
    assert_eq!(ledger.label(delete.clone()), Outcome::Unfinished);
    assert_eq!(ledger.label(delete), Outcome::Done);
    assert!(ledger.records.scan(&key::places(LabelId(1)), None, 1).unwrap().is_empty());
    assert_eq!(ledger.on("one/app", first).len(), MOST_ON_ARTIFACT - 1);
}

#[test]
fn what_cannot_be_shown_is_no_label() {
    assert_eq!(terms("good").check(), Ok(()));
    let long = "x".repeat(129);
    for name in ["", " a", "a\n", &long] {
        assert!(terms(name).check().is_err(), "{name:?}");
    }
    let color = LabelTerms { color: "#".repeat(17), ..terms("a") };
    assert!(color.check().unwrap_err().contains("color"));
}

#[test]
fn a_projects_metadata_loses_one_entry() {
    let mut ledger = Ledger::raised();
    ledger.labelled_project("one");
    let name: ProjectName = "one".parse().unwrap();
    let forget =
        |epoch| Command::ForgetMetadata { name: name.clone(), epoch, key: "auto_scan".into() };
    assert!(matches!(ledger.run(forget(Epoch::FIRST.next())), Outcome::StaleEpoch { .. }));
    assert_eq!(ledger.run(forget(Epoch::FIRST)), Outcome::Done);
    assert_eq!(ledger.run(forget(Epoch::FIRST)), Outcome::NotFound);
    assert!(ledger.records.project(&name).unwrap().unwrap().metadata.is_empty());
}

impl Ledger {
    fn tag(&mut self, repository: &str, digest: Digest, tag: &str) {
        let (epoch, repository) = (Epoch::FIRST, repository.parse().unwrap());
        let add = Command::AddTag { epoch, repository, digest, tag: tag.parse().unwrap() };
        assert_eq!(self.run(add), Outcome::Done);
    }

    fn left(&self, repository: &str) -> usize {
        let repository = repository.parse().unwrap();
        let manifests = self.records.scan(&records_key::manifests(&repository), None, usize::MAX);
        let tags = self.records.scan(&records_key::tags(&repository), None, usize::MAX);
        manifests.unwrap().len() + tags.unwrap().len()
    }
}

#[test]
fn what_a_tag_says_to_be_about_a_manifest_goes_with_it_unless_it_has_another_tag() {
    let mut ledger = Ledger::raised();
    ledger.labelled_project("one");
    let image = ledger.push("one/app", "image");
    let about = |digest: Digest, ending: &str| digest.to_string().replace(':', "-") + ending;
    let signature = ledger.push("one/app", "signature");
    ledger.tag("one/app", signature, &about(image, ".sig"));
    let countersigned = ledger.push("one/app", "a signature of the signature");
    ledger.tag("one/app", countersigned, &about(signature, ".sig"));
    let listed = ledger.push("one/app", "an index of referrers");
    ledger.tag("one/app", listed, &about(image, ""));
    let kept = ledger.push("one/app", "an SBOM with a name of its own");
    ledger.tag("one/app", kept, &about(image, ".sbom"));
    ledger.tag("one/app", kept, "sbom");
    let other = ledger.push("one/app", "about something else");
    ledger.tag("one/app", other, &about(Digest::sha256(b"else"), ".att"));
    assert_eq!(ledger.delete_manifest("one/app", image), Outcome::Done);
    let repository: RepositoryName = "one/app".parse().unwrap();
    for (digest, there) in
        [(signature, false), (countersigned, false), (listed, false), (kept, true), (other, true)]
    {
        assert_eq!(ledger.records.has_manifest(&repository, &digest).unwrap(), there);
    }
    assert_eq!(ledger.left("one/app"), 4, "two manifests with a tag each");

    // a chain of them does not make one entry long
    let mut last = ledger.push("one/chain", "0");
    let first = last;
    for n in 1..80 {
        let next = ledger.push("one/chain", &n.to_string());
        ledger.tag("one/chain", next, &about(last, ".sig"));
        last = next;
    }
    assert_eq!(ledger.delete_manifest("one/chain", first), Outcome::Done);
    assert!((1..60).contains(&ledger.left("one/chain")), "{}", ledger.left("one/chain"));
}
