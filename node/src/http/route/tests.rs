use super::*;
use proptest::prelude::*;

fn parse(path: &str) -> Result<Route, Failure> {
    Route::parse(path, false, |name| name.parse().map_err(name_invalid))
}

fn parse_write(path: &str) -> Result<Route, Failure> {
    Route::parse(path, true, |name| name.parse().map_err(name_invalid))
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn what_a_project_stores_is_named_with_slashes_encoded_once_twice_or_not() {
    let stored = |path: &str| match parse(&format!("/api/v2.0/projects/team/{path}")) {
        Ok(Route::Stored(project, stored)) => {
            assert_eq!(project.as_str(), "team");
            Some(stored)
        }
        _ => None,
    };
    let name: RepositoryName = "team/a/b".parse().unwrap();
    let (tag, digest): (Reference, Reference) = ("1".parse().unwrap(), DIGEST.parse().unwrap());
    assert_eq!(stored("repositories"), Some(Stored::Repositories));
    for written in ["a%252Fb", "a%2Fb", "a/b"] {
        let of = |rest: &str| stored(&format!("repositories/{written}{rest}"));
        assert_eq!(of(""), Some(Stored::Repository(name.clone())));
        assert_eq!(of("/artifacts"), Some(Stored::Artifacts(name.clone())));
        assert_eq!(of("/artifacts/1"), Some(Stored::Artifact(name.clone(), tag.clone())));
        let by_digest = of(&format!("/artifacts/{DIGEST}/tags"));
        assert_eq!(by_digest, Some(Stored::Tags(name.clone(), digest.clone())));
        let one = Stored::Tag(name.clone(), tag.clone(), "2".parse().unwrap());
        assert_eq!(of("/artifacts/1/tags/2"), Some(one));
        let labels = Stored::Labels(name.clone(), tag.clone());
        assert_eq!(of("/artifacts/1/labels"), Some(labels));
        let log = Stored::ScanLog(name.clone(), tag.clone(), 7);
        assert_eq!(of("/artifacts/1/scan/7/log"), Some(log));
        let stop = Stored::ScanStop(name.clone(), tag.clone());
        assert_eq!(of("/artifacts/1/scan/stop"), Some(stop));
        let found = Stored::Vulnerabilities(name.clone(), tag.clone());
        assert_eq!(of("/artifacts/1/additions/vulnerabilities"), Some(found));
        let label = Stored::Label(name.clone(), tag.clone(), LabelId(7));
        assert_eq!(of("/artifacts/1/labels/7"), Some(label));
    }
    for unknown in ["repositories/A", "repositories/a/artifacts/1/labels/x", "other", "summary/x"] {
        assert_eq!(stored(unknown), None, "{unknown}");
    }
}

#[test]
fn paths_mean_what_the_spec_says() {
    let name: RepositoryName = "demo/a/b".parse().unwrap();
    let digest: Digest = DIGEST.parse().unwrap();
    assert_eq!(parse("/v2/").unwrap(), Route::Base);
    assert_eq!(
        parse(&format!("/v2/demo/a/b/blobs/{DIGEST}")).unwrap(),
        Route::Blob(name.clone(), digest)
    );
    assert_eq!(parse("/v2/demo/a/b/blobs/uploads/").unwrap(), Route::Uploads(name.clone()));
    assert_eq!(
        parse("/v2/demo/a/b/blobs/uploads/ab12").unwrap(),
        Route::Upload(name.clone(), "ab12".into())
    );
    assert_eq!(parse("/v2/demo/a/b/tags/list").unwrap(), Route::Tags(name.clone()));
    let by_tag = parse("/v2/demo/a/b/manifests/v1").unwrap();
    assert_eq!(by_tag, Route::Manifest(name.clone(), "v1".parse().unwrap()));
    let nested: RepositoryName = "demo/blobs/manifests".parse().unwrap();
    assert_eq!(
        parse("/v2/demo/blobs/manifests/manifests/v1").unwrap(),
        Route::Manifest(nested, "v1".parse().unwrap())
    );
}

#[test]
fn paths_of_people_are_harbors() {
    let p: ProjectName = "p".parse().unwrap();
    for (path, route) in [
        ("projects/p", Route::Project(p.clone())),
        ("projects/p/members", Route::Members(p.clone())),
        ("projects/p/metadatas/", Route::Metadatas(p.clone())),
        ("projects/p/metadatas/public", Route::Metadata(p.clone(), "public".into())),
        ("labels", Route::Labels),
        ("labels/7", Route::Label(LabelId(7))),
        ("projects/p/logs", Route::ProjectLogs(p.clone())),
        ("projects/p/auditlog-exts", Route::ProjectAuditLogExts(p.clone())),
        ("audit-logs", Route::AuditLogs),
        ("auditlog-exts", Route::AuditLogExts),
        ("projects/p/members/7", Route::Member(p, MemberId(7))),
        ("users/current", Route::CurrentUser),
        ("system/oidc/ping", Route::OidcPing),
        ("ldap/ping", Route::LdapPing),
        ("ldap/users/search", Route::LdapUserSearch),
        ("ldap/users/import", Route::LdapUserImport),
        ("ldap/groups/search", Route::LdapGroupSearch),
        ("retentions", Route::Retentions),
        ("retentions/metadatas", Route::RetentionTemplates),
        ("retentions/p", Route::Policy("p".parse().unwrap(), Policy::Retention)),
        ("retentions/p/forecast", Route::Policy("p".parse().unwrap(), Policy::Forecast)),
        (
            "retentions/1/executions/7",
            Route::Policy("1".parse().unwrap(), Policy::Run(JobId(7 << 5))),
        ),
        (
            "projects/p/immutabletagrules/3",
            Route::Policy("p".parse().unwrap(), Policy::ImmutableRule(3)),
        ),
        ("users/7", Route::User(UserId(7))),
        ("users/7/sysadmin", Route::UserAdministers(UserId(7))),
        ("users/7/password", Route::UserPassword(UserId(7))),
        ("users/7/cli_secret", Route::UserCliSecret(UserId(7))),
        ("usergroups", Route::Groups),
        ("usergroups/search", Route::GroupSearch),
        ("usergroups/7", Route::Group(GroupId(7))),
        ("robots/7", Route::Robot(RobotId(7))),
        ("robots/7/trusts", Route::Trusts(RobotId(7))),
        ("robots/7/trusts/8", Route::Trust(RobotId(7), TrustId(8))),
    ] {
        assert_eq!(parse(&format!("/api/v2.0/{path}")).unwrap(), route);
    }
    for path in ["users/ann", "users/7/x", "robots/x", "projects/p/x", "projects/p/members/x"] {
        assert_eq!(parse(&format!("/api/v2.0/{path}")).unwrap_err().status(), 404, "{path}");
    }
}

#[test]
fn paths_of_jobs_have_their_number() {
    for (path, route) in [
        ("jobs", Route::Jobs),
        ("jobs/00ff", Route::Job(JobId(255))),
        ("jobs/00ff/log", Route::JobLog(JobId(255))),
        ("jobs/00ff/stop", Route::JobStop(JobId(255))),
        ("jobs/00ff/retry", Route::JobRetry(JobId(255))),
        ("schedules", Route::Schedules),
        ("schedules/p/nightly", Route::Schedule("p".parse().unwrap(), "nightly".into())),
    ] {
        assert_eq!(parse(&format!("/api/atoll/v1/{path}")).unwrap(), route);
    }
    for path in ["jobs/x", "jobs/1/x", "jobs/1/log/2", "schedules/p"] {
        assert_eq!(parse(&format!("/api/atoll/v1/{path}")).unwrap_err().status(), 404, "{path}");
    }
}

#[test]
fn every_method_that_is_offered_has_a_row_in_the_table_of_needs() {
    let name: RepositoryName = "demo/a".parse().unwrap();
    let (digest, p): (Digest, ProjectName) = (DIGEST.parse().unwrap(), "p".parse().unwrap());
    let tag: Reference = "v1".parse().unwrap();
    let all = [
        Route::Base,
        Route::Catalog,
        Route::Blob(name.clone(), digest),
        Route::Uploads(name.clone()),
        Route::Upload(name.clone(), "a".into()),
        Route::Manifest(name.clone(), tag.clone()),
        Route::Tags(name.clone()),
        Route::Referrers(name.clone(), digest),
        Route::Stored(p.clone(), Stored::Summary),
        Route::Stored(p.clone(), Stored::Deletable),
        Route::Stored(p.clone(), Stored::Repositories),
        Route::Stored(p.clone(), Stored::Repository(name.clone())),
        Route::Stored(p.clone(), Stored::Artifacts(name.clone())),
        Route::Stored(p.clone(), Stored::Artifact(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Tags(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Scanner),
        Route::Stored(p.clone(), Stored::Scan(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::ScanStop(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::ScanLog(name.clone(), tag.clone(), 1)),
        Route::Stored(p.clone(), Stored::Vulnerabilities(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Sbom(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::ScannerCandidates),
        Route::Stored(p.clone(), Stored::Explanation(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Labels(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Label(name.clone(), tag.clone(), LabelId(1))),
        Route::Stored(p.clone(), Stored::Accessories(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Signatures(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Exemption(name.clone(), tag.clone())),
        Route::Stored(p.clone(), Stored::Signers),
        Route::Stored(p.clone(), Stored::Signer("ci".into())),
        Route::Stored(p.clone(), Stored::Unsigned),
        Route::Stored(p.clone(), Stored::Trash),
        Route::Stored(p.clone(), Stored::Restore),
        Route::Stored(p.clone(), Stored::Signing),
        Route::Stored(p.clone(), Stored::SignLog),
        Route::Stored(p.clone(), Stored::Tag(name, tag, "v2".parse().unwrap())),
        Route::Metadatas(p.clone()),
        Route::Metadata(p.clone(), "public".into()),
        Route::Labels,
        Route::Label(LabelId(1)),
        Route::Repositories,
        Route::Search,
        Route::Statistics,
        Route::Quotas,
        Route::Quota(ProjectId(1)),
        Route::Ping,
        Route::ApiHealth,
        Route::SystemInfo,
        Route::Projects,
        Route::Project(p.clone()),
        Route::Members(p.clone()),
        Route::Member(p, MemberId(1)),
        Route::Users,
        Route::CurrentUser,
        Route::UserSearch,
        Route::User(UserId(1)),
        Route::UserAdministers(UserId(1)),
        Route::UserPassword(UserId(1)),
        Route::UserCliSecret(UserId(1)),
        Route::Configurations,
        Route::Groups,
        Route::GroupSearch,
        Route::OidcPing,
        Route::LdapPing,
        Route::LdapUserSearch,
        Route::LdapUserImport,
        Route::LdapGroupSearch,
        Route::Group(GroupId(1)),
        Route::Robots,
        Route::Robot(RobotId(1)),
        Route::Trusts(RobotId(1)),
        Route::Trust(RobotId(1), TrustId(2)),
        Route::Permissions,
        Route::AuditLogExts,
        Route::AuditLogs,
        Route::ProjectAuditLogExts("p".parse().unwrap()),
        Route::ProjectLogs("p".parse().unwrap()),
        Route::Registries,
        Route::RegistryPing,
        Route::Registry(UpstreamId(1)),
        Route::OpenApi,
        Route::Status,
        Route::Level,
        Route::Mirrors,
        Route::Preheats,
        Route::Node("a".into()),
        Route::Drain("a".into()),
        Route::Scrub("a".into()),
        Route::Preheat(1),
        Route::Jobs,
        Route::Job(JobId(1)),
        Route::JobLog(JobId(1)),
        Route::JobStop(JobId(1)),
        Route::JobRetry(JobId(1)),
        Route::Schedules,
        Route::Retentions,
        Route::RetentionTemplates,
        Route::Scanning(Scanning::Allowlist),
        Route::Scanning(Scanning::Scanners),
        Route::Scanning(Scanning::Ping),
        Route::Scanning(Scanning::Scanner("1".into())),
        Route::Scanning(Scanning::Metadata("1".into())),
        Route::Scanning(Scanning::Schedule),
        Route::Scanning(Scanning::StopAll),
        Route::Scanning(Scanning::Metrics),
        Route::Scanning(Scanning::Summary),
        Route::Scanning(Scanning::Vulnerabilities),
        Route::Scanning(Scanning::Export(Export::New)),
        Route::Scanning(Scanning::Export(Export::All)),
        Route::Scanning(Scanning::Export(Export::One(1))),
        Route::Scanning(Scanning::Export(Export::Download(1))),
        Route::Collection,
        Route::Dr,
        Route::Replication,
        Route::Drill,
        Route::Inventory,
        Route::Schedule("p".parse().unwrap(), "nightly".into()),
    ];
    let policies = Policy::all().map(|policy| Route::Policy("p".parse().unwrap(), policy));
    let upkeep = Upkeep::all().into_iter().map(Route::Upkeep);
    let all: Vec<Route> = all.into_iter().chain(policies).chain(upkeep).collect();
    for route in &all {
        for method in route.methods(false).split(", ") {
            let need = rules::people::doors::need(route.pattern(), method);
            assert!(need.is_some(), "{method} {}", route.pattern());
        }
    }
    for row in rules::people::doors::DOORS {
        let route = all.iter().find(|route| route.pattern() == row.path);
        let offered: Vec<_> =
            route.map(|route| route.methods(false).split(", ").collect()).unwrap_or_default();
        assert!(row.methods.iter().all(|method| offered.contains(method)), "{row:?}");
    }
}

#[test]
fn a_path_may_be_written_in_several_ways() {
    let blob = format!("/v2/demo/a/blobs/{DIGEST}");
    for (plain, others) in [
        ("/v2/", &["/v2", "//v2//", "/v2//"][..]),
        ("/v2/_catalog", &["/v2/_catalog/", "/v2//_catalog", "/v2/%5fcatalog"]),
        (
            "/v2/demo/a/tags/list",
            &["/v2/demo/a/tags/list/", "/v2/demo//a/tags//list", "/v2/demo%2Fa/tags/list"],
        ),
        ("/v2/demo/a/manifests/1.0", &["/v2/demo/a/manifests/1.0/", "//v2/demo/a/manifests/1%2e0"]),
        ("/v2/demo/a/blobs/uploads/", &["/v2/demo/a/blobs/uploads", "/v2/demo/a/blobs/uploads//"]),
        ("/v2/demo/a/blobs/uploads/ab", &["/v2/demo/a/blobs/uploads/ab/"]),
        (&blob, &[&format!("{blob}/"), &blob.replace(':', "%3A"), &blob.replace("/a/", "//a/")]),
        ("/service/token", &["/service/token/"]),
        ("/api/v2.0/projects", &["/api/v2.0/projects/"]),
        ("/healthz", &["/healthz/"]),
    ] {
        for other in others {
            assert_eq!(parse(other).unwrap(), parse(plain).unwrap(), "{other}");
        }
    }
    for written in ["/v2/demo/a/manifests/1/", "/v2/demo%2Fa/manifests/1//"] {
        let plain = parse("/v2/demo/a/manifests/1").unwrap();
        assert_eq!(parse_write(written).unwrap(), plain, "{written}");
    }
    for guess in ["/v2/demo//a/manifests/1", "/v2//demo/a/manifests/1", "/v2/demo//manifests/1"] {
        assert_eq!(parse_write(guess).unwrap_err().status(), 400, "{guess}");
    }
    for nothing in ["/", "//", "/v2/demo/a/manifests/", "/v2/tags/list/"] {
        assert_eq!(parse(nothing).unwrap_err().status(), 404, "{nothing}");
    }
}

#[test]
fn tricks_in_paths_are_refused() {
    for path in [
        "/v2/../etc/manifests/x",
        "/v2/demo/%2e%2e/manifests/x",
        "/v2/Demo/a/manifests/x",
        "/v2/demo/a%2F..%2Fb/manifests/x",
        "/v2/demo/a%00b/manifests/x",
        "/v2/demo/a%ff/manifests/x",
        "/v2/demo/a%252Fb/manifests/x",
    ] {
        assert_eq!(parse(path).unwrap_err().status(), 400, "{path}");
    }
    for path in ["/", "/v1/", "/v2/demo", "/v2/demo/a", "/etc/passwd"] {
        assert_eq!(parse(path).unwrap_err().status(), 404, "{path}");
    }
    assert_eq!(parse("/v2/demo/a/blobs/sha256:zz").unwrap_err().status(), 400);
    assert_eq!(parse("/v2/demo/a/blobs/uploads/..").unwrap_err().status(), 404);
}

proptest! {
    #[test]
    fn no_path_makes_the_parser_panic(path in "/(v2/)?[a-z/%.:A-Z0-9_-]{0,80}") {
        let _ = parse(&path);
    }
}
