//! Layers put together entry by entry: as builders write them, damaged, and hostile.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// One entry: its flag, its name, its mode, and its bytes or its target.
type Given<'a> = (u8, &'a str, u32, &'a [u8]);

fn file<'a>(name: &'a str, bytes: &'a [u8]) -> Given<'a> {
    (b'0', name, 0o644, bytes)
}

fn tar(entries: &[Given<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (flag, name, mode, bytes) in entries {
        let is_link = matches!(flag, b'1' | b'2');
        let body: &[u8] = if is_link { b"" } else { bytes };
        let mut head = vec![0; 512];
        head[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        head[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        head[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        head[156] = *flag;
        if is_link {
            head[157..157 + bytes.len()].copy_from_slice(bytes);
        }
        head[257..263].copy_from_slice(b"ustar\0");
        head[148..156].fill(b' ');
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(head);
        archive.extend(body);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes bytes");
    encoder.finish().expect("memory takes bytes")
}

fn read_plain(bytes: &[u8]) -> Result<Layer, LayerError> {
    read_layer(bytes, PLAIN, &Limits::default(), &|| true)
}

fn layer(entries: &[Given<'_>]) -> Layer {
    read_plain(&tar(entries)).expect("a layer")
}

fn told(inventory: &Inventory) -> Vec<(&str, &str, u32)> {
    let packages = inventory.packages.iter();
    packages.map(|one| (one.name.as_str(), one.version.as_str(), one.layer)).collect()
}

const OS: &[u8] = b"ID=debian\nVERSION_ID=\"12\"\n";
const STATUS: &[u8] = b"Package: openssl\nStatus: install ok installed\nVersion: 3.0.11-1\n\n\
    Package: zlib1g\nStatus: install ok installed\nSource: zlib\nVersion: 1:1.2.13\n";
const LODASH: &[u8] = br#"{"name":"lodash","version":"4.17.15"}"#;

#[test]
fn a_layer_is_read_however_it_is_compressed() {
    let archive = tar(&[
        (b'5', "./etc", 0o755, b""),
        file("./etc/os-release", OS),
        file("etc/debian_version", b"12.7\n"),
        file("/var/lib/dpkg/status", STATUS),
        file("app/../srv//node_modules/lodash/package.json", LODASH),
    ]);
    let zstd = ruzstd::encoding::compress_to_vec(
        &archive[..],
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let plain = read_plain(&archive).expect("a layer");
    for (bytes, media_type) in [(gzip(&archive), GZIP), (zstd, ZSTD)] {
        let read = read_layer(&bytes[..], media_type, &Limits::default(), &|| true);
        assert_eq!(read.expect("a layer"), plain, "{media_type}");
    }
    let json = serde_json::to_vec(&plain).expect("JSON");
    assert_eq!(serde_json::from_slice::<Layer>(&json).expect("a layer"), plain);
    let inventory = merge(&[plain]);
    assert_eq!(inventory.system, Some(System { family: "debian".into(), release: "12.7".into() }));
    assert_eq!(
        told(&inventory),
        [("openssl", "3.0.11-1", 0), ("zlib1g", "1:1.2.13", 0), ("lodash", "4.17.15", 0)]
    );
    assert_eq!(inventory.packages[2].path, "srv/node_modules/lodash/package.json");
}

#[test]
fn upper_layers_delete_replace_and_upgrade() {
    let base = layer(&[
        file("etc/os-release", OS),
        file("var/lib/dpkg/status", STATUS),
        file("a/package.json", LODASH),
        file("b/c/package.json", LODASH),
        file("d/package.json", LODASH),
        file("e/f/package.json", LODASH),
        file("ef/package.json", LODASH),
    ]);
    let upper = layer(&[
        file("a/.wh.package.json", b""),
        file("b/.wh..wh..opq", b""),
        file("b/c/x", b""),
        file("d/package.json", br#"{"name":"lodash","version":"4.17.21"}"#),
        (b'2', "e", 0o777, b"elsewhere"),
        file(
            "var/lib/dpkg/status",
            b"Package: openssl\nStatus: install ok installed\nVersion: 3.0.14-1\n\n\
              Package: zlib1g\nStatus: install ok installed\nSource: zlib\nVersion: 1:1.2.13\n",
        ),
    ]);
    let both = [base.clone(), upper];
    let inventory = merge(&both);
    assert_eq!(
        told(&inventory),
        [
            ("openssl", "3.0.14-1", 1),
            ("zlib1g", "1:1.2.13", 0),
            ("lodash", "4.17.15", 0),
            ("lodash", "4.17.21", 1),
        ]
    );
    assert_eq!(inventory.packages[2].path, "ef/package.json");
    // all of it
    let gone = layer(&[file(".wh..wh..opq", b""), file("x/package.json", LODASH)]);
    let inventory = merge(&[base, gone]);
    assert_eq!(
        (inventory.system.clone(), told(&inventory)),
        (None, vec![("lodash", "4.17.15", 1)])
    );
}

#[test]
fn files_that_a_distribution_owns_are_its_own_packages() {
    let six = b"Name: six\nVersion: 1.16.0\n";
    let path = "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO";
    let list = format!("/.\n/usr\n/{path}\n");
    let status: &[u8] = b"Package: python3-six\nStatus: install ok installed\nVersion: 1.16.0-4\n";
    let owned = merge(&[layer(&[
        file("var/lib/dpkg/status", status),
        file("var/lib/dpkg/info/python3-six.list", list.as_bytes()),
        file(path, six),
        file("usr/local/lib/python3/dist-packages/six-1.0.dist-info/METADATA", six),
    ])]);
    assert_eq!(told(&owned), [("python3-six", "1.16.0-4", 0), ("six", "1.16.0", 0)]);
    assert!(owned.packages[1].path.starts_with("usr/local/"));
    // what others have packed is not mended by the distribution
    let others = [status, b"Maintainer: x <y@nodesource.com>\n"].concat();
    let strangers = merge(&[layer(&[
        file("var/lib/dpkg/status", &others),
        file("var/lib/dpkg/info/python3-six.list", list.as_bytes()),
        file(path, six),
    ])]);
    assert_eq!(strangers.packages.len(), 2);
    assert!(strangers.packages[0].third_party);
}

#[test]
fn links_to_lists_are_followed_or_said() {
    let linked = layer(&[
        file("x/package.json", LODASH),
        (b'1', "y/package.json", 0o644, b"x/package.json"),
        (b'1', "var/lib/dpkg/status", 0o644, b"x/package.json"),
        (b'2', "usr/lib/apk/db/installed", 0o644, b"../../../../lib/apk/db/installed"),
        (b'2', "lib/apk/db/installed", 0o644, b"/../../secret"),
    ]);
    let inventory = merge(std::slice::from_ref(&linked));
    let paths: Vec<_> = inventory.packages.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["x/package.json", "y/package.json"]);
    assert_eq!(
        inventory.gaps,
        [
            "lib/apk/db/installed: it is a link to secret, which is not read",
            "var/lib/dpkg/status: it is a link to x/package.json, which is not read",
        ]
    );
    let mended =
        layer(&[file("var/lib/dpkg/status", STATUS), file("lib/apk/db/.wh.installed", b"")]);
    assert!(merge(&[linked, mended]).gaps.is_empty());
    let broken =
        layer(&[file("var/lib/rpm/rpmdb.sqlite", b"?"), file("var/lib/rpm/Packages", b"?")]);
    assert_eq!(merge(&[broken]).gaps.len(), 2);
}

#[test]
fn a_red_hat_images_layers_belong_to_builds() {
    let sets = |name: &str| format!("{{\"content_sets\":[\"{name}\"]}}").into_bytes();
    let listed = |names: &[&str]| -> Vec<u8> {
        let stanza = |name: &&str| format!("P:{name}\nV:1-r0\n\n");
        names.iter().map(stanza).collect::<String>().into_bytes()
    };
    let manifest = "root/buildinfo/content_manifests/x.json";
    let (first, second) = (listed(&["a"]), listed(&["a", "b"]));
    let third = listed(&["a", "b", "c"]);
    let base = layer(&[file("lib/apk/db/installed", &first)]);
    let theirs = layer(&[file("lib/apk/db/installed", &second), file(manifest, &sets("repo"))]);
    let ours = layer(&[file("lib/apk/db/installed", &third)]);
    let inventory = merge(&[base, theirs, ours]);
    assert_eq!(inventory.builds.len(), 1);
    assert!(inventory.packages.iter().all(|one| one.build == Some(0)));
}

#[test]
fn long_names_are_read_and_longer_ones_refused() {
    let long = format!("{}/package.json", "d/".repeat(200));
    let pax = |name: &str| {
        let body = format!(" path={name}\n");
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        format!("{length}{body}").into_bytes()
    };
    for extension in [(b'L', "././@LongLink", 0, long.as_bytes()), (b'x', "x", 0, &pax(&long))] {
        let inventory = merge(&[layer(&[extension, file("short", LODASH)])]);
        assert_eq!(inventory.packages.len(), 1, "{}", char::from(extension.0));
    }
    let endless = vec![b'n'; 2 << 20];
    let refused = read_plain(&tar(&[(b'L', "././@LongLink", 0, &endless), file("short", LODASH)]));
    assert!(matches!(refused, Err(LayerError::Damaged(_))));
}

#[test]
fn limits_hold_and_a_layer_that_ends_too_early_is_an_error() {
    let archive = tar(&[file("zeros", &vec![0; 3 << 20]), file("package.json", LODASH)]);
    let zipped = gzip(&archive);
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let bomb = read_layer(&zipped[..], GZIP, &limits, &|| true);
    assert!(matches!(bomb, Err(LayerError::TooLarge(_))), "{bomb:?}");
    let limits = Limits { files: 1, ..Limits::default() };
    let many = read_layer(&zipped[..], GZIP, &limits, &|| true);
    assert!(matches!(many, Err(LayerError::TooLarge(_))), "{many:?}");
    let stopped = read_layer(&zipped[..], GZIP, &Limits::default(), &|| false);
    assert!(matches!(stopped, Err(LayerError::Stopped)), "{stopped:?}");
    for cut in [1, 100, zipped.len() / 2, zipped.len() - 1] {
        let cut_off = read_layer(&zipped[..cut], GZIP, &Limits::default(), &|| true);
        assert!(matches!(cut_off, Err(LayerError::Damaged(_))), "{cut}: {cut_off:?}");
    }
    assert!(matches!(read_plain(&archive[..2000]), Err(LayerError::Damaged(_))));
    assert!(matches!(read_plain(b""), Err(LayerError::Damaged(_))));
    let config =
        read_layer(&b"{}"[..], "application/vnd.cncf.helm.config", &Limits::default(), &|| true);
    assert!(matches!(config, Err(LayerError::MediaType(_))));
    let limits = Limits { file: 10, ..Limits::default() };
    let large =
        read_layer(&tar(&[file("var/lib/dpkg/status", STATUS)])[..], PLAIN, &limits, &|| true);
    assert_eq!(merge(&[large.expect("a layer")]).gaps.len(), 1);
}

#[test]
fn millions_of_packages_end_at_a_limit() {
    // an archive that nobody holds: the same entry again and again, each with another name
    struct Endless {
        number: u64,
        current: Vec<u8>,
    }
    impl io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.current.is_empty() {
                self.number += 1;
                let name = format!("{}/package.json", self.number);
                self.current = tar(&[file(&name, LODASH)]);
                self.current.truncate(1024);
            }
            let length = buffer.len().min(self.current.len());
            buffer[..length].copy_from_slice(&self.current[..length]);
            self.current.drain(..length);
            Ok(length)
        }
    }
    let endless = Endless { number: 0, current: Vec::new() };
    let read = read_layer(endless, PLAIN, &Limits::default(), &|| true);
    assert!(matches!(read, Err(LayerError::TooLarge(_))));
}

#[test]
fn bytes_that_cannot_be_read_are_not_the_layers_fault() {
    struct Failing;
    impl io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk failed"))
        }
    }
    for media_type in [GZIP, PLAIN, ZSTD] {
        let read = read_layer(Failing, media_type, &Limits::default(), &|| true);
        assert!(matches!(read, Err(LayerError::Read(_))), "{media_type}: {read:?}");
    }
}

proptest! {
    #[test]
    fn damaged_layers_end(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = tar(&[
            file("etc/os-release", OS),
            (b'L', "././@LongLink", 0, b"some/long/package.json\0"),
            file("short", LODASH),
            (b'x', "x", 0, b"27 path=var/lib/dpkg/status\n"),
            file("short", STATUS),
            (b'1', "y/package.json", 0o644, b"x/package.json"),
        ]);
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        archive.truncate(cut.index(archive.len()) + 1);
        if let Ok(layer) = read_plain(&archive) {
            merge(&[layer]);
        }
    }
}

#[test]
fn a_layer_has_one_name_when_it_is_unpacked_however_it_is_compressed() {
    let archive = tar(&[file("etc/os-release", OS)]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&archive).expect("memory takes bytes");
    let gzip = gzip.finish().expect("memory takes bytes");
    let zstd = ruzstd::encoding::compress_to_vec(
        &archive[..],
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let digest = |bytes: &[u8], kind| unpacked_digest(bytes, kind, 1 << 20, &|| true);
    for (bytes, kind) in [(&archive, PLAIN), (&gzip, GZIP), (&zstd, ZSTD)] {
        let whole = digest(bytes, kind).expect("it is whole");
        assert_eq!(whole, rules::words::digest::Digest::sha256(&archive), "{kind}");
    }
    assert!(matches!(digest(&gzip[..gzip.len() - 9], GZIP), Err(LayerError::Damaged(_))));
    assert!(matches!(digest(&archive, "text/plain"), Err(LayerError::MediaType(_))));
    let large = unpacked_digest(&gzip[..], GZIP, 100, &|| true);
    assert!(matches!(large, Err(LayerError::TooLarge(_))), "{large:?}");
    let stopped = unpacked_digest(&gzip[..], GZIP, 1 << 20, &|| false);
    assert!(matches!(stopped, Err(LayerError::Stopped)), "{stopped:?}");
}
