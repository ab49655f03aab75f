use std::cell::Cell;

use rules::ledger::records::{ContentRecord, MemoryRecords, WriteRecords, encode};
use rules::proxies::proxy::ProxyRules;
use rules::words::names::{Epoch, NodeId, ProjectId};

use super::*;

#[test]
fn numbers_are_the_same_everywhere_and_fit_into_javascripts() {
    assert_eq!(number("demo/app"), number("demo/app"));
    assert_ne!(number("demo/app"), number("demo/apq"));
    for name in ["", "a", "demo/app"] {
        assert!((1..1 << 53).contains(&number(name)), "{name}");
    }
}

#[test]
fn what_an_artifact_is_is_said_in_harbors_words() {
    let kind = |json: Value| Said::of(json.to_string().as_bytes()).kind();
    let config = |kind: &str| json!({"config": {"mediaType": kind}});
    assert_eq!(kind(config("application/vnd.oci.image.config.v1+json")), "IMAGE");
    assert_eq!(kind(config("application/vnd.cncf.helm.config.v1+json")), "CHART");
    assert_eq!(kind(json!({"manifests": []})), "IMAGE");
    assert_eq!(kind(config("application/vnd.wasm.config.v0+json")), "WASM");
    assert_eq!(kind(json!({})), "UNKNOWN");
}

/// Records that count how often the bytes of a manifest are read.
struct Counting {
    records: MemoryRecords,
    read: Cell<usize>,
}

impl ReadRecords for Counting {
    fn get(&self, place: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        if place.first() == key::content(&Digest::sha256(b"")).first() {
            self.read.set(self.read.get() + 1);
        }
        self.records.get(place)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RecordError> {
        self.records.scan(prefix, after, limit)
    }
}

#[test]
fn a_list_reads_the_bytes_of_indexes_and_of_what_it_shows() {
    let repository: RepositoryName = "demo/a".parse().unwrap();
    let mut records = MemoryRecords::default();
    let mut put = |media_type: &str, json: Value, pushed: u64| {
        let bytes = json.to_string().into_bytes();
        let digest = Digest::sha256(&bytes);
        let manifest = ManifestRecord {
            media_type: media_type.to_owned(),
            bytes: Vec::new(),
            blobs: Vec::new(),
            subject: None,
            pushed: Timestamp(pushed),
        };
        let content = ContentRecord { repositories: 1, bytes };
        records.put(&key::manifest(&repository, &digest), &encode(&manifest).unwrap()).unwrap();
        records.put(&key::content(&digest), &encode(&content).unwrap()).unwrap();
        digest
    };
    let images: Vec<Digest> = (0..2_500)
        .map(|n| put(media_type::OCI_MANIFEST, json!({"annotations": {"n": n.to_string()}}), n))
        .collect();
    let children: Vec<Value> =
        images[..900].iter().map(|digest| json!({"digest": digest.to_string()})).collect();
    put(media_type::OCI_INDEX, json!({"manifests": children}), 5_000);
    let counting = Counting { records, read: Cell::new(0) };
    let project = Project {
        id: ProjectId(1),
        name: "demo".parse().unwrap(),
        public: true,
        durability: 1,
        home: NodeId(1),
        primary: NodeId(1),
        epoch: Epoch::FIRST,
        created: Timestamp(0),
        upstream: None,
        proxy: ProxyRules::default(),
        metadata: BTreeMap::new(),
    };
    let page = |page: &str, size: &str| {
        let wanted = PageRequest::of(Some(page), Some(size), None).unwrap();
        let selection = wanted.about(ARTIFACT_FIELDS).unwrap();
        let with = With { labels: false, pulls: false, scans: false, sboms: false };
        let page = page_of_artifacts(&counting, &project, &repository, &wanted, &selection, with);
        page.unwrap().unwrap()
    };
    let (shown, total) = page("1", "10");
    assert_eq!((shown.len(), total), (10, 1_601));
    assert_eq!(shown[0]["references"], json!([]), "long details are with the artifact itself");
    assert_eq!(shown[1]["annotations"]["n"], "2499");
    assert_eq!(counting.read.get(), 11);
    assert_eq!(page("1", "0").0.len(), 100, "never all of them");
    assert_eq!(page("17", "100").0.len(), 1);
    assert_eq!(page("18", "100").0.len(), 0);
}
