//! A node sends no more bytes a second towards a region than its operator allows, and what it sends
//! arrives whole.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::formed::Formed;
use tests::image::Image;
use tests::metrics;
use tests::repository::create_project;

const MIB: usize = 1 << 20;

#[test]
fn a_cap_holds_for_pulls_and_for_copies_of_pushes() {
    // far may send 2 MiB a second to near
    let mesh = Formed::of(&[("far", "far"), ("near", "near")], "links: {caps: {near: 2MiB}}");
    for (project, durability) in [("alone", 1), ("both", 2)] {
        create_project(&mesh.client(0), project, true, durability);
        let sent = || metrics::value(&mesh.members()[0].anyone(), "atoll_link_bytes_sent_total");
        let image = Image::random(&[8 * MIB]);
        let (before, began) = (sent(), Instant::now());
        let repository = mesh.repository(0, &format!("{project}/slow"));
        repository.push(&image, "1").unwrap_or_else(|no| panic!("{project}: {no}"));
        let pulled = mesh.repository(1, &format!("{project}/slow")).pull("1");
        pulled.unwrap_or_else(|no| panic!("{project}: {no}"));
        let (took, sent) = (began.elapsed(), sent() - before);
        assert!(sent >= 8 * MIB as u64, "{project}: {sent} bytes");
        // 8 MiB less what may have been saved up: a slow machine takes longer, none may take less
        let least = Duration::from_millis(3500);
        assert!(took >= least, "{project}: {sent} bytes in {took:?}");
    }
}

#[test]
fn with_the_other_congestion_control_copies_and_pulls_arrive_too() {
    let mesh = Formed::of(&[("far", "far"), ("near", "near")], "links: {congestion: cubic}");
    for (project, durability) in [("alone", 1), ("both", 2)] {
        create_project(&mesh.client(0), project, true, durability);
        let image = Image::random(&[8 * MIB]);
        let name = format!("{project}/cubic");
        mesh.repository(0, &name).push(&image, "1").unwrap_or_else(|no| panic!("{project}: {no}"));
        if durability == 2 {
            mesh.members()[0].stop(Signal::KILL); // a copy is there without it
        }
        for blob in &image.blobs {
            let got = mesh
                .repository(1, &name)
                .blob(&blob.digest)
                .unwrap_or_else(|no| panic!("{project}: {no}"));
            assert_eq!(got, blob.bytes);
        }
    }
}
