//! An upload is copied to a second region while it arrives, not after: so an acknowledged push
//! survives the node that took it.
//!
//! Half an upload, which has no digest yet, is already on its way to another region. If the node
//! that received it dies at the moment of the acknowledgement, every byte is there without it.

use http::Method;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::wait;

const MIB: usize = 1 << 20;

#[test]
fn an_upload_is_under_way_to_another_region_before_its_last_byte_has_come() {
    let mesh = Mesh::up(3);
    let image = Image::random(&[8 * MIB]);
    let (config, layer) = (&image.blobs[0], &image.blobs[1]);
    let repository = mesh.repository(0, "demo/copied");
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let half = layer.bytes.len() / 2;
    let first =
        repository.client().ask(Method::PATCH, &place).body(layer.bytes.slice(..half)).send();
    let first = first.unwrap_or_else(|no| panic!("{no:?}"));
    assert_eq!(first.status, 202, "half an upload is taken");
    let taker = &mesh.nodes()[0].name;
    let seen = wait::until("half an upload arrives in another region", || {
        (1..3).find(|at| {
            let status = mesh.status(*at).unwrap_or_default();
            let transfers = status["transfers"].as_array().cloned().unwrap_or_default();
            transfers.iter().any(|one| {
                one["direction"] == "in"
                    && one["peer"] == taker.as_str()
                    && one["bytes"].as_u64() == Some(half as u64)
            })
        })
    });
    let rest = layer.bytes.slice(half..);
    repository.close_upload(&place, &layer.digest, rest).unwrap_or_else(|no| panic!("{no}"));
    repository.upload(config).unwrap_or_else(|no| panic!("{no}"));
    repository.put_manifest("1", &image).unwrap_or_else(|no| panic!("{no}"));
    mesh.kill(0);
    let elsewhere = mesh.repository(seen, "demo/copied");
    let found =
        wait::until_ok("the push is there without the node that took it", || elsewhere.pull("1"));
    assert_eq!(found.digest, image.digest());
}
