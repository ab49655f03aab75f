//! A node whose disk has gone bad does no harm with its wrong bytes: each receiver checks each
//! group of 64 KiB, the rest comes from another node, and the liar is named.
//!
//! The node that serves from its disk does not check: this would cost every pull a hash. The
//! receiver checks.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tests::image::{Blob, Image};
use tests::mesh::Mesh;
use tests::{metrics, process, tools, wait};

const MIB: usize = 1 << 20;
const GROUP: usize = 64 << 10;

#[test]
fn a_flipped_bit_is_caught_the_client_gets_the_right_bytes_and_the_liar_is_named() {
    let mesh = Mesh::up(3);
    mesh.create_project("two", true, 2);
    // who is asked first of two holders depends on their round trips: first the one lies, then the
    // other, until one was asked
    for round in 0..20 {
        let name = format!("two/flipped{round}");
        let image = Image::random(&[3 * MIB + 17]);
        let layer = &image.blobs[1];
        mesh.repository(0, &name).push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
        let holders = holders(&mesh, layer);
        assert_eq!(holders.len(), 2, "durability 2 of 3: {holders:?}");
        let without = (0..3).find(|at| !holders.contains(at)).expect("one lacks it");
        let liar = holders[round % 2];
        flip(&mesh, liar, layer, 20 * GROUP + 9);
        let got =
            mesh.repository(without, &name).blob(&layer.digest).unwrap_or_else(|no| panic!("{no}"));
        assert_eq!(got, layer.bytes);
        if lies(&mesh, without) == 0 {
            continue; // the good one was asked first
        }
        let named = &mesh.nodes()[liar].name;
        let shown = mesh.anyone(without).get("/metrics").unwrap_or_else(|none| panic!("{none}"));
        let shown = String::from_utf8_lossy(&shown.body).into_owned();
        let metric = format!("atoll_peers_lied_total{{peer=\"{named}\",what=\"group\"}} 1");
        assert!(shown.contains(&metric), "no {metric} in {shown}");
        let status = mesh.status(without).unwrap_or_else(|no| panic!("{no}"));
        let told = &status["liars"][0];
        assert_eq!(
            (told["node"].as_str(), told["lies"]["group"].as_u64()),
            (Some(named.as_str()), Some(1)),
            "{told}"
        );
        assert!(told["demoted_for_seconds"].as_u64().is_some_and(|left| left > 500), "{told}");
        let printed = status_of(&mesh, without);
        assert!(
            printed.contains(&format!("{named} was caught sending wrong bytes (group 1)")),
            "{printed}"
        );
        // it was told, looks at its copy, and takes the other's
        wait::until("the damaged copy is mended", || {
            let file = std::fs::read(place(&mesh, liar, layer)).ok()?;
            (file == layer.bytes).then_some(())
        });
        assert_eq!(metrics::value(&mesh.anyone(liar), "atoll_blobs_damaged_total"), 1);
        // now it is asked last: other damaged blobs of its are not even asked for
        let mut tried = 0;
        for tag in 2..12 {
            let (tag, image) = (tag.to_string(), Image::random(&[MIB]));
            let layer = &image.blobs[1];
            mesh.repository(liar, &name).push(&image, &tag).unwrap_or_else(|no| panic!("{no}"));
            if !holds(&mesh, without, layer) {
                flip(&mesh, liar, layer, 9);
                mesh.repository(without, &name).pull(&tag).unwrap_or_else(|no| panic!("{no}"));
                tried += 1;
            }
        }
        assert!(tried > 0, "ten uploads were all copied to the same node");
        assert_eq!(lies(&mesh, without), 1, "the demoted one was asked before the other");
        return;
    }
    panic!("in twenty rounds no liar was asked");
}

#[test]
fn of_a_liar_that_alone_has_the_blob_a_client_gets_no_wrong_byte_and_never_the_whole() {
    let mesh = Mesh::up(3);
    mesh.create_project("alone", true, 1);
    let image = Image::random(&[3 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/bad").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(holders(&mesh, layer), [0]);
    let damaged = 30 * GROUP + 1000;
    flip(&mesh, 0, layer, damaged);
    let got = received(&mesh, 1, "alone/bad", layer);
    assert_eq!(
        layer.bytes[..got],
        layer.bytes[..got.min(damaged / GROUP * GROUP)],
        "past the damaged group: {got}"
    );
    assert_eq!(lies(&mesh, 1), 1);
    // it was told, and knows it now: clients hear that nobody has the blob, and get no byte
    wait::until_ok("the blob is told as lost", || {
        let path = format!("/v2/alone/bad/blobs/{}", layer.digest);
        let answer = mesh.client(1).get(&path).map_err(|none| none.to_string())?;
        if answer.status == 404 { Ok(()) } else { Err(answer.to_string()) }
    });
    assert!(lies(&mesh, 1) >= 2, "asked again, because nobody else has it, and caught again");
    assert!(!holds(&mesh, 1, layer), "what is not whole is not held");
    // the bit is put right: the same node is good again, demoted or not
    flip(&mesh, 0, layer, damaged);
    let got =
        mesh.repository(1, "alone/bad").blob(&layer.digest).unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(got, layer.bytes);
}

#[test]
fn a_truncated_blob_and_a_damaged_list_of_groups_are_noticed_by_their_own_node_and_made_good() {
    let mesh = Mesh::up(3);
    mesh.create_project("two", true, 2);
    let image = Image::random(&[2 * MIB, 2 * MIB + 5]);
    mesh.repository(0, "two/short").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let (short, list) = (&image.blobs[1], &image.blobs[2]);
    for at in holders(&mesh, list) {
        let file = outboard(&mesh, at, list);
        let mut bytes =
            std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        bytes[40] ^= 1;
        std::fs::write(&file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let file = std::fs::File::options()
        .write(true)
        .open(place(&mesh, 0, short))
        .expect("the holder's file");
    file.set_len(MIB as u64).expect("shorter");
    for at in [1, 2, 0] {
        mesh.repository(at, "two/short").pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    // what a client has whole may still be on its way to the disk
    wait::until("it was fetched again", || {
        (std::fs::read(place(&mesh, 0, short)).ok()? == short.bytes).then_some(())
    });
    for at in 0..3 {
        assert_eq!(lies(&mesh, at), 0, "nobody sent a wrong byte");
    }
}

fn place(mesh: &Mesh, at: usize, blob: &Blob) -> PathBuf {
    blob.file(&mesh.nodes()[at].data)
}

fn outboard(mesh: &Mesh, at: usize, blob: &Blob) -> PathBuf {
    mesh.nodes()[at].data.join("outboards/sha256").join(&blob.hex()[..2]).join(blob.hex())
}

fn holds(mesh: &Mesh, at: usize, blob: &Blob) -> bool {
    place(mesh, at, blob).exists()
}

fn holders(mesh: &Mesh, blob: &Blob) -> Vec<usize> {
    (0..3).filter(|at| holds(mesh, *at, blob)).collect()
}

/// Flips one bit on a node's disk.
fn flip(mesh: &Mesh, at: usize, blob: &Blob, offset: usize) {
    let path = place(mesh, at, blob);
    let file = std::fs::File::options().read(true).write(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).expect("a byte to flip");
    file.write_all_at(&[byte[0] ^ 0x10], offset as u64).expect("a flipped byte");
}

/// How many lies a node has caught.
fn lies(mesh: &Mesh, at: usize) -> u64 {
    metrics::value(&mesh.anyone(at), "atoll_peers_lied_total")
}

/// How many bytes a client gets before the node breaks off; each of them is right, and it is not
/// the whole.
fn received(mesh: &Mesh, at: usize, repository: &str, blob: &Blob) -> usize {
    let client = mesh.client(at).patient_for(Duration::from_secs(60));
    let ask = client.ask(Method::GET, &format!("/v2/{repository}/blobs/{}", blob.digest));
    let mut coming = ask.open().unwrap_or_else(|none| panic!("{none}"));
    if coming.status == 503 {
        return 0; // it broke off before the answer began
    }
    assert_eq!(coming.status, 200, "{:?}", coming.headers);
    let mut got = 0;
    loop {
        match coming.next() {
            Some(Ok(piece)) => {
                assert!(
                    blob.bytes[got..].starts_with(&piece),
                    "a wrong byte within {got}..{}",
                    got + piece.len()
                );
                got += piece.len();
            }
            Some(Err(_)) => break,
            None => panic!("the answer ended well after {got} of {} bytes", blob.bytes.len()),
        }
    }
    assert!(got < blob.bytes.len(), "the whole of wrong bytes");
    got
}

/// What `atoll status` prints of what a node sees.
fn status_of(mesh: &Mesh, at: usize) -> String {
    let told = std::fs::read(mesh.folder().join("mesh.json")).expect("mesh.json");
    let told: Value = serde_json::from_slice(&told).expect("mesh.json is JSON");
    let password = told["admin"]["password_file"].as_str().expect("a password file");
    let mut status = Command::new(tools::atoll());
    process::succeed(status.args([
        "status",
        "--url",
        &mesh.nodes()[at].url,
        "--password-file",
        password,
    ]))
}
