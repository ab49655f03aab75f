//! Groups of identity providers: they are known over the API, and are members of projects beside
//! users, at every node.

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::people::{PASSWORD, create_user, must, number};

#[test]
fn groups_are_known_and_become_members_as_users_do() {
    let mesh = Formed::of(&[("one", "us-east-1"), ("two", "eu-1")], "");
    let (admin, other) = (mesh.client(0), mesh.client(1));
    create_user(&admin, "ann");
    let ann = mesh.members()[1].anyone().basic("ann", PASSWORD);
    let own = json!({"project_name": "team"});
    must(&ann, Method::POST, "/api/v2.0/projects", &own, 201);

    // only administrators make groups known on their own
    let devs = json!({"group_name": "devs", "group_type": 3});
    must(&ann, Method::POST, "/api/v2.0/usergroups", &devs, 403);
    let id = number(&must(&admin, Method::POST, "/api/v2.0/usergroups", &devs, 201));
    must(&other, Method::POST, "/api/v2.0/usergroups", &devs, 409);
    let dn = json!({"ldap_group_dn": "CN=Ops, OU=groups,DC=example,DC=com", "group_type": 1});
    let ops = number(&must(&admin, Method::POST, "/api/v2.0/usergroups", &dn, 201));
    let same = json!({"group_name": "again", "group_type": 1,
        "ldap_group_dn": "cn=ops,ou=groups,dc=example,dc=com"});
    must(&admin, Method::POST, "/api/v2.0/usergroups", &same, 409);
    for bad in [
        json!({"group_name": "x", "group_type": 2}),
        json!({"group_name": "", "group_type": 3}),
        json!({"group_name": "x", "group_type": 1, "ldap_group_dn": "no name"}),
    ] {
        must(&admin, Method::POST, "/api/v2.0/usergroups", &bad, 400);
    }
    let nothing = json!({});
    let shown = must(&other, Method::GET, &format!("/api/v2.0/usergroups/{ops}"), &nothing, 200);
    let shown = shown.json();
    assert_eq!(shown["ldap_group_dn"], "cn=ops,ou=groups,dc=example,dc=com");
    assert_eq!((&shown["group_name"], &shown["group_type"]), (&json!("Ops"), &json!(1)));
    // an OIDC group is its name; one of LDAP has a name for people
    let renamed = json!({"group_name": "Operations"});
    must(&admin, Method::PUT, &format!("/api/v2.0/usergroups/{ops}"), &renamed, 200);
    must(&admin, Method::PUT, &format!("/api/v2.0/usergroups/{id}"), &renamed, 400);
    must(&ann, Method::GET, "/api/v2.0/usergroups", &nothing, 403);
    let found =
        must(&ann, Method::GET, "/api/v2.0/usergroups/search?groupname=perat", &nothing, 200);
    assert_eq!(found.json()[0]["id"], ops);

    // a project's admin makes them members, also one that is not known yet
    let members = "/api/v2.0/projects/team/members";
    let join = |group: Value, role: u64| json!({"role_id": role, "member_group": group});
    let first = number(&must(&ann, Method::POST, members, &join(json!({"id": id}), 3), 201));
    must(&ann, Method::POST, members, &join(devs.clone(), 2), 409);
    let new = json!({"group_name": "new", "group_type": 3});
    must(&ann, Method::POST, members, &join(new, 2), 201);
    must(&ann, Method::POST, members, &join(json!({"id": 999_999}), 2), 404);
    let listed = must(&other, Method::GET, members, &nothing, 200).json();
    let listed: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            (text("entity_name"), text("entity_type"), text("role_name"))
        })
        .collect();
    let row =
        |name: &str, kind: &str, role: &str| (name.to_owned(), kind.to_owned(), role.to_owned());
    assert_eq!(
        listed,
        [row("ann", "u", "projectAdmin"), row("devs", "g", "guest"), row("new", "g", "developer")]
    );
    let one = format!("{members}/{first}");
    must(&ann, Method::PUT, &one, &json!({"role_id": 4}), 200);
    assert_eq!(must(&other, Method::GET, &one, &nothing, 200).json()["role_id"], 4);
    let summary = must(&ann, Method::GET, "/api/v2.0/projects/team/summary", &nothing, 200).json();
    assert_eq!((&summary["maintainer_count"], &summary["developer_count"]), (&json!(1), &json!(1)));
    must(&ann, Method::DELETE, &one, &nothing, 200);
    must(&other, Method::GET, &one, &nothing, 404);

    // a deleted group is no member any more
    let found = must(&admin, Method::GET, "/api/v2.0/usergroups?group_name=new", &nothing, 200);
    let new = found.json()[0]["id"].as_u64().expect("the group that ann named");
    must(&admin, Method::DELETE, &format!("/api/v2.0/usergroups/{new}"), &nothing, 200);
    let left = must(&other, Method::GET, members, &nothing, 200).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");

    // and what was done is in the record
    let log = must(&admin, Method::GET, "/api/v2.0/auditlog-exts?page_size=50", &nothing, 200);
    let log = log.json();
    let has = |operation: &str, kind: &str, resource: &str| {
        log.as_array().expect("a list").iter().any(|one| {
            one["operation"] == operation
                && one["resource_type"] == kind
                && one["resource"].as_str().is_some_and(|name| name.contains(resource))
        })
    };
    assert!(has("create", "group", "devs") && has("delete", "group", "new"), "{log}");
    assert!(has("create", "member", "group devs as guest"), "{log}");
    assert!(has("delete", "member", "devs"), "{log}");
}
