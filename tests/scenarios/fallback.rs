//! Tags that say by their names what their manifests are about (`sha256-HEX`, cosign's `.sig`, `.att`
//! and `.sbom`): they are taken as all tags are, no list of artifacts shows them as artifacts of their
//! own, and they go with what they are about.

use http::Method;
use serde_json::{Value, json};
use tests::image::{INDEX, Image, MANIFEST};
use tests::mesh::Mesh;
use tests::people::must;

fn sorted(list: &Value, field: &str) -> Vec<String> {
    let all = list.as_array().expect("a list").iter();
    let mut all: Vec<String> =
        all.map(|one| one[field].as_str().expect("text").to_owned()).collect();
    all.sort();
    all
}

#[test]
fn what_is_about_an_image_by_its_tag_is_hidden_in_lists_and_goes_with_the_image() {
    let mesh = Mesh::up(3);
    let (one, other) = (mesh.client(0), mesh.client(1));
    tests::repository::create_project(&one, "team", false, 1);
    let app = mesh.repository(0, "team/app");
    let push = |image: &Image, tag: &str| {
        app.push(image, tag).unwrap_or_else(|no| panic!("{tag}: {no}"));
    };
    let tag = |image: &Image, ending: &str| image.digest().replace(':', "-") + ending;
    let (first, second) = (Image::random(&[1000]), Image::random(&[1000]));
    push(&first, "1");
    push(&second, "2");
    let [signature, attestation, sbom, about_second, stray] =
        std::array::from_fn(|_| Image::random(&[100]));
    push(&signature, &tag(&first, ".sig"));
    push(&attestation, &tag(&first, ".att"));
    push(&sbom, &tag(&first, ".sbom"));
    push(&about_second, &tag(&second, ".sig"));
    // about something that is not there: nobody else would show it
    push(&stray, &tag(&Image::random(&[1]), ".sig"));
    let listed = json!({"mediaType": MANIFEST, "digest": sbom.digest(),
        "size": sbom.manifest.bytes.len()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
    let put = app.put_bytes(&tag(&first, ""), INDEX, index.to_string().into());
    put.unwrap_or_else(|no| panic!("{no}"));

    let of = "/api/v2.0/projects/team/repositories/app/artifacts";
    let get = |path: &str| must(&other, Method::GET, path, &json!({}), 200).json();
    let mut expected = vec![first.digest(), second.digest(), stray.digest()];
    expected.sort();
    assert_eq!(sorted(&get(of), "digest"), expected);
    let shown = get(&format!("{of}/1?with_accessory=true"));
    let mut about = vec![signature.digest(), attestation.digest(), sbom.digest()];
    about.sort();
    assert_eq!(sorted(&shown["accessories"], "digest"), about);
    let kinds = sorted(&shown["accessories"], "type");
    assert_eq!(kinds, ["signature.cosign", "subject.accessory", "subject.accessory"]);
    let (data, url) = (mesh.folder().display().to_string(), mesh.nodes()[2].url.clone());
    let told = mesh.atoll(&["artifact", "list", "team/app", "--data", &data, "--url", &url]);
    assert!(told.success && told.out.lines().count() == 4, "a head and three rows: {told:?}");
    // clients that look for a signature by its tag find it, and copy it with the others
    let tags = || {
        let all = must(&other, Method::GET, "/v2/team/app/tags/list", &json!({}), 200).json();
        all["tags"].as_array().expect("tags").len()
    };
    assert_eq!(tags(), 8);
    let pulled = mesh.repository(2, "team/app").pull(&tag(&first, ".sig"));
    assert_eq!(pulled.unwrap_or_else(|no| panic!("{no}")).digest, signature.digest());

    must(&other, Method::DELETE, &format!("{of}/1"), &json!({}), 200);
    for gone in [&signature, &attestation, &sbom] {
        for at in 0..3 {
            let path = format!("{of}/{}", gone.digest());
            must(&mesh.client(at), Method::GET, &path, &json!({}), 404);
        }
    }
    assert_eq!(tags(), 3);
    // a registry's own client deletes by digest
    let path = format!("/v2/team/app/manifests/{}", second.digest());
    must(&one, Method::DELETE, &path, &json!({}), 202);
    assert_eq!(tags(), 1);
    assert_eq!(sorted(&get(of), "digest"), [stray.digest()]);
}
