//! The SBOM that came with an image is shown where its project says so, and never decides what is
//! vulnerable in it.

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::{Blob, INDEX, Image, MANIFEST};
use tests::process;
use tests::repository::create_project;
use tests::scans::{self, SCANS, advisory, debian, use_database};
use tests::wait;

const ONE: [(&str, &str); 1] = [("one", "us-east-1")];

#[test]
fn what_came_with_an_image_is_shown_and_decides_nothing() {
    let mesh = Formed::of(&ONE, SCANS);
    for project in ["library", "shop"] {
        create_project(&mesh.client(0), project, true, 1);
    }
    use_database(&mesh, &[advisory("openssl", "CVE-2024-5535", "3.0.14", 3)], 1);
    let set = |metadata: Value| {
        let body = json!({"metadata": metadata});
        let answer = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/shop", &body);
        answer.unwrap_or_else(|none| panic!("{none}"))
    };
    assert_eq!(set(json!({"sbom_source": "theirs"})).status, 400);
    let policy = json!({"auto_scan": "true", "prevent_vul": "true", "severity": "high"});
    assert_eq!(set(policy).status, 200);

    // as buildx pushes it: the image, what attests it, and an index of both
    let image = debian(&[("openssl", "3.0.11-1~deb12u1")]);
    let hex = image.digest().split_once(':').expect("a digest").1;
    let theirs = json!({"spdxVersion": "SPDX-2.3", "name": "theirs", "packages": []});
    let statement = Blob::of(
        json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "https://spdx.dev/Document",
            "subject": [{"name": "pkg:docker/web", "digest": {"sha256": hex}}],
            "predicate": theirs,
        })
        .to_string(),
    );
    let config = Blob::of("{}");
    let attestation = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": 2},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement.digest,
            "size": statement.bytes.len(), "annotations": {"in-toto.io/predicate-type": "https://spdx.dev/Document"}}],
    });
    let attestation =
        Image { manifest: Blob::of(attestation.to_string()), blobs: vec![config, statement] };
    let web = mesh.repository(0, "shop/web");
    for (one, tag) in [(&image, "amd64"), (&attestation, "attests")] {
        web.push(one, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let child = |one: &Image| json!({"mediaType": MANIFEST, "digest": one.digest(), "size": one.manifest.bytes.len()});
    let mut attests = child(&attestation);
    attests["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image.digest(),
    });
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child(&image), attests]});
    let index = Blob::of(index.to_string());
    web.put_bytes("1", INDEX, index.bytes).unwrap_or_else(|no| panic!("{no}"));
    wait::until("it is scanned", || {
        let shown = scans::overview(&mesh, 0, "shop/web", &image)?;
        (shown["scan_status"] == "Success").then_some(())
    });

    let of = "/api/v2.0/projects/shop/repositories/web/artifacts";
    let sbom = |format: &str| {
        let path = format!("{of}/{}/additions/sbom?format={format}", image.digest());
        let answer = mesh.client(0).get(&path).unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 200, "{answer}");
        (answer.header("atoll-sbom-from").map(str::to_owned), answer.json())
    };
    let (from, made) = sbom("spdx");
    assert_eq!(from.as_deref(), Some("made"));
    assert!(made.to_string().contains("openssl"), "{made}");
    assert_eq!(set(json!({"sbom_source": "attached"})).status, 200);
    let (from, shown) = sbom("spdx");
    assert_eq!((from.as_deref(), &shown), (Some(attestation.digest()), &theirs));
    let (from, made) = sbom("cyclonedx");
    assert_eq!(from.as_deref(), Some("made"), "none of this kind came: {made}");
    let password = mesh.folder().join("password");
    std::fs::write(&password, mesh.password()).expect("a file");
    let mut atoll = mesh.members()[0].atoll("sbom");
    let url = format!("http://{}", mesh.members()[0].place().http);
    atoll.args([&format!("shop/web@{}", image.digest()), "--url", &url, "--password-file"]);
    let printed = process::finish(atoll.arg(password));
    assert!(printed.success && printed.out.contains("\"theirs\""), "{printed:?}");

    // it says that the image has no packages at all; its layers say what counts
    let path = format!("/v2/shop/web/manifests/{}", image.digest());
    let refused = mesh.client(0).get(&path).unwrap_or_else(|none| panic!("{none}"));
    assert!(
        refused.status == 412 && refused.to_string().contains("1 vulnerabilities"),
        "{refused}"
    );
}
