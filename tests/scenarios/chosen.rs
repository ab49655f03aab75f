//! A project chooses which edges serve it. Others refuse its clients with a sentence, and learn
//! nothing of what it has, whatever they ask.

use http::Method;
use rules::ledger::records::key;
use rules::wire::{Answer, Ask, Found, Lookup, Query};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use serde_json::json;
use tests::formed::Formed;
use tests::image::Image;
use tests::intruder::{Intruder, Outcome, stolen};
use tests::repository::create_project;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

#[test]
fn only_the_edges_that_a_project_names_serve_it() {
    let mut mesh = Formed::of(&THREE, "");
    let shop = mesh.add_edge("shop-1", "us-east-1", "");
    // in one region: edges of a region fetch for each other
    let office = mesh.add_edge("office", "us-east-1", "");
    for edge in [shop, office] {
        mesh.members()[edge].wait_ready();
    }
    create_project(&mesh.client(0), "team", false, 2);
    let choose = |edges: &str| {
        let body = json!({"metadata": {"edges": edges}});
        let answer = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/team", &body);
        answer.unwrap_or_else(|none| panic!("{none}"))
    };
    assert_eq!(choose("shop-*").status, 200);
    assert_eq!(choose("shop-[").status, 400, "no pattern");
    let image = Image::random(&[70_000]);
    mesh.repository(0, "team/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));

    wait::until_ok("the edge that is named serves it", || {
        mesh.repository(shop, "team/app").pull("1")
    });
    let refused = |at: usize| {
        let answer = mesh.client(at).get("/v2/team/app/manifests/1").ok()?;
        let said = answer.to_string();
        (answer.status == 403 && said.contains("`edges`") && said.contains("DENIED")).then_some(())
    };
    wait::until("the other one refuses it", || refused(office));
    for path in [
        format!("/v2/team/app/blobs/{}", image.blobs[0].digest),
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{}", image.digest()),
        "/api/v2.0/projects/team/repositories".to_owned(),
    ] {
        let answer = mesh.client(office).get(&path).unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 403, "{path}: {answer}");
    }
    // who may not know of the project hears no more than before
    let anyone = mesh.members()[office].anyone().get("/v2/team/app/manifests/1");
    assert_eq!(anyone.unwrap_or_else(|none| panic!("{none}")).status, 401);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("it serves other projects", || mesh.repository(office, "demo/app").pull("1"));

    // nor is it made to fetch for the one that is named, as edges of one region do
    let many: Vec<Image> = (0..12).map(|n| Image::random(&[2000 + n])).collect();
    for (n, image) in many.iter().enumerate() {
        let tag = format!("m{n}");
        mesh.repository(0, "team/app").push(image, &tag).unwrap_or_else(|no| panic!("{no}"));
        wait::until_ok("the edge that is named serves it", || {
            mesh.repository(shop, "team/app").pull(&tag)
        });
    }
    let digests: Vec<Digest> = many
        .iter()
        .flat_map(|image| &image.blobs)
        .map(|blob| blob.digest.parse().expect("a digest"))
        .collect();
    let asker = Intruder::with(&stolen(&mesh.members()[0].data()));
    for (at, has) in [(shop, true), (office, false)] {
        let place = mesh.members()[at].place().mesh.parse().expect("an address");
        let open = asker.knock(place).unwrap_or_else(|no| panic!("{no}"));
        let ask = Ask::Have { digests: digests.clone(), repository: None };
        let Outcome::Answered(answer) = asker.ask(&open, &ask) else { panic!("no answer") };
        let Answer::Have(stocks) = *answer else { panic!("{answer:?}") };
        assert!(stocks.iter().all(|stock| stock.held.is_some() == has), "at {at}: {stocks:?}");
    }

    // an edge that asks all the same
    let thief = Intruder::with(&stolen(&mesh.members()[office].data()));
    let named = Intruder::with(&stolen(&mesh.members()[shop].data()));
    let repository: RepositoryName = "team/app".parse().expect("a name");
    let digest = image.digest().parse().expect("a digest");
    let tag = Query::Key(key::tag(&repository, &"1".parse().expect("a tag")));
    let manifest = Query::Key(key::manifest(&repository, &digest));
    let tags = Query::scan(&key::tags(&repository), None, 100);
    let everything = Query::scan(b"t", None, 1000);
    for at in 0..3 {
        let place = mesh.members()[at].place().mesh.parse().expect("an address");
        let open = thief.knock(place).unwrap_or_else(|no| panic!("{no}"));
        for query in [&tag, &manifest, &tags, &everything] {
            let found = look(&thief, &open, query);
            let nothing = match &found {
                Found::Value(value) => value.is_none(),
                Found::Pairs(pairs) => {
                    pairs.iter().all(|(place, _)| !place.windows(4).any(|part| part == b"team"))
                }
                Found::Same => false,
            };
            assert!(nothing, "at {at}: {query:?}: {found:?}");
        }
        for ask in [
            Ask::Have { digests: vec![digest], repository: Some(repository.clone()) },
            Ask::Look(vec![Lookup { query: Query::scan(b"b", None, 9), unless: None }]),
        ] {
            assert!(thief.ask(&open, &ask).is_refusal(), "{ask:?} at {at}");
        }
        let open = named.knock(place).unwrap_or_else(|no| panic!("{no}"));
        assert!(matches!(look(&named, &open, &tag), Found::Value(Some(_))), "at {at}");
    }

    assert_eq!(choose("").status, 200);
    wait::until("no edge serves it", || refused(shop));
    mesh.repository(1, "team/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(choose("*").status, 200);
    wait::until_ok("all serve it", || mesh.repository(office, "team/app").pull("1"));
}

fn look(edge: &Intruder, open: &quinn::Connection, query: &Query) -> Found {
    let ask = Ask::Look(vec![Lookup { query: query.clone(), unless: None }]);
    match edge.ask(open, &ask) {
        Outcome::Answered(answer) => match *answer {
            Answer::Look(mut found, _) => found.pop().expect("an answer"),
            other => panic!("{query:?}: {other:?}"),
        },
        Outcome::Closed(why) => panic!("{query:?}: {why}"),
    }
}
