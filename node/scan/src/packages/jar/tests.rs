//! Archives put together byte by byte: as Java writes them, and damaged.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::*;

/// How an entry is written.
#[derive(Clone, Copy)]
enum Way {
    Stored,
    Deflated,
    /// As Java writes: the sizes follow the bytes.
    Streamed,
}

fn zip(entries: &[(&str, Vec<u8>, Way)]) -> Vec<u8> {
    let mut file = Vec::new();
    for (name, bytes, way) in entries {
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(bytes).expect("memory takes bytes");
        let deflated = deflate.finish().expect("memory takes bytes");
        let (method, flags, packed) = match way {
            Way::Stored => (0_u16, 0_u16, bytes),
            Way::Deflated => (8, 0, &deflated),
            Way::Streamed => (8, 8, &deflated),
        };
        let sizes = [0, packed.len() as u32, bytes.len() as u32];
        let told = if matches!(way, Way::Streamed) { [0; 3] } else { sizes };
        file.extend(0x0403_4B50_u32.to_le_bytes());
        for word in [20, flags, method, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(told.iter().flat_map(|word| word.to_le_bytes()));
        file.extend((name.len() as u16).to_le_bytes());
        file.extend(0_u16.to_le_bytes());
        file.extend(name.as_bytes());
        file.extend(packed);
        if matches!(way, Way::Streamed) {
            file.extend(0x0807_4B50_u32.to_le_bytes());
            file.extend(sizes.iter().flat_map(|word| word.to_le_bytes()));
        }
    }
    file.extend(0x0201_4B50_u32.to_le_bytes());
    file
}

fn pom(group: &str, artifact: &str, version: &str) -> Vec<u8> {
    format!("#made\r\nversion={version}\r\ngroupId={group}\r\nartifactId={artifact}\r\n")
        .into_bytes()
}

/// Name, version and path.
type Told = (String, String, String);

fn read_all(path: &str, bytes: &[u8]) -> (Vec<Told>, Result<(), String>) {
    let budget = Budget { bytes: Cell::new(1 << 20), keep_on: &|| true };
    let (listing, ended) = read(path, &mut &*bytes, &budget);
    let told = listing.packages.into_iter().map(|one| (one.name, one.version, one.path));
    (told.collect(), ended)
}

fn one(name: &str, version: &str, path: &str) -> Told {
    (name.to_owned(), version.to_owned(), path.to_owned())
}

#[test]
fn libraries_are_found_in_archives_and_in_those_inside_them() {
    let inner = zip(&[(
        "META-INF/maven/com.x/inner/pom.properties",
        pom("com.x", "inner", "1.0"),
        Way::Streamed,
    )]);
    let manifest = "Manifest-Version: 1.0\r\nImplementation-Title: out\r\n er\r\n\
        Implementation-Version: 2.0\r\nImplementation-Vendor-Id: com.y\r\n\r\nName: x\r\n\
        Implementation-Version: 9\r\n";
    for way in [Way::Stored, Way::Deflated, Way::Streamed] {
        let outer = zip(&[
            ("META-INF/", Vec::new(), Way::Stored),
            ("META-INF/MANIFEST.MF", manifest.as_bytes().to_vec(), way),
            ("com/y/Big.class", vec![1; 70_000], way),
            ("BOOT-INF/lib/inner-1.0.jar", inner.clone(), way),
            ("broken.jar", b"no archive".to_vec(), way),
            ("META-INF/maven/com.z/shaded/pom.properties", pom("com.z", "shaded", "3"), way),
        ]);
        let (found, ended) = read_all("app/outer.jar", &outer);
        assert_eq!(ended, Ok(()));
        assert_eq!(
            found,
            [
                one("com.x:inner", "1.0", "app/outer.jar/BOOT-INF/lib/inner-1.0.jar"),
                one("com.z:shaded", "3", "app/outer.jar"),
                one("com.y:outer", "2.0", "app/outer.jar"),
            ]
        );
        // a script before it, as Spring Boot writes it
        let (after_script, _) = read_all("app/outer.jar", &[b"#!/bin/sh\n", &outer[..]].concat());
        assert_eq!(after_script, found);
    }
}

#[test]
fn a_jars_own_properties_count_before_its_manifest() {
    let manifest =
        b"Bundle-SymbolicName: com.x.lib\nBundle-Name: lib\nBundle-Version: 1.0\n".to_vec();
    let entries = [
        ("META-INF/MANIFEST.MF", manifest, Way::Deflated),
        ("META-INF/maven/com.x/lib/pom.properties", pom("com.x", "lib", "1.0"), Way::Deflated),
    ];
    assert_eq!(read_all("lib-1.0.jar", &zip(&entries)).0, [one("com.x:lib", "1.0", "lib-1.0.jar")]);
    assert_eq!(
        read_all("lib-1.0.jar", &zip(&entries[..1])).0,
        [one("com.x:lib", "1.0", "lib-1.0.jar")]
    );
    assert_eq!(named("spring-core-5.3.4-SNAPSHOT.jar"), ("spring-core", "5.3.4-SNAPSHOT"));
    assert_eq!(named("a/log4j-1.2-api-2.14.1.jar"), ("log4j-1.2-api", "2.14.1"));
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let bomb = zip(&[("a", vec![0; 2 << 20], Way::Streamed), ("b", vec![0; 10], Way::Stored)]);
    assert!(read_all("bomb.jar", &bomb).1.is_err());
    let mut nested = zip(&[("x", vec![0; 3 << 20], Way::Streamed)]);
    for _ in 0..3 {
        nested = zip(&[("x.jar", nested, Way::Streamed)]);
    }
    assert!(read_all("bomb.jar", &nested).1.is_err());
    let budget = Budget { bytes: Cell::new(1 << 20), keep_on: &|| false };
    assert!(read("x.jar", &mut &*bomb, &budget).1.is_err());
}

proptest! {
    #[test]
    fn damaged_archives_end(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        cut in any::<prop::sample::Index>(),
    ) {
        let inner = zip(&[("pom.properties", pom("a", "b", "1"), Way::Streamed)]);
        let mut file = zip(&[
            ("x.jar", inner, Way::Streamed),
            ("y", vec![3; 300], Way::Deflated),
            ("pom.properties", pom("a", "c", "1"), Way::Stored),
        ]);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len()) + 1);
        let _ = read_all("x.jar", &file);
    }
}
