//! Layers of images, and the files in them that list packages: the first byte chooses which one the
//! others are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scan::{Limits, merge, read_layer};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Kinds of layers, and of files in one.
const LAYERS: [&str; 3] = [
    TAR,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];
const FILES: [&str; 17] = [
    "var/lib/dpkg/status",
    "var/lib/dpkg/info/x.list",
    "var/lib/dpkg/status.d/x.md5sums",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "x.dist-info/METADATA",
    "package.json",
    "x.jar",
    "usr/bin/program",
    "etc/os-release",
    "etc/apk/repositories",
    "etc/redhat-release",
    "etc/lsb-release",
    "root/buildinfo/Dockerfile-x-1-2",
    "root/buildinfo/content_manifests/x.json",
    "var/lib/ubuntu-advantage/status.json",
];

/// An archive with one file.
fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut head = vec![0; 512];
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[100..107].copy_from_slice(b"0000755");
    head[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    head[156] = b'0';
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = [&head, bytes].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let choice = usize::from(*choice) % (LAYERS.len() + FILES.len());
    let limits = Limits { bytes: 16 << 20, files: 10_000, file: 1 << 20 };
    let read = match choice.checked_sub(LAYERS.len()) {
        None => read_layer(rest, LAYERS[choice], &limits, &|| true),
        Some(file) => read_layer(&archive(FILES[file], rest)[..], TAR, &limits, &|| true),
    };
    if let Ok(layer) = read {
        merge(&[layer]);
    }
});
