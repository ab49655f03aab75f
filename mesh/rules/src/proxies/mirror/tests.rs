use super::*;
use proptest::prelude::*;

fn known() -> Mirrored {
    let name = |text: &str| text.parse::<ProjectName>().unwrap();
    Mirrored {
        own: ["10.0.0.11:5000".to_owned()].into(),
        projects: ["demo", "hub", "hub2", "quay", "part", "a.b"].map(name).into(),
        proxies: [
            (name("hub2"), Some("docker.io".to_owned())),
            (name("hub"), Some("registry-1.docker.io".to_owned())),
            (name("quay"), Some("Quay.io".to_owned())),
            (name("part"), None),
            (name("a.b"), Some("r.example:5000".to_owned())),
        ]
        .into(),
    }
}

fn rules() -> MirrorRules {
    MirrorRules {
        names: ["registry.example".to_owned()].into(),
        domain: Some("mirror.example".into()),
        default: None,
        aliases: BTreeMap::new(),
    }
}

fn meant(
    rules: &MirrorRules,
    ns: Option<&str>,
    host: &str,
    written: &str,
) -> Result<String, String> {
    match rules.meaning(&Asked { ns, host: Some(host), written, writes: false }, &known()) {
        Meaning::Repository(repository) => Ok(repository.to_string()),
        Meaning::NotMirrored(registry) => Err(registry),
        Meaning::Malformed(_) => Err("malformed".into()),
    }
}

fn ok(repository: &str) -> Result<String, String> {
    Ok(repository.into())
}

#[test]
fn only_docker_hub_has_a_library_that_people_leave_out() {
    let in_library = |written: &str| {
        known().in_library(&written.parse().unwrap()).map(|found| found.to_string())
    };
    assert_eq!(in_library("hub/nginx").as_deref(), Some("hub/library/nginx"));
    assert_eq!(in_library("hub2/nginx").as_deref(), Some("hub2/library/nginx"));
    for as_it_is in [
        "hub/library/nginx",
        "hub/team/app",
        "quay/nginx",
        "part/nginx",
        "demo/nginx",
        "gone/nginx",
    ] {
        assert_eq!(in_library(as_it_is), None, "{as_it_is}");
    }
}

#[test]
fn ns_names_the_registry_by_any_of_its_names() {
    let by = |ns: &str, written: &str| meant(&rules(), Some(ns), "node:5000", written);
    for hub in
        ["docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com", "DOCKER.IO:443"]
    {
        assert_eq!(by(hub, "library/nginx"), ok("hub/library/nginx"), "{hub}");
    }
    assert_eq!(
        by("docker.io", "nginx"),
        ok("hub/nginx"),
        "one part: the proxy sends it to library/"
    );
    assert_eq!(by("quay.io", "a/b/c"), ok("quay/a/b/c"));
    assert_eq!(by("r.example:5000", "x"), ok("a.b/x"));
    assert_eq!(by("r.example", "x/y"), Err("r.example".into()), "another port is another registry");
    assert_eq!(
        by("ghcr.io", "demo/app"),
        Err("ghcr.io".into()),
        "not the project demo of this mesh"
    );
    assert_eq!(by("docker.io", "../x"), Err("malformed".into()));
}

#[test]
fn by_its_own_name_the_mesh_means_its_own_path() {
    for own in ["registry.example", "10.0.0.11:5000", "Registry.Example:443"] {
        assert_eq!(meant(&rules(), Some(own), "node", "demo/app"), ok("demo/app"), "{own}");
    }
    let with_default = MirrorRules { default: Some("docker.io".into()), ..rules() };
    assert_eq!(meant(&with_default, Some("registry.example"), "node", "team/app"), ok("team/app"));
}

#[test]
fn a_host_name_carries_the_registry() {
    let by = |host: &str| meant(&rules(), None, host, "library/nginx");
    assert_eq!(by("docker.io.mirror.example"), ok("hub/library/nginx"));
    assert_eq!(by("Quay.io.Mirror.Example:5000"), ok("quay/library/nginx"));
    assert_eq!(by("ghcr.io.mirror.example"), Err("ghcr.io".into()));
    assert_eq!(by("mirror.example"), ok("library/nginx"));
    assert_eq!(by("docker.iomirror.example"), ok("library/nginx"), "not under the domain");
    let ns_first = meant(&rules(), Some("quay.io"), "docker.io.mirror.example", "a/b");
    assert_eq!(ns_first, ok("quay/a/b"));
}

#[test]
fn a_path_may_begin_with_the_registry_but_a_project_comes_first() {
    let by = |written: &str| meant(&rules(), None, "node:5000", written);
    assert_eq!(by("docker.io/library/nginx"), ok("hub/library/nginx"));
    assert_eq!(by("r.example:5000/x"), ok("a.b/x"));
    assert_eq!(by("r.example_5000/x"), ok("a.b/x"), "clients' names have no colon in their path");
    assert_eq!(meant(&rules(), None, "r.example_5000.mirror.example:80", "x"), ok("a.b/x"));
    assert_eq!(by("a.b/x"), ok("a.b/x"), "a project may have a dot");
    assert_eq!(by("ghcr.io/x/y"), ok("ghcr.io/x/y"), "perhaps a project that is not there");
    assert_eq!(by("ghcr.io:444/x/y"), Err("ghcr.io:444".into()));
    assert_eq!(by("hub/library/nginx"), ok("hub/library/nginx"));
    assert_eq!(by("nginx"), Err("malformed".into()));
}

#[test]
fn the_default_is_meant_only_where_nothing_else_can_be() {
    let rules = MirrorRules { default: Some("docker.io".into()), ..rules() };
    let by = |written: &str| meant(&rules, None, "node:5000", written);
    assert_eq!(by("library/nginx"), ok("hub/library/nginx"));
    assert_eq!(by("nginx"), ok("hub/nginx"));
    assert_eq!(by("demo/app"), ok("demo/app"), "a project of this mesh");
    assert_eq!(by("quay.io/a/b"), ok("quay/a/b"));
    let push = Asked { written: "team/app", writes: true, ..Asked::default() };
    assert_eq!(rules.meaning(&push, &known()), Meaning::Repository("team/app".parse().unwrap()));
    let lost = MirrorRules { default: Some("ghcr.io".into()), ..rules.clone() };
    assert_eq!(meant(&lost, None, "n", "team/app"), ok("team/app"));
}

#[test]
fn an_alias_chooses_among_caches_only() {
    let alias = |registry: &str, project: &str| MirrorRules {
        aliases: [(registry.to_owned(), project.parse().unwrap())].into(),
        ..rules()
    };
    assert_eq!(meant(&alias("docker.io", "hub2"), Some("docker.io"), "n", "x"), ok("hub2/x"));
    assert_eq!(meant(&alias("ghcr.io", "part"), None, "n", "ghcr.io/x"), ok("part/x"));
    let own = alias("docker.io", "demo");
    assert_eq!(meant(&own, Some("docker.io"), "n", "x"), Err("docker.io".into()));
    let listed = alias("ghcr.io", "part").mirrored(&known());
    assert_eq!(
        listed.iter().map(|(r, p)| (r.as_str(), p.as_str())).collect::<Vec<_>>(),
        [("docker.io", "hub"), ("ghcr.io", "part"), ("quay.io", "quay"), ("r.example:5000", "a.b")]
    );
}

#[test]
fn an_image_is_named_as_people_write_it() {
    let rules = rules();
    let of = |name: &str| match rules.of_image(name, &known()) {
        Meaning::Repository(repository) => Ok(repository.to_string()),
        Meaning::NotMirrored(registry) => Err(registry),
        Meaning::Malformed(_) => Err("malformed".into()),
    };
    assert_eq!(of("docker.io/library/nginx"), ok("hub/library/nginx"));
    assert_eq!(of("hub/library/nginx"), ok("hub/library/nginx"));
    assert_eq!(
        of("10.0.0.11:5000/hub/library/nginx"),
        ok("hub/library/nginx"),
        "a node's own name"
    );
    assert_eq!(of("r.example_5000/x"), ok("a.b/x"));
    assert_eq!(of("a.b/x"), ok("a.b/x"));
    assert_eq!(of("ghcr.io/x"), Err("ghcr.io".into()));
    let parts = |written| image(written).map(|(name, reference)| (name, reference.to_string()));
    assert_eq!(parts("r:5000/a/b"), Ok(("r:5000/a/b", "latest".into())));
    assert_eq!(parts("r:5000/a/b:1"), Ok(("r:5000/a/b", "1".into())));
    let digest = crate::words::digest::Digest::sha256(b"").to_string();
    assert_eq!(parts(&format!("a/b:1@{digest}")), Ok(("a/b", digest)));
    assert!(image("a/b@x").is_err());
}

/// How paths begin, and what each means then: a repository, or a registry that is not mirrored.
type Row = [(&'static str, Result<&'static str, &'static str>); 7];

/// Every cell of {`ns`} x {Host} x {how the path begins} x {verb}, with the repository that is
/// meant.
#[test]
fn what_is_named_twice_is_meant_once() {
    // `hub` caches docker.io and so does `hub2`; alias.example is `part`
    let rules = MirrorRules {
        aliases: [("alias.example".to_owned(), "part".parse().unwrap())].into(),
        ..rules()
    };
    // what is named by `ns` or the host, how the path begins, the repository that is meant
    let rows: [(Option<&str>, Row); 5] = [
        (
            None,
            [
                ("hub/", Ok("hub/team/app")),
                ("hub2/", Ok("hub2/team/app")),
                ("quay/", Ok("quay/team/app")),
                ("demo/", Ok("demo/team/app")),
                ("docker.io/", Ok("hub/team/app")),
                ("alias.example/", Ok("part/team/app")),
                ("", Ok("team/app")),
            ],
        ),
        (
            Some("docker.io"),
            [
                ("hub/", Ok("hub/team/app")),
                ("hub2/", Ok("hub2/team/app")),
                ("quay/", Ok("hub/quay/team/app")),
                ("demo/", Ok("hub/demo/team/app")),
                ("docker.io/", Ok("hub/team/app")),
                ("alias.example/", Ok("hub/alias.example/team/app")),
                ("", Ok("hub/team/app")),
            ],
        ),
        (
            Some("quay.io"),
            [
                ("hub/", Ok("quay/hub/team/app")),
                ("hub2/", Ok("quay/hub2/team/app")),
                ("quay/", Ok("quay/team/app")),
                ("demo/", Ok("quay/demo/team/app")),
                ("docker.io/", Ok("quay/docker.io/team/app")),
                ("alias.example/", Ok("quay/alias.example/team/app")),
                ("", Ok("quay/team/app")),
            ],
        ),
        (
            Some("alias.example"),
            [
                ("hub/", Ok("part/hub/team/app")),
                ("hub2/", Ok("part/hub2/team/app")),
                ("quay/", Ok("part/quay/team/app")),
                ("demo/", Ok("part/demo/team/app")),
                ("docker.io/", Ok("part/docker.io/team/app")),
                ("alias.example/", Ok("part/team/app")),
                ("", Ok("part/team/app")),
            ],
        ),
        (
            Some("ghcr.io"),
            [
                ("hub/", Err("ghcr.io")),
                ("hub2/", Err("ghcr.io")),
                ("quay/", Err("ghcr.io")),
                ("demo/", Err("ghcr.io")),
                ("docker.io/", Err("ghcr.io")),
                ("alias.example/", Err("ghcr.io")),
                ("", Err("ghcr.io")),
            ],
        ),
    ];
    let mut cells = 0;
    for (ns, _) in &rows {
        for (by_host, _) in &rows {
            let host =
                by_host.map_or("node:5000".to_owned(), |named| format!("{named}.mirror.example"));
            // `ns` is stronger than the host
            let named = ns.or(*by_host);
            let (_, row) = rows.iter().find(|(of, _)| *of == named).unwrap();
            for (first, meant) in row {
                for writes in [false, true] {
                    let written = format!("{first}team/app");
                    let asked = Asked { ns: *ns, host: Some(&host), written: &written, writes };
                    let expected = match meant {
                        Ok(repository) => Meaning::Repository(repository.parse().unwrap()),
                        Err(registry) => Meaning::NotMirrored((*registry).into()),
                    };
                    assert_eq!(
                        rules.meaning(&asked, &known()),
                        expected,
                        "{ns:?} {host} {written} writes: {writes}"
                    );
                    cells += 1;
                }
            }
        }
    }
    assert_eq!(cells, 5 * 5 * 7 * 2);
    // a registry with a port is written without its colon, and a word alone is a repository
    assert_eq!(meant(&rules, Some("r.example:5000"), "n", "r.example_5000/x"), ok("a.b/x"));
    assert_eq!(meant(&rules, Some("docker.io"), "n", "hub"), ok("hub/hub"));
    assert_eq!(
        meant(&rules, Some("index.docker.io"), "n", "registry-1.docker.io/a/b"),
        ok("hub/a/b")
    );
}

proptest! {
    #[test]
    fn a_named_registry_is_never_answered_with_another_ones_content(
        ns in "(docker\\.io|quay\\.io|ghcr\\.io|[a-z]{1,4}(\\.[a-z]{1,3})?(:[0-9]{1,4})?)",
        written in "(hub|quay|docker\\.io|quay\\.io|[a-z.:]{1,6})(/[a-z]{1,4}){0,3}",
    ) {
        let (rules, known) = (rules(), known());
        let asked = Asked { ns: Some(&ns), host: Some("node:5000"), written: &written, writes: false };
        if let Meaning::Repository(repository) = rules.meaning(&asked, &known) {
            let host = known.proxies.get(&repository.project()).cloned().flatten();
            prop_assert_eq!(host.as_deref().map(registry), Some(registry(&ns)));
            // all of the path, but for what says again which registry is meant
            if repository.within_project() != written {
                let (first, rest) = written.split_once('/').unwrap();
                prop_assert_eq!(repository.within_project(), rest);
                prop_assert!(first == repository.project().as_str() || registry(&with_colon(first)) == registry(&ns));
            }
        }
    }

    #[test]
    fn what_is_plain_means_what_is_written(
        written in "[a-z0-9.:_/-]{0,20}", default in any::<bool>(), writes in any::<bool>(), host in "([a-z.]{0,8}\\.mirror\\.example|node)(:[0-9]{1,5})?",
    ) {
        let rules = MirrorRules { default: default.then(|| "docker.io".to_owned()), ..rules() };
        let asked = Asked { ns: None, host: Some(&host), written: &written, writes };
        if rules.is_plain(&asked) {
            let expected = written.parse().map_or_else(Meaning::Malformed, Meaning::Repository);
            prop_assert_eq!(rules.meaning(&asked, &known()), expected);
        }
    }

    #[test]
    fn a_registry_written_without_its_colon_reads_back(name in "([a-z]{1,4}(\\.[a-z0-9]{1,3}){1,2}|localhost)(:[0-9]{1,5})?") {
        prop_assert!(is_registry(&without_colon(&name)));
        prop_assert_eq!(with_colon(&without_colon(&name)), name);
    }

    #[test]
    fn no_text_makes_it_panic(ns in any::<Option<String>>(), host in any::<Option<String>>(), written in any::<String>()) {
        let asked = Asked { ns: ns.as_deref(), host: host.as_deref(), written: &written, writes: false };
        let _ = rules().meaning(&asked, &known());
        let _ = rules().of_image(&written, &known());
        let _ = image(&written);
    }
}
