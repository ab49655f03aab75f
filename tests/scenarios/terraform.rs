//! The calls of Terraform's provider for Harbor: each resource is created, read, updated, imported
//! and deleted in its order, each step at another node, with the ids that it takes from `Location`.
//!
//! The provider itself cannot be built from a module proxy, so its calls are replayed, as they are in
//! its `client/` and `provider/`: it sends a body with every request (`null` if it has nothing to
//! say), and compares what it reads with what it wrote, field by field.

use http::Method;
use serde_json::{Value, json};
use tests::http::{Answer, Client};
use tests::mesh::Mesh;

/// A provider: one client at each node, asked in turn.
struct Provider {
    nodes: Vec<Client>,
    asked: usize,
}

impl Provider {
    /// Sends a request to the next node; the answer must have this status.
    fn send(&mut self, method: Method, path: &str, body: &Value, status: u16) -> Answer {
        let node = &self.nodes[self.asked % self.nodes.len()];
        self.asked += 1;
        let full = format!("/api/v2.0{path}");
        let answer = node.send_json(method.clone(), &full, body);
        let answer = answer.unwrap_or_else(|none| panic!("{method} {path}: {none}"));
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer}");
        answer
    }

    /// Creates something; its id, as the provider takes it from `Location`.
    fn create(&mut self, path: &str, body: &Value) -> String {
        let made = self.send(Method::POST, path, body, 201);
        let place = made.header("location").expect("what was created has a place");
        let id = place.replace("/api", "").replace("/v2.0", "");
        let number = id.rsplit('/').next().expect("a last part");
        assert!(id.starts_with(path) && number.parse::<u64>().is_ok(), "{place}");
        id
    }

    fn read(&mut self, id: &str) -> Value {
        self.send(Method::GET, id, &Value::Null, 200).json()
    }

    fn update(&mut self, id: &str, body: &Value) {
        self.send(Method::PUT, id, body, 200);
    }

    /// Deletes something; at the next node it is gone, and so it is for the next plan.
    fn delete(&mut self, id: &str) {
        self.send(Method::DELETE, id, &Value::Null, 200);
        self.send(Method::GET, id, &Value::Null, 404);
        self.send(Method::DELETE, id, &Value::Null, 404);
    }

    /// Reads something at every node: each must show these fields so. A field is a path of names.
    fn shows(&mut self, id: &str, fields: &[(&str, Value)]) {
        for _ in 0..self.nodes.len() {
            let shown = self.read(id);
            for (field, expected) in fields {
                let place = format!("/{field}");
                let is = shown.pointer(&place).unwrap_or(&Value::Null);
                assert_eq!(is, expected, "{field} of {id}: {shown}");
            }
        }
    }
}

fn number(id: &str) -> u64 {
    id.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn the_providers_resources_live_through_every_node() {
    let mesh = Mesh::up(3);
    let nodes = (0..3).map(|at| mesh.client(at)).collect();
    let mut provider = Provider { nodes, asked: 0 };
    let provider = &mut provider;

    // harbor_project
    let project_body = |public: &str| {
        json!({"project_name": "infra", "registry_id": 0, "storage_limit": -1,
            "metadata": {"auto_scan": "true", "public": public, "severity": "low",
                "prevent_vul": "false", "enable_content_trust": "false",
                "enable_content_trust_cosign": "false", "reuse_sys_cve_allowlist": "true"},
            "cve_allowlist": {"items": null}})
    };
    let project = provider.create("/projects", &project_body("false"));
    let shown = [
        ("name", json!("infra")),
        ("project_id", json!(number(&project))),
        ("metadata/public", json!("false")),
        ("metadata/auto_scan", json!("true")),
        ("metadata/prevent_vul", json!("false")),
    ];
    provider.shows(&project, &shown);
    provider.update(&project, &project_body("true"));
    provider.shows(&project, &[("metadata/public", json!("true"))]);
    // an update of the quota asks first whether there are any, and looks for the project's
    let settings = provider.read("/configurations");
    assert_eq!(settings["quota_per_project_enable"]["value"], true);
    let page = provider.read("/quotas/?page=1&page_size=100");
    let of_project = |one: &&Value| one["ref"]["id"] == number(&project);
    let known = page.as_array().and_then(|all| all.iter().find(of_project)).expect("its quota");
    assert_eq!(known["hard"]["storage"], -1);
    let quota = format!("/quotas/{}", known["id"]);
    provider.update(&quota, &json!({"hard": {"storage": 5_368_709_120_u64}}));
    provider.shows(&quota, &[("hard/storage", json!(5_368_709_120_u64))]);
    assert_eq!(provider.read("/quotas/?page=2&page_size=100"), json!([]));
    let mut body = project_body("true");
    body["project_name"] = "sized".into();
    body["storage_limit"] = 1_073_741_824_u64.into();
    let sized = provider.create("/projects", &body);
    provider.shows(&format!("/quotas/{}", number(&sized)), &[("hard/storage", json!(1 << 30))]);
    provider.delete(&sized);
    // the data source harbor_project
    let found = provider.read("/projects?name=infra&page_size=100");
    assert_eq!(found[0]["project_id"], number(&project));

    // harbor_user
    let user_body = |email: &str, admin: bool| {
        json!({"username": "tessa", "password": "Passw0rd-of-a-test", "email": email,
            "realname": "Tessa", "comment": "", "sysadmin_flag": admin,
            "new_password": "Passw0rd-of-a-test"})
    };
    let user = provider.create("/users", &user_body("t@example.com", false));
    provider.shows(&user, &[("username", json!("tessa")), ("sysadmin_flag", json!(false))]);
    let changed = user_body("tessa@example.com", true);
    provider.update(&user, &changed);
    provider.update(&format!("{user}/sysadmin"), &changed);
    provider.update(&format!("{user}/password"), &changed);
    let shown = [
        ("email", json!("tessa@example.com")),
        ("realname", json!("Tessa")),
        ("sysadmin_flag", json!(true)),
    ];
    provider.shows(&user, &shown);

    // harbor_project_member_user
    let member_body = |role: u64| json!({"role_id": role, "member_user": {"username": "tessa"}});
    let member = provider.create(&format!("{project}/members"), &member_body(2));
    provider.shows(&member, &[("role_id", json!(2)), ("entity_name", json!("tessa"))]);
    provider.update(&member, &member_body(4));
    provider.shows(&member, &[("role_id", json!(4)), ("entity_type", json!("u"))]);

    // harbor_group, and harbor_project_member_group
    let group_body = json!({"group_name": "ops", "group_type": 3});
    let group = provider.create("/usergroups", &group_body);
    provider.shows(&group, &[("group_name", json!("ops")), ("group_type", json!(3))]);
    let joins = json!({"role_id": 3, "member_group": {"group_name": "ops", "group_type": 3,
        "id": number(&group), "ldap_group_dn": ""}});
    let group_member = provider.create(&format!("{project}/members"), &joins);
    let mut other_role = joins.clone();
    other_role["role_id"] = 2.into();
    provider.update(&group_member, &other_role);
    provider.shows(&group_member, &[("role_id", json!(2)), ("entity_name", json!("ops"))]);

    // harbor_robot_account: its name is compared without the prefix, which is a setting
    for (level, kind, namespace, full) in
        [("project", "project", "infra", "infra+ci"), ("system", "project", "*", "ci")]
    {
        let body = |description: &str, name: &str| {
            let access = json!([{"resource": "repository", "action": "pull", "effect": "allow"}]);
            json!({"name": name, "description": description, "disable": false, "duration": -1,
                "level": level,
                "permissions": [{"kind": kind, "namespace": namespace, "access": access}]})
        };
        let robot = provider.create("/robots", &body("builds", "ci"));
        let secret = json!({"secret": "An0ther-secret-of-a-test"});
        provider.send(Method::PATCH, &robot, &secret, 200);
        let prefix = provider.read("/configurations")["robot_name_prefix"]["value"].clone();
        let name = format!("{}{full}", prefix.as_str().expect("a prefix"));
        let shown = [
            ("name", json!(name)),
            ("level", json!(level)),
            ("duration", json!(-1)),
            ("disable", json!(false)),
            ("permissions/0/kind", json!(kind)),
            ("permissions/0/namespace", json!(namespace)),
            ("permissions/0/access/0/effect", json!("allow")),
            ("permissions/0/access/0/resource", json!("repository")),
        ];
        provider.shows(&robot, &shown);
        let called = provider.read(&robot)["name"].as_str().expect("a name").to_owned();
        provider.update(&robot, &body("builds and tests", &called));
        provider.shows(&robot, &[("description", json!("builds and tests"))]);
        provider.delete(&robot);
    }

    // harbor_label
    for (scope, of) in [("p", number(&project)), ("g", 0)] {
        let body = |color: &str| {
            json!({"name": "approved", "description": "by ops", "color": color, "scope": scope,
                "project_id": of})
        };
        let label = provider.create("/labels", &body("#0065AB"));
        provider.shows(&label, &[("scope", json!(scope)), ("color", json!("#0065AB"))]);
        provider.update(&label, &body("#FFFFFF"));
        provider.shows(&label, &[("color", json!("#FFFFFF")), ("description", json!("by ops"))]);
        provider.delete(&label);
    }

    // harbor_garbage_collection, and harbor_purge_audit_log: each asks first whether there is a
    // schedule, and then changes it
    let collection = "/system/gc/schedule";
    let gc = |kind: &str, cron: &str, workers: u64| {
        json!({"schedule": {"type": kind, "cron": cron},
            "parameters": {"delete_untagged": false, "workers": workers}})
    };
    provider.read(collection);
    provider.update(collection, &gc("Daily", "0 0 0 * * *", 3));
    provider.shows(collection, &[("schedule/type", json!("Daily"))]);
    let parameters = provider.read(collection)["job_parameters"].as_str().map(str::to_owned);
    let parameters: Value = serde_json::from_str(&parameters.expect("a text")).expect("JSON");
    assert_eq!(parameters["workers"], 3);
    assert_eq!(parameters["delete_untagged"], false);
    provider.update(collection, &gc("Custom", "0 15 3 * * 6", 1));
    let shown = [("schedule/type", json!("Custom")), ("schedule/cron", json!("0 15 3 * * 6"))];
    provider.shows(collection, &shown);
    provider.update(collection, &gc("None", "", 1));
    provider.shows(collection, &[("schedule", Value::Null)]);
    let purge = "/system/purgeaudit/schedule";
    let body = json!({"schedule": {"type": "Hourly", "cron": "0 0 * * * *"},
        "parameters": {"audit_retention_hour": 720, "include_operations": "create,pull",
            "include_event_types": ""}});
    provider.read(purge);
    provider.update(purge, &body);
    provider.shows(purge, &[("schedule/type", json!("Hourly"))]);
    let parameters = provider.read(purge)["job_parameters"].as_str().map(str::to_owned);
    let parameters: Value = serde_json::from_str(&parameters.expect("a text")).expect("JSON");
    assert_eq!(parameters["audit_retention_hour"], 720);
    assert_eq!(parameters["include_operations"], "create,pull");
    let none = json!({"schedule": {"type": "None", "cron": ""},
        "parameters": {"audit_retention_hour": 0, "include_operations": ""}});
    provider.update(purge, &none);
    provider.shows(purge, &[("schedule", Value::Null)]);

    // harbor_registry
    let registry_body = json!({"name": "hub", "type": "docker-hub", "url": "https://hub.docker.com",
        "description": "upstream", "insecure": false, "ca_certificate": "",
        "credential": {"access_key": "bot", "access_secret": "hush", "type": "basic"}});
    let registry = provider.create("/registries", &registry_body);
    let shown = [
        ("name", json!("hub")),
        ("type", json!("docker-hub")),
        ("url", json!("https://hub.docker.com")),
        ("credential/access_key", json!("bot")),
        ("insecure", json!(false)),
        ("id", json!(number(&registry))),
    ];
    provider.shows(&registry, &shown);
    let flat = json!({"name": "hub", "url": "https://hub.docker.com", "description": "all images",
        "insecure": false, "access_key": "bot", "access_secret": "hush", "ca_certificate": ""});
    provider.update(&registry, &flat);
    provider.shows(&registry, &[("description", json!("all images"))]);

    // harbor_config_auth sends what it does not mean to change, too
    let auth = json!({"auth_mode": "oidc_auth", "primary_auth_mode": false,
        "oidc_name": "sso", "oidc_endpoint": "https://sso.example.com", "oidc_client_id": "atoll",
        "oidc_client_secret": "hush-hush", "oidc_groups_claim": "groups", "oidc_scope": "openid",
        "oidc_verify_cert": true, "oidc_auto_onboard": true, "oidc_user_claim": "",
        "self_registration": false, "read_only": false, "quota_per_project_enable": false});
    provider.update("/configurations", &auth);
    for _ in 0..3 {
        let shown = provider.read("/configurations");
        assert_eq!(shown["auth_mode"]["value"], "oidc_auth");
        assert_eq!(shown["oidc_endpoint"]["value"], "https://sso.example.com");
        assert!(!shown.to_string().contains("hush-hush"), "{shown}");
    }
    // harbor_config_system: what is so already may be asked for, and nothing else
    let system = |mode: &str| {
        json!({"project_creation_restriction": mode, "read_only": false,
            "robot_token_duration": 30, "robot_name_prefix": "robot$", "storage_per_project": -1,
            "scanner_skip_update_pulltime": false, "banner_message": ""})
    };
    let settings = provider.read("/configurations");
    let mode = settings["project_creation_restriction"]["value"].as_str().expect("a word");
    provider.update("/configurations", &system(mode));
    let other = if mode == "everyone" { "adminonly" } else { "everyone" };
    let refused = provider.send(Method::PUT, "/configurations", &system(other), 400);
    let said = refused.envelope().expect("an envelope").1;
    assert!(said.contains("project_creation_restriction"), "{said}");
    provider.update("/configurations", &json!({"auth_mode": "db_auth"}));

    // destroyed in the opposite order
    for id in [&registry, &group_member, &group, &member, &user, &project] {
        provider.delete(id);
    }
}
