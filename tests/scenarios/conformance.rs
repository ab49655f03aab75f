//! The distribution specification's own conformance suite passes whole: with its default switches
//! against a node that is not the primary of the project it writes to, so that every write of it is
//! one that another region commits; and with all its switches on against every node.

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tests::image::{Blob, INDEX, Image, MANIFEST, manifest_of};
use tests::mesh::Mesh;
use tests::{process, tools};

/// Runs the suite against a node, with these switches beside its defaults.
fn passes_whole(mesh: &Mesh, at: usize, repository: &str, switches: &[(&str, &str)]) {
    let mut suite = tools::built_by_go("conformance");
    let (user, password) = mesh.admin();
    let results = TempDir::with_prefix("atoll-conformance-").expect("a temporary folder");
    suite.env("OCI_RESULTS_DIR", results.path()).current_dir(results.path());
    suite.env("OCI_REGISTRY", mesh.client(at).authority()).env("OCI_TLS", "disabled");
    suite.env("OCI_REPO1", format!("{repository}/one"));
    suite.env("OCI_REPO2", format!("{repository}/two"));
    suite.envs(switches.iter().copied());
    let said = process::finish(suite.env("OCI_USERNAME", user).env("OCI_PASSWORD", password));
    // It ends with 0 also when it could not begin, so what counts is its report.
    let report = std::fs::read_to_string(results.path().join("junit.xml"));
    let report = report.unwrap_or_else(|error| {
        panic!("the suite wrote no report ({error}; {}):\n{}\n{}", said.end, said.out, said.err)
    });
    let count = |what: &str| -> usize {
        let after =
            report.split_once(&format!("{what}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        if after.is_none() && ["skipped", "disabled"].contains(&what) {
            return 0; // the report leaves them out when there is nothing to count
        }
        let number = after.and_then(|(number, _)| number.parse().ok());
        number.unwrap_or_else(|| {
            panic!("the report does not count {what}: {}", &report[..report.len().min(400)])
        })
    };
    let (tests, failures, errors, skipped) =
        (count("tests"), count("failures"), count("errors"), count("skipped"));
    println!(
        "conformance: {tests} tests, {failures} failed, {errors} errors, {skipped} skipped, {} disabled",
        count("disabled")
    );
    let story = said.out.split("\nConfiguration:").next().unwrap_or_default();
    let failed: Vec<_> = story
        .lines()
        .filter(|line| !line.ends_with(": Pass") && !line.ends_with(": Disabled"))
        .collect();
    assert!(
        said.success && failures + errors + skipped == 0,
        "not whole:\n{}\n{}",
        failed.join("\n"),
        said.err
    );
    assert!(tests > 100, "only {tests} tests ran");
}

#[test]
fn the_official_suite_passes_whole_through_a_node_that_is_not_the_primary() {
    let mesh = Mesh::up(3);
    let at = (mesh.primary_of("demo") + 1) % 3;
    passes_whole(&mesh, at, "demo/conformance", &[]);
}

#[test]
fn the_official_suite_passes_whole_with_every_switch_on_at_every_node() {
    let mesh = Mesh::up(3);
    let metadata = json!({"public": "true", "sparse_images": "true"});
    let made = json!({"project_name": "suite", "metadata": metadata});
    let made = mesh.client(0).send_json(Method::POST, "/api/v2.0/projects", &made);
    let made = made.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(made.status, 201, "{made}");
    for at in 0..3 {
        let switches = [("OCI_VERSION", "dev"), ("OCI_DATA_SPARSE", "true")];
        passes_whole(&mesh, at, &format!("suite/at{at}"), &switches);
    }
}

/// An index may come before the manifests that it lists, where the project lets it; an image before
/// its layers only where the project says so. What is missing is unknown until it comes.
#[test]
fn what_is_sparse_is_taken_where_the_project_lets_it_and_whole_once_the_rest_came() {
    let mesh = Mesh::up(3);
    let set = |key: &str, value: &str| {
        let body = json!({"metadata": {key: value}});
        let set = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/demo", &body);
        let set = set.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(set.status, 200, "{key} {value}: {set}");
    };
    let repository = |at: usize| mesh.repository(at, "demo/sparse");
    let status = |at: usize, what: &str| {
        let got = mesh.anyone(at).get(&format!("/v2/demo/sparse/{what}"));
        got.unwrap_or_else(|none| panic!("{none}")).status
    };
    let child = Image::random(&[100 << 10]);
    let index = |image: &Image| {
        let listed = json!({"mediaType": MANIFEST, "digest": image.digest(),
            "size": image.manifest.bytes.len()});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
        Bytes::from(index.to_string())
    };
    repository(1)
        .put_bytes("early", INDEX, index(&child))
        .unwrap_or_else(|no| panic!("an index before its child: {no}"));
    for at in 0..3 {
        assert_eq!(status(at, "manifests/early"), 200, "at {at}");
        assert_eq!(status(at, &format!("manifests/{}", child.digest())), 404, "at {at}");
    }
    for blob in &child.blobs {
        repository(2).upload(blob).unwrap_or_else(|no| panic!("{no}"));
    }
    let put = repository(2).put_manifest(child.digest(), &child);
    put.unwrap_or_else(|no| panic!("the child comes: {no}"));
    for at in 0..3 {
        assert_eq!(status(at, &format!("manifests/{}", child.digest())), 200, "at {at}");
        assert_eq!(status(at, &format!("blobs/{}", child.blobs[1].digest)), 200, "at {at}");
    }
    set("sparse_indexes", "false");
    let refused = repository(0).put_bytes("refused", INDEX, index(&Image::random(&[9])));
    let refused = refused.expect_err("the project does not let it");
    let (code, said) = refused.answer().and_then(|no| no.envelope()).expect("an envelope");
    assert_eq!(code, "MANIFEST_BLOB_UNKNOWN", "{said}");
    assert!(said.contains("sparse_indexes"), "the remedy is named: {said}");
    let wrong = json!({"metadata": {"sparse_images": "perhaps"}});
    let wrong = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/demo", &wrong);
    assert_eq!(wrong.unwrap_or_else(|none| panic!("{none}")).status, 400);

    let (config, layer) = (Blob::random(200), Blob::random(50 << 10));
    let image = Bytes::from(manifest_of(&[config.clone(), layer.clone()]).to_string());
    repository(0).upload(&config).unwrap_or_else(|no| panic!("{no}"));
    let put = |tag: &str| repository(1).put_bytes(tag, MANIFEST, image.clone());
    put("image").expect_err("a layer is missing");
    set("sparse_images", "true");
    put("image").unwrap_or_else(|no| panic!("an image before its layer: {no}"));
    assert_eq!(status(2, &format!("blobs/{}", layer.digest)), 404);
    repository(2).upload(&layer).unwrap_or_else(|no| panic!("{no}"));
    put("image").unwrap_or_else(|no| panic!("the same again, which links the layer: {no}"));
    for at in 0..3 {
        assert_eq!(status(at, &format!("blobs/{}", layer.digest)), 200, "at {at}");
    }
}
