use super::*;
use proptest::prelude::*;

fn digest(n: u8) -> Digest {
    Digest::sha256(&[n])
}

#[test]
fn an_image_refers_to_config_and_layers_once() {
    let (c, l) = (digest(1), digest(2));
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{m}","config":{{"mediaType":"x/y","digest":"{c}","size":1}},
        "layers":[{{"digest":"{l}","size":2}},{{"digest":"{l}","size":2}},
        {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{c}","size":9}}],"extra":[1]}}"#,
        m = media_type::OCI_MANIFEST
    );
    let manifest = Manifest::parse(media_type::OCI_MANIFEST, text.as_bytes()).unwrap();
    assert_eq!(manifest.blobs.len(), 2);
    assert_eq!(manifest.artifact_type.as_deref(), Some("x/y"));
    assert_eq!(manifest.optional, [], "the config is held in any case");
}

#[test]
fn what_gos_programs_read_is_read() {
    let (c, l) = (digest(1), digest(2));
    let read = |before: &str, after: &str| {
        let text = format!(
            r#"{{{before}"schemaVersion":2,"mediaType":"{m}",
            "config":{{"size":1,"mediaType":"a/b","digest":"{c}","mediaType":"x/y"}},
            "layers":[{{"digest":"{l}","size":7,"size":2}}]{after}}}"#,
            m = media_type::OCI_MANIFEST
        );
        Manifest::parse(media_type::OCI_MANIFEST, text.as_bytes())
    };
    let plain = read("", "").unwrap();
    assert_eq!(plain.artifact_type.as_deref(), Some("x/y"), "the last one counts");
    assert!(plain.blobs.contains(&BlobReference { digest: l, size: 2 }));
    let nested = format!(r#","x":{}{}"#, "[".repeat(500), "]".repeat(500));
    for (before, after) in [
        (r#""schemaVersion":1,"#, ""),
        (r#""layers":[],"manifests":null,"mediaType":"","#, ""),
        ("", r#","annotations":null,"subject":null,"artifactType":null"#),
        ("", r#","x":1e999,"y":18446744073709551616,"z":"\ud800""#),
        ("", nested.as_str()),
    ] {
        assert_eq!(read(before, after).unwrap(), plain, "{before} {after}");
    }
    let texts = read("", r#","annotations":{"a":"b"},"annotations":{"a":"\ud800c","\udc00":null}"#);
    let texts = texts.unwrap().annotations;
    assert_eq!(texts.len(), 2);
    assert!(texts["a"].starts_with('\u{fffd}') && texts["a"].ends_with('c'), "{texts:?}");
    for wrong in [r#","annotations":{"a":1}"#, r#","layers":[7]"#] {
        assert!(matches!(read("", wrong), Err(BadManifest::Json(_))), "{wrong}");
    }
}

#[test]
fn media_types_have_no_case() {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
        media_type::OCI_INDEX.to_uppercase()
    );
    for outside in [media_type::OCI_INDEX, &media_type::OCI_INDEX.to_uppercase(), ""] {
        let read = Manifest::parse(outside, text.as_bytes()).unwrap();
        assert_eq!(read.media_type, media_type::OCI_INDEX, "{outside}");
    }
}

#[test]
fn layers_that_need_not_be_held_are_told_all_the_same() {
    let (c, l) = (digest(1), digest(2));
    for kind in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":null,"digest":"{c}","size":1}},
            "layers":[{{"mediaType":"{kind}","digest":"{l}","size":2,"urls":["https://x.invalid/"]}}]}}"#
        );
        let manifest = Manifest::parse(media_type::OCI_MANIFEST, text.as_bytes()).unwrap();
        assert_eq!(manifest.optional, [BlobReference { digest: l, size: 2 }], "{kind}");
        assert_eq!(manifest.all_blobs().count(), 2);
    }
}

#[test]
fn an_index_lists_manifests_and_anything_else() {
    let listed = |kind: &str| {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":{kind},"digest":"{}","size":7}}]}}"#,
            digest(1)
        );
        Manifest::parse(media_type::OCI_INDEX, text.as_bytes()).unwrap().children[0].manifest
    };
    assert!(listed(r#""application/vnd.oci.image.manifest.v1+json""#));
    assert!(listed(r#""application/vnd.docker.distribution.manifest.list.v2+json""#));
    for other in [r#""application/vnd.oci.image.layer.v1.tar+gzip""#, r#""a/b""#, r#""""#, "null"] {
        assert!(!listed(other), "{other}");
    }
}

#[test]
fn as_much_as_a_manifest_may_hold_is_taken() {
    let layers: Vec<String> = (0..30_000_u32)
        .map(|n| format!(r#"{{"digest":"{}","size":1}}"#, Digest::sha256(&n.to_le_bytes())))
        .collect();
    let config = format!(r#"{{"digest":"{}","size":1}}"#, digest(1));
    let text =
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
    assert_eq!(
        Manifest::parse(media_type::OCI_MANIFEST, text.as_bytes()).unwrap().blobs.len(),
        30_001
    );
}

#[test]
fn what_go_writes_for_nothing_is_nothing() {
    for kind in [media_type::OCI_INDEX, media_type::DOCKER_LIST, ""] {
        let index =
            Manifest::parse(kind, br#"{"schemaVersion":2,"manifests":null,"annotations":null}"#)
                .unwrap();
        assert!(
            index.children.is_empty()
                && index.media_type.contains(if kind.is_empty() { "index" } else { kind })
        );
    }
    let body =
        br#"{"schemaVersion":2,"manifests":[],"annotations":{"a":null,"b":"c"},"subject":null}"#;
    let index = Manifest::parse(media_type::OCI_INDEX, body).unwrap();
    assert_eq!(
        index.annotations,
        [("a".to_owned(), String::new()), ("b".to_owned(), "c".to_owned())].into()
    );
}

#[test]
fn what_another_registry_serves_may_contradict_itself_and_what_is_pushed_may_not() {
    let (c, l) = (digest(1), digest(2));
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"x/y","digest":"{c}","size":1}},
        "layers":[{{"digest":"{l}","size":2}},{{"digest":"{l}","size":3}}]}}"#,
        media_type::OCI_MANIFEST
    );
    let served = Manifest::read_served(media_type::DOCKER_MANIFEST, text.as_bytes()).unwrap();
    assert_eq!((served.media_type.as_str(), served.blobs.len()), (media_type::DOCKER_MANIFEST, 2));
    let pushed = |kind: &str| Manifest::parse(kind, text.as_bytes());
    assert!(matches!(pushed(media_type::DOCKER_MANIFEST), Err(BadManifest::Disagree { .. })));
    assert_eq!(pushed(media_type::OCI_MANIFEST), Err(BadManifest::Sizes(l)));
    assert!(Manifest::read_served("text/plain", text.as_bytes()).is_err());
}

#[test]
fn what_is_no_manifest_is_refused_with_the_reason() {
    let parse = |t: &str, b: &str| Manifest::parse(t, b.as_bytes());
    assert!(matches!(parse("", "{"), Err(BadManifest::Json(_))));
    assert!(matches!(parse("", "{}"), Err(BadManifest::Schema)));
    let body = r#"{"schemaVersion":2}"#;
    assert!(matches!(parse("text/plain", body), Err(BadManifest::MediaType(_))));
    assert!(matches!(parse(media_type::OCI_INDEX, body), Err(BadManifest::Json(_))));
    let other =
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
    assert!(matches!(parse(media_type::DOCKER_LIST, &other), Err(BadManifest::Disagree { .. })));
    assert!(Manifest::parse(media_type::OCI_INDEX, other.as_bytes()).unwrap().children.is_empty());
}

/// Every way to write a descriptor's size, at every place of a descriptor.
#[test]
fn a_descriptor_without_a_usable_size_or_digest_is_refused_by_its_place() {
    let (c, l) = (digest(1), digest(2));
    let (image, index) = (media_type::OCI_MANIFEST, media_type::OCI_INDEX);
    let good = format!(r#"{{"digest":"{c}","size":1}}"#);
    let texts = [
        ("config", image, r#""config":@"#.to_owned()),
        ("layers[1]", image, format!(r#""config":{good},"layers":[{good},@]"#)),
        ("manifests[1]", index, format!(r#""manifests":[{good},@]"#)),
        ("subject", index, r#""manifests":[],"subject":@"#.to_owned()),
    ];
    let sizes = [
        ("", "no size"),
        (r#","size":null"#, "no size"),
        (r#","size":-1"#, "-1"),
        (r#","size":1.5"#, "1.5"),
        (r#","size":9223372036854775808"#, "9223372036854775808"),
        (r#","size":1e30"#, "whole number"),
        (r#","size":"1""#, "a text"),
    ];
    let mut wrongs: Vec<(String, &str)> =
        sizes.iter().map(|(size, said)| (format!(r#"{{"digest":"{l}"{size}}}"#), *said)).collect();
    wrongs.push((r#"{"size":1}"#.into(), "no digest"));
    wrongs.push((r#"{"digest":"md5:00","size":1}"#.into(), "md5:00"));
    for (place, kind, text) in &texts {
        for (descriptor, said) in &wrongs {
            let text = format!(r#"{{"schemaVersion":2,{}}}"#, text.replace('@', descriptor));
            let refused = Manifest::parse(kind, text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(place) && refused.contains(said), "{text}: {refused}");
            let served = Manifest::read_served(kind, text.as_bytes()).unwrap();
            let told = served.all_blobs().chain(served.children.iter().map(Listed::as_blob));
            for blob in told {
                let known = if blob.digest == c { 1 } else { 0 };
                assert_eq!(blob.size, known, "nothing is invented: {text}");
            }
            assert!(served.blobs.iter().all(|blob| blob.digest == c), "{text}");
        }
        let whole = r#"{"size":9223372036854775807,"size":null,"digest":"X"}"#;
        let whole = whole.replace('X', &l.to_string());
        let text = format!(r#"{{"schemaVersion":2,{}}}"#, text.replace('@', &whole));
        Manifest::parse(kind, text.as_bytes()).unwrap();
    }
}

#[test]
fn a_byte_order_mark_is_refused_from_clients_and_taken_from_registries() {
    let text = "\u{feff}{\"schemaVersion\":2,\"manifests\":[]}";
    assert_eq!(
        Manifest::parse(media_type::OCI_INDEX, text.as_bytes()),
        Err(BadManifest::ByteOrderMark)
    );
    assert!(Manifest::read_served(media_type::OCI_INDEX, text.as_bytes()).is_ok());
    let twice = format!("\u{feff}{text}");
    assert!(Manifest::read_served(media_type::OCI_INDEX, twice.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::parse("", &bytes);
    }
}
