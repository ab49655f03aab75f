//! Another registry is what the administrator made it, at every node: its secret is shown and lies
//! nowhere, and no more of it is asked or given out than is allowed.
//!
//! A proxy project takes no pushes, lets through what its patterns say, and has nothing that only
//! others have put into the mesh.

use http::Method;
use serde_json::json;
use tests::complaints::Complaints;
use tests::http::{Answer, Client};
use tests::image::{Image, MANIFEST, digest, random_bytes};
use tests::mesh::Mesh;
use tests::proxies::{
    PROJECTS, REGISTRIES, ask_manifest, id_of, make, make_project, make_registry, manifest,
};
use tests::repository::Repository;
use tests::upstream::{Manner, Upstream};
use tests::wait;

#[test]
fn registries_are_made_shown_and_taken_away_at_every_node() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let secret = hex::encode(random_bytes(16));
    upstream.demand("robot", &secret);
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry",
        "credential": {"access_key": "robot", "access_secret": secret}});
    let place = make(&mesh.client(1), REGISTRIES, &what);
    let id = id_of(&place);
    wrong.unless(place.starts_with(&format!("{REGISTRIES}/")), || format!("a registry at {place}"));
    for at in 0..3 {
        let all = get(&mesh.client(at), REGISTRIES);
        let listed = all
            .json()
            .as_array()
            .and_then(|all| all.iter().find(|one| one["name"] == "up").cloned());
        let one = get(&mesh.client(at), &place);
        for (told, shown) in
            [("in the list", listed.unwrap_or_default()), ("by itself", one.json())]
        {
            let right = shown["id"] == id
                && shown["url"] == upstream.url()
                && shown["type"] == "docker-registry";
            wrong.unless(right && shown["name"] == "up", || format!("{told} at {at}: {shown}"));
        }
        let quiet = !all.to_string().contains(&secret)
            && !String::from_utf8_lossy(&one.body).contains(&secret);
        wrong.unless(quiet, || format!("the secret is shown at {at}"));
        let anyone = mesh.anyone(at).get(REGISTRIES);
        wrong.unless_refused(
            &format!("registries for anyone at {at}"),
            anyone,
            &[401],
            &["UNAUTHORIZED"],
        );
        let again = mesh.client(at).send_json(Method::POST, REGISTRIES, &what);
        wrong.unless_refused(&format!("the same name at {at}"), again, &[409], &["CONFLICT"]);
    }
    let nonsense = json!({"name": "file", "url": "file:///etc/passwd", "type": "docker-registry"});
    let nonsense = mesh.client(0).send_json(Method::POST, REGISTRIES, &nonsense);
    wrong.unless_refused("a URL that is none of a registry", nonsense, &[400], &[]);
    let unchecked = json!({"name": "unchecked", "url": upstream.url().replace("http://", "https://"), "type": "docker-registry", "insecure": true});
    let unchecked = mesh
        .client(0)
        .send_json(Method::POST, REGISTRIES, &unchecked)
        .unwrap_or_else(|none| panic!("{none}"));
    let told = unchecked.envelope().map(|(_, message)| message).unwrap_or_default();
    wrong.unless(unchecked.status == 400 && told.contains("upstreams.ca"), || {
        format!("{unchecked}")
    });
    let elsewhere = |name: &str, key: &str| {
        let what = json!({"name": name, "url": upstream.url(), "type": "aws-ecr",
            "credential": {"access_key": key, "access_secret": secret}});
        mesh.client(0)
            .send_json(Method::POST, REGISTRIES, &what)
            .unwrap_or_else(|none| panic!("{name}: {none}"))
    };
    let refused = elsewhere("ecr", "AKIDEXAMPLE");
    let told = refused.envelope().map(|(_, message)| message).unwrap_or_default();
    let in_words =
        told.contains("https://ACCOUNT.dkr.ecr.REGION.amazonaws.com") && !told.contains(&secret);
    wrong.unless(refused.status == 400 && in_words, || {
        format!("an AWS access key for another host: {refused}")
    });
    let ready = elsewhere("ready", "AWS");
    wrong.unless(ready.status == 201, || format!("a password that AWS has given out: {ready}"));
    // whether it is well, by its number and before it is recorded
    let ping = |at: usize, what: serde_json::Value| {
        let answer = mesh.client(at).send_json(Method::POST, &format!("{REGISTRIES}/ping"), &what);
        let answer = answer.unwrap_or_else(|none| panic!("{what}: {none}"));
        (answer.status, answer.envelope().map(|(_, message)| message).unwrap_or_default())
    };
    let number: u64 = id.to_string().parse().expect("a number");
    let like = |url: &str, secret: &str| {
        json!({"url": url, "type": "docker-registry",
            "credential": {"access_key": "robot", "access_secret": secret}})
    };
    for (what, status, word) in [
        (json!({"id": number}), 200, ""),
        (like(upstream.url(), &secret), 200, ""),
        (like(upstream.url(), "wrong"), 400, "not well"),
        (json!({"url": upstream.url(), "type": "docker-registry"}), 400, "not well"),
        (like("http://127.0.0.1:1", &secret), 400, "not well"),
        (json!({"id": number, "access_secret": "wrong"}), 400, "not well"),
        (json!({"id": 987_654}), 404, "no registry"),
        (json!({}), 400, "url or id"),
        (json!({"id": number, "url": "http://127.0.0.1:1"}), 400, "access_secret is needed"),
    ] {
        for at in 0..3 {
            let (came, said) = ping(at, what.clone());
            wrong.unless(came == status && said.contains(word) && !said.contains(&secret), || {
                format!("{what} at {at}: {came} {said}")
            });
        }
    }
    let nowhere =
        json!({"project_name": "nowhere", "registry_id": 987_654, "metadata": {"public": "true"}});
    let nowhere = mesh.client(0).send_json(Method::POST, PROJECTS, &nowhere);
    wrong.unless_refused("a project of a registry that is not there", nowhere, &[400, 404], &[]);

    // what it is for: the credentials are those that the upstream sees
    make_project(&mesh.client(2), "hub", &id);
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        let found = Repository::new(&mesh.anyone(at), "hub/app")
            .pull("1")
            .unwrap_or_else(|no| panic!("at {at}: {no}"));
        assert_eq!(found.digest, image.digest());
        let shown = get(&mesh.client(at), &format!("{PROJECTS}/hub")).json();
        wrong.unless(shown["registry_id"] == id, || format!("the project at {at}: {shown}"));
        let log =
            std::fs::read_to_string(mesh.nodes()[at].data.join("atoll.log")).unwrap_or_default();
        wrong.unless(!log.contains(&secret), || format!("the secret is in the log of {at}"));
    }

    let empty = make(
        &mesh.client(0),
        REGISTRIES,
        &json!({"name": "two", "url": upstream.url(), "type": "docker-registry"}),
    );
    make_project(&mesh.client(0), "idle", &id_of(&empty));
    let used = mesh.client(1).ask(Method::DELETE, &empty).send();
    wrong.unless_refused("taking away a registry in use", used, &[412], &["PRECONDITION"]);
    for (at, what) in [(2, format!("{PROJECTS}/idle")), (1, empty.clone())] {
        let gone = mesh
            .client(at)
            .ask(Method::DELETE, &what)
            .send()
            .unwrap_or_else(|none| panic!("{what}: {none}"));
        wrong.unless(gone.status == 200, || format!("DELETE {what}: {gone}"));
    }
    for at in 0..3 {
        wrong.unless_refused("what was taken away", mesh.client(at).get(&empty), &[404], &[]);
    }
}

#[test]
fn a_registry_that_is_changed_is_another_to_every_node_at_once() {
    let mesh = Mesh::up_with(3, &[("upstreams.fresh_for", "24h"), ("upstreams.missing_for", "1h")]);
    let (first, second, wrong) = (Upstream::start(), Upstream::start(), Complaints::default());
    let secrets = [0, 1].map(|_| hex::encode(random_bytes(16)));
    let images = [0, 1].map(|_| Image::tiny());
    for (number, upstream) in [&first, &second].into_iter().enumerate() {
        for name in ["app", "late"] {
            upstream
                .repository(name)
                .push(&images[number], "1")
                .unwrap_or_else(|no| panic!("{no}"));
        }
    }
    first.demand("robot", &secrets[0]);
    let what = json!({"name": "up", "url": first.url(), "type": "docker-registry",
        "credential": {"access_key": "robot", "access_secret": secrets[0]}});
    let place = make(&mesh.client(0), REGISTRIES, &what);
    make_project(&mesh.client(0), "hub", &id_of(&place));
    let pull = |at: usize, name: &str| {
        let there = Repository::new(&mesh.anyone(at), &format!("hub/{name}"));
        // on a busy machine an upstream may be late: that is said, and the answer is there the next
        // time
        wait::until_ok(&format!("{name} is pulled at {at}"), || there.pull("1")).digest
    };
    (0..3).for_each(|at| assert_eq!(pull(at, "app"), images[0].digest()));
    let change = |at: usize, what: &serde_json::Value| {
        let answer = mesh.client(at).send_json(Method::PUT, &place, what);
        answer.unwrap_or_else(|none| panic!("{what} at {at}: {none}"))
    };

    // a password that has run out, and the new one, in Harbor's form
    first.demand("robot", &secrets[1]);
    let late = manifest(&mesh.anyone(1), "late", "1");
    wrong.unless(late.status >= 400, || format!("with the old password: {late}"));
    let changed = change(1, &json!({"access_secret": secrets[1], "credential_type": "basic"}));
    wrong.unless(changed.status == 200, || format!("{changed}"));
    for at in 0..3 {
        wrong.unless(pull(at, "late") == images[0].digest(), || format!("another image at {at}"));
    }

    // another address, in the form that Terraform's provider sends: nothing that the first one said
    // or was shown counts any more
    let moved = json!({"name": "moved", "url": second.url(), "type": "docker-registry", "description": "elsewhere",
        "credential": {"type": "basic", "access_key": "other", "access_secret": secrets[0]}});
    second.demand("other", &secrets[0]);
    let changed = change(2, &moved);
    wrong.unless(changed.status == 200, || format!("{changed}"));
    first.forget();
    for at in 0..3 {
        wrong.unless(pull(at, "app") == images[1].digest(), || {
            format!("the image of the old address at {at}")
        });
        let shown = get(&mesh.client(at), &place);
        let one = shown.json();
        let right = one["name"] == "moved"
            && one["description"] == "elsewhere"
            && one["url"] == second.url();
        wrong.unless(right && one["credential"]["access_key"] == "other", || {
            format!("shown at {at}: {one}")
        });
        let body = String::from_utf8_lossy(&shown.body).into_owned();
        wrong.unless(secrets.iter().all(|s| !body.contains(s)), || {
            format!("a secret is shown at {at}")
        });
    }
    wrong.unless(first.asked().is_empty(), || {
        format!("the old address was asked: {:?}", first.asked())
    });

    make(
        &mesh.client(0),
        REGISTRIES,
        &json!({"name": "two", "url": first.url(), "type": "docker-registry"}),
    );
    let taken = mesh.client(0).send_json(Method::PUT, &place, &json!({"name": "two"}));
    wrong.unless_refused("a name that is taken", taken, &[409], &["CONFLICT"]);
    let nonsense =
        mesh.client(0).send_json(Method::PUT, &place, &json!({"url": "file:///etc/passwd"}));
    wrong.unless_refused("a URL that is none of a registry", nonsense, &[400], &["BAD_REQUEST"]);
    let nowhere = mesh.client(0).send_json(
        Method::PUT,
        &format!("{REGISTRIES}/987654"),
        &json!({"name": "x"}),
    );
    wrong.unless_refused("a registry that is not there", nowhere, &[404], &[]);
}

#[test]
fn a_cache_goes_when_it_is_deleted_and_images_of_our_own_do_not() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let (image, ours) = (Image::tiny(), Image::tiny());
    for name in ["app", "team/app"] {
        upstream.repository(name).push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let place = make(
        &mesh.client(0),
        REGISTRIES,
        &json!({"name": "up", "url": upstream.url(), "type": "docker-registry"}),
    );
    mesh.create_project("team", true, 2);
    mesh.repository(0, "team/ours").push(&ours, "1").unwrap_or_else(|no| panic!("{no}"));
    for round in 0..2 {
        make_project(&mesh.client(round), "hub", &id_of(&place));
        for at in 0..3 {
            for name in ["hub/app", "hub/team/app"] {
                Repository::new(&mesh.anyone(at), name)
                    .pull("1")
                    .unwrap_or_else(|no| panic!("{name} at {at}: {no}"));
            }
        }
        let project = format!("{PROJECTS}/hub");
        let gone = mesh
            .client(2 - round)
            .ask(Method::DELETE, &project)
            .send()
            .unwrap_or_else(|none| panic!("{none}"));
        wrong
            .unless(gone.status == 200, || format!("a cache that was used, round {round}: {gone}"));
        for at in 0..3 {
            wrong.unless_refused(
                "a cache that is gone",
                mesh.client(at).get(&project),
                &[404],
                &["NAME_UNKNOWN"],
            );
            let pulled = mesh.client(at).get("/v2/hub/app/manifests/1");
            wrong.unless_refused("an image of it", pulled, &[404], &["NAME_UNKNOWN"]);
        }
    }
    let kept = mesh.client(1).ask(Method::DELETE, &format!("{PROJECTS}/team")).send();
    wrong.unless_refused("a project with images of our own", kept, &[412], &["PRECONDITION"]);
    mesh.repository(2, "team/ours").pull("1").unwrap_or_else(|no| panic!("{no}"));
    let registry =
        mesh.client(1).ask(Method::DELETE, &place).send().unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(registry.status == 200, || {
        format!("the registry, which nobody uses any more: {registry}")
    });
}

#[test]
fn projects_have_numbers_and_pages_and_keep_what_is_written_about_them() {
    let (mesh, wrong) = (Mesh::up(3), Complaints::default());
    let metadata =
        json!({"public": "true", "auto_scan": "true", "severity": "low", "prevent_vul": "false"});
    let what = json!({"project_name": "api-gateway", "metadata": metadata});
    let place = make(&mesh.client(1), PROJECTS, &what);
    let number = id_of(&place);
    wrong.unless(place == format!("{PROJECTS}/{number}"), || format!("a project at {place}"));
    let settled = json!({"metadata": {"auto_scan": "false", "public": "true"}});
    let changed = mesh
        .client(2)
        .send_json(Method::PUT, &place, &settled)
        .unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(changed.status == 200, || format!("changed by its number: {changed}"));
    for at in 0..3 {
        for path in [place.clone(), format!("{PROJECTS}/api-gateway")] {
            let shown = get(&mesh.client(at), &path).json();
            let right = shown["project_id"] == number && shown["name"] == "api-gateway";
            let kept = &shown["metadata"];
            let kept = kept["auto_scan"] == "false"
                && kept["severity"] == "low"
                && kept["prevent_vul"] == "false";
            wrong.unless(right && kept, || format!("{path} at {at}: {shown}"));
        }
    }

    // a name that is another project's number: the number goes before, unless the client says what
    // it writes
    let digits = number.to_string();
    make(&mesh.client(0), PROJECTS, &json!({"project_name": digits}));
    let shown = get(&mesh.client(1), &format!("{PROJECTS}/{digits}")).json();
    wrong.unless(shown["name"] == "api-gateway", || format!("by number: {shown}"));
    let by_name = mesh
        .client(1)
        .ask(Method::GET, &format!("{PROJECTS}/{digits}"))
        .header("x-is-resource-name", "true");
    let by_name = by_name.send().unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(by_name.json()["name"] == digits.as_str(), || format!("by name: {by_name}"));

    // as Terraform's provider asks: page after page until one is empty
    (0..12).for_each(|n| mesh.create_project(&format!("many-{n}"), true, 1));
    for at in 0..3 {
        let mut names = Vec::new();
        for page in 1.. {
            let listed = get(&mesh.client(at), &format!("{PROJECTS}?page={page}"));
            let found = listed.json().as_array().cloned().unwrap_or_default();
            wrong.unless(found.len() <= 10, || format!("page {page} at {at} has {}", found.len()));
            wrong.unless(listed.header("x-total-count") == Some("15"), || {
                format!("{:?}", listed.headers)
            });
            if found.is_empty() {
                break;
            }
            assert!(page < 9, "the pages have no end at {at}");
            names.extend(found.iter().map(|one| one["name"].clone()));
        }
        wrong.unless(names.len() == 15, || format!("listed at {at}: {names:?}"));
        let some = get(&mesh.client(at), &format!("{PROJECTS}?name=many-1&page_size=2"));
        let right = some.json().as_array().is_some_and(|found| found.len() == 2);
        wrong.unless(right && some.header("x-total-count") == Some("3"), || {
            format!("by name at {at}: {some}")
        });
    }
    let registries = get(&mesh.client(0), REGISTRIES);
    wrong.unless(registries.header("x-total-count") == Some("0"), || {
        format!("{:?}", registries.headers)
    });
    let gone =
        mesh.client(0).ask(Method::DELETE, &place).send().unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(gone.status == 200, || format!("deleted by its number: {gone}"));
    wrong.unless_refused(
        "what was deleted",
        mesh.client(2).get(&format!("{PROJECTS}/api-gateway")),
        &[404],
        &[],
    );
}

#[test]
fn an_upstream_on_loopback_is_not_touched_unless_it_is_allowed() {
    let (mesh, upstream) =
        (Mesh::up_with(3, &[("upstreams.allow_loopback", "false")]), Upstream::start());
    upstream.repository("app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    for (name, url) in [
        ("plain", upstream.url().to_owned()),
        ("named", upstream.url().replace("127.0.0.1", "localhost")),
    ] {
        let what = json!({"name": name, "url": url, "type": "docker-registry"});
        let made = mesh
            .client(0)
            .send_json(Method::POST, REGISTRIES, &what)
            .unwrap_or_else(|none| panic!("{none}"));
        if made.status == 201 {
            let id = id_of(made.header("location").expect("what is made has a location"));
            make_project(&mesh.client(0), name, &id);
            for at in 0..3 {
                let path = format!("/v2/{name}/app/manifests/1");
                let answer =
                    mesh.anyone(at).ask(Method::GET, &path).header("accept", MANIFEST).send();
                let answer = answer.unwrap_or_else(|none| panic!("{url} at {at}: {none}"));
                assert!(
                    answer.status >= 400 && answer.envelope().is_some(),
                    "{url} at {at}: {answer}"
                );
            }
        } else {
            assert_eq!(made.status, 400, "{url}: {made}");
        }
    }
    assert!(upstream.asked().is_empty(), "{:?}", upstream.asked());
}

#[test]
fn patterns_decide_what_of_the_upstream_is_there() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let image = Image::tiny();
    for name in ["library/app", "team/app", "team/secret"] {
        upstream.repository(name).push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let id = make_registry(&mesh.client(0), &upstream);
    let what = json!({"project_name": "hub", "registry_id": id,
        "metadata": {"public": "true", "proxy_cache_filter_pattern": "{library,team}/*", "proxy_cache_deny_pattern": "**/secret"}});
    make(&mesh.client(0), PROJECTS, &what);
    for at in 0..3 {
        let anyone = mesh.anyone(at);
        for (name, served) in [
            ("library/app", true),
            ("team/app", true),
            ("team/secret", false),
            ("other/app", false),
        ] {
            let there = format!("hub/{name}");
            let blob = anyone.get(&format!("/v2/{there}/blobs/{}", image.blobs[0].digest));
            if served {
                Repository::new(&anyone, &there)
                    .pull("1")
                    .unwrap_or_else(|no| panic!("{there} at {at}: {no}"));
            } else {
                let tag = ask_manifest(&anyone, name, "1").send();
                wrong.unless_refused(
                    &format!("{there} at {at}"),
                    tag,
                    &[404],
                    &["MANIFEST_UNKNOWN"],
                );
                wrong.unless_refused(
                    &format!("a blob of {there} at {at}"),
                    blob,
                    &[404],
                    &["BLOB_UNKNOWN"],
                );
            }
        }
    }
    let asked = upstream.asked();
    wrong.unless(asked.iter().all(|a| !a.path.contains("secret")), || {
        "the upstream was asked for what is denied".into()
    });
    // widened, it is there
    let change = json!({"metadata": {"proxy_cache_deny_pattern": ""}});
    let changed = mesh.client(1).send_json(Method::PUT, &format!("{PROJECTS}/hub"), &change);
    assert_eq!(changed.unwrap_or_else(|none| panic!("{none}")).status, 200);
    Repository::new(&mesh.anyone(2), "hub/team/secret")
        .pull("1")
        .unwrap_or_else(|no| panic!("{no}"));
    let nonsense = json!({"metadata": {"proxy_cache_filter_pattern": "a{b"}});
    let nonsense = mesh.client(1).send_json(Method::PUT, &format!("{PROJECTS}/hub"), &nonsense);
    wrong.unless_refused("a pattern with an open brace", nonsense, &[400], &[]);
}

#[test]
fn a_proxy_project_takes_nothing_and_has_what_its_upstream_has() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let (image, ours) = (Image::tiny(), Image::tiny());
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.create_project("secret", false, 2);
    mesh.repository(0, "secret/ours").push(&ours, "1").unwrap_or_else(|no| panic!("{no}"));
    let nothing = digest(&random_bytes(8));
    for at in 0..3 {
        let there = mesh.repository(at, "hub/app");
        let client = there.client();
        let (blob, elsewhere) = (&ours.blobs[1].digest, "secret/ours");
        let pushes = [
            (Method::POST, "blobs/uploads/".to_owned()),
            (Method::POST, format!("blobs/uploads/?digest={blob}")),
            (Method::POST, format!("blobs/uploads/?mount={blob}&from={elsewhere}")),
            (Method::PUT, "manifests/1".to_owned()),
            (Method::PUT, format!("manifests/{}", ours.digest())),
        ];
        for (method, what) in pushes {
            let named = format!("{method} {what} at {at}");
            let ask = client.ask(method.clone(), &there.path(&what));
            let answer = if method == Method::PUT {
                ask.header("content-type", MANIFEST).body(ours.manifest.bytes.clone()).send()
            } else {
                ask.send()
            };
            let said = answer
                .as_ref()
                .ok()
                .and_then(Answer::envelope)
                .map(|(_, message)| message)
                .unwrap_or_default();
            wrong.unless(said.contains("can not push artifact to a proxy project"), || {
                format!("{named}: '{said}'")
            });
            wrong.unless_refused(&named, answer, &[403], &["DENIED"]);
        }
        for (repository, reference) in [("app", "2"), ("app", nothing.as_str()), ("no/such", "1")] {
            let answer = Ok(manifest(&mesh.anyone(at), repository, reference));
            wrong.unless_refused(
                &format!("{repository}:{reference} at {at}"),
                answer,
                &[404],
                &["MANIFEST_UNKNOWN"],
            );
        }
        let blob = mesh.anyone(at).get(&format!("/v2/hub/app/blobs/{nothing}"));
        wrong.unless_refused(
            &format!("a blob that is nowhere, at {at}"),
            blob,
            &[404],
            &["BLOB_UNKNOWN"],
        );
        // what others have put into the mesh is not of this project: who may not read it there must
        // not get it here
        for method in [Method::GET, Method::HEAD] {
            let blob = mesh
                .anyone(at)
                .ask(method.clone(), &format!("/v2/hub/app/blobs/{}", ours.blobs[1].digest))
                .send();
            let blob = blob.unwrap_or_else(|none| panic!("at {at}: {none}"));
            wrong.unless(blob.status == 404, || {
                format!("{method} of a private project's blob at {at}: {}", blob.status)
            });
        }
        let theirs = manifest(&mesh.anyone(at), "app", ours.digest()).status;
        wrong.unless(theirs == 404, || format!("a private project's manifest at {at}: {theirs}"));
        there.pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    assert!(
        upstream.repository("app").resolve("1").is_ok_and(|found| found.digest == image.digest())
    );
}

#[test]
fn an_upstreams_manifest_opens_no_blob_that_the_upstream_does_not_have() {
    let (mesh, upstream) = (Mesh::up(3), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let (ours, theirs) = (Image::tiny(), Image::tiny());
    mesh.create_project("secret", false, 2);
    mesh.repository(0, "secret/ours").push(&ours, "1").unwrap_or_else(|no| panic!("{no}"));
    // both name blobs of ours; the upstream has lost those of the one
    for (name, image) in [("evil", &ours), ("fair", &ours), ("own", &theirs)] {
        upstream.repository(name).push(image, "1").unwrap_or_else(|no| panic!("{name}: {no}"));
    }
    for blob in &ours.blobs {
        let path = upstream.repository("evil").path(&format!("blobs/{}", blob.digest));
        let gone = upstream.repository("evil").client().ask(Method::DELETE, &path).send();
        assert!(gone.as_ref().is_ok_and(|answer| answer.status == 202), "{gone:?}");
    }
    for at in 0..3 {
        let named = manifest(&mesh.anyone(at), "evil", "1");
        assert_eq!(named.status, 200, "at {at}: {named}");
        for blob in &ours.blobs {
            let answer = mesh.anyone(at).get(&format!("/v2/hub/evil/blobs/{}", blob.digest));
            let answer = answer.unwrap_or_else(|none| panic!("at {at}: {none}"));
            assert_eq!(answer.status, 404, "a private project's blob, at {at}: {answer}");
        }
        for name in ["fair", "own"] {
            let there = Repository::new(&mesh.anyone(at), &format!("hub/{name}"));
            there.pull("1").unwrap_or_else(|no| panic!("{name} at {at}: {no}"));
        }
    }
}

#[test]
fn neither_a_digest_nor_a_status_opens_a_blob_of_another_project() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    mesh.create_project("secret", false, 2);
    // a small blob is shown whole, and a long one in samples; and what was deleted is no more open
    // than what is used
    let (used, deleted) = (Image::random(&[512, 3 << 20]), Image::random(&[512, 3 << 20]));
    for (name, image) in [("used", &used), ("deleted", &deleted)] {
        let there = mesh.repository(0, &format!("secret/{name}"));
        there.push(image, "1").unwrap_or_else(|no| panic!("{name}: {no}"));
    }
    let there = mesh.repository(0, "secret/deleted");
    let gone =
        there.client().ask(Method::DELETE, &there.path(&format!("manifests/{}", deleted.digest())));
    assert!(gone.send().is_ok_and(|answer| answer.status == 202), "it is deleted");
    let liars = [("invents", Manner::InventsBlobs), ("hollow", Manner::HollowBlobs)];
    for (name, _) in liars {
        let there = upstream.repository(name);
        there.push(&used, "used").unwrap_or_else(|no| panic!("{no}"));
        there.push(&deleted, "deleted").unwrap_or_else(|no| panic!("{no}"));
    }
    upstream.repository("fair").push(&used, "1").unwrap_or_else(|no| panic!("{no}"));
    for (name, manner) in liars {
        upstream.behave(manner);
        for at in 0..3 {
            let anyone = mesh.anyone(at).patient_for(std::time::Duration::from_secs(60));
            for (tag, image) in [("used", &used), ("deleted", &deleted)] {
                let named = manifest(&anyone, name, tag);
                wrong.unless(named.status == 200, || format!("{name}:{tag} at {at}: {named}"));
                for (number, blob) in image.blobs.iter().enumerate() {
                    let path = format!("/v2/hub/{name}/blobs/{}", blob.digest);
                    for method in [Method::HEAD, Method::GET] {
                        let answer = anyone.ask(method.clone(), &path).send();
                        let answer = answer.unwrap_or_else(|none| panic!("{path} at {at}: {none}"));
                        wrong.unless(matches!(answer.status, 404 | 503), || {
                            format!("{method} blob {number} of {name}:{tag} at {at}: {answer}")
                        });
                    }
                }
            }
        }
    }
    // who shows it may have it, and what it shows is a part that nobody can foresee
    upstream.behave(Manner::Honest);
    upstream.forget();
    for at in 0..3 {
        let there = Repository::new(&mesh.anyone(at), "hub/fair");
        there.pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    let long = format!("blobs/{}", used.blobs[2].digest);
    let shown = upstream.asked_for(&Method::GET, &long);
    let sent: usize = shown.iter().map(|asked| asked.sent).sum();
    wrong.unless((1..2 << 20).contains(&sent), || format!("{sent} bytes were sent: {shown:?}"));
    wrong.unless(shown.iter().all(|asked| asked.range.is_some()), || format!("{shown:?}"));
}

#[test]
fn a_secret_of_an_upstream_lies_nowhere_in_the_clear() {
    let (mesh, upstream) = (Mesh::up(3), Upstream::start());
    let secret = hex::encode(random_bytes(16));
    upstream.demand("robot", &secret);
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry",
        "credential": {"access_key": "robot", "access_secret": secret}});
    make_project(&mesh.client(0), "hub", &id_of(&make(&mesh.client(1), REGISTRIES, &what)));
    for at in 0..3 {
        Repository::new(&mesh.anyone(at), "hub/app")
            .pull("1")
            .unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    let mut folders = vec![mesh.folder().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                seen += 1;
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "the secret is in {}", path.display());
            }
        }
    }
    assert!(seen > 10, "only {seen} files were looked at");
}

fn get(client: &Client, path: &str) -> Answer {
    let answer =
        client.get(path).unwrap_or_else(|none| panic!("{path} at {}: {none}", client.authority()));
    assert_eq!(answer.status, 200, "{path} at {}: {answer}", client.authority());
    answer
}
