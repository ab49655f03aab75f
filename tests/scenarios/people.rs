//! Who may do what: users, roles and robots may what the table says, at every node and in whatever
//! way they sign in; and what was taken away is gone everywhere once that was answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::Method;
use rules::people::doors::{DOORS, Need};
use rules::people::roles::{public_may, role_may};
use rules::words::roles::{Operation, Permission, ProjectRole, Resource};
use serde_json::json;
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Image, MANIFEST, digest};
use tests::oidc::{CLIENT_SECRET, Provider};
use tests::people::{
    PASSWORD, add_member, create_robot, create_user, must, number, reads, robot_of, session_in,
    with_session, with_token,
};
use tests::repository::Repository;
use tests::{wait, wire};

const SITES: [(&str, &str); 3] = [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-1")];

const CURRENT: &str = "/api/v2.0/users/current";
/// The project of the walk in which nothing is tried.
const ELSEWHERE: &str = "elsewhere";

/// Who asks.
#[derive(Clone, Debug)]
enum Who {
    Anonymous,
    Administrator,
    /// A user who is no member.
    Stranger,
    /// A user who is the admin of another project.
    Neighbour,
    Member(ProjectRole),
    /// A robot of the project with these actions on repositories.
    Robot(&'static [Operation]),
}

impl Who {
    fn all() -> Vec<Who> {
        let mut all = vec![Who::Anonymous, Who::Administrator, Who::Stranger, Who::Neighbour];
        all.extend(ProjectRole::ALL.map(Who::Member));
        all.push(Who::Robot(&[Operation::Pull]));
        all.push(Who::Robot(&[Operation::Pull, Operation::Push]));
        all
    }

    fn name(&self) -> String {
        match self {
            Who::Anonymous => String::new(),
            Who::Administrator => "admin".into(),
            Who::Stranger => "stranger".into(),
            Who::Neighbour => "neighbour".into(),
            Who::Member(role) => role.name().to_lowercase(),
            Who::Robot(operations) => format!("bot{}", operations.len()),
        }
    }

    fn is_user(&self) -> bool {
        matches!(self, Who::Administrator | Who::Stranger | Who::Neighbour | Who::Member(_))
    }

    /// What the table says.
    fn may(&self, need: Need, public: bool, own: bool) -> bool {
        let in_project = |permission: Permission| {
            let everybody = public && public_may(permission);
            everybody
                || match self {
                    Who::Administrator => true,
                    Who::Anonymous | Who::Stranger | Who::Neighbour => false,
                    Who::Member(role) => role_may(*role, permission),
                    Who::Robot(operations) => {
                        permission.resource == Resource::Repository
                            && operations.contains(&permission.operation)
                    }
                }
        };
        match need {
            Need::Nothing => true,
            Need::Credentials => !matches!(self, Who::Anonymous),
            Need::Account => self.is_user(),
            Need::System(_) => matches!(self, Who::Administrator),
            Need::Project(permission) | Need::Robot(permission) | Need::Label(permission) => {
                in_project(permission)
            }
            Need::Own(_) => matches!(self, Who::Administrator) || (own && self.is_user()),
            Need::NewProject => self.is_user(),
        }
    }
}

/// The mesh of the walk: three replicas, an edge, and in each project a member of every role. Each of
/// the users has a double, whom an identity provider vouches for.
struct Town {
    mesh: Formed,
    edge: usize,
    secrets: Vec<(String, String, String)>,
    own: Vec<(String, u64)>,
    doubles: Vec<Double>,
    _provider: Provider,
}

/// A user of the identity provider who may what the user may who is called like the first part.
struct Double {
    of: String,
    name: String,
    id_token: String,
    cli_secret: String,
}

impl Town {
    fn new() -> Self {
        let mut mesh = Formed::of(&SITES, "");
        let edge = mesh.add_edge("edge", "us-east-1", "");
        mesh.members()[edge].wait_ready();
        let admin = mesh.client(0);
        let mut own = vec![("admin".to_owned(), 1)];
        let users: Vec<String> =
            Who::all().iter().filter(|who| who.is_user()).map(Who::name).collect();
        for user in users.iter().filter(|user| *user != "admin") {
            own.push((user.clone(), create_user(&admin, user)));
        }
        tests::repository::create_project(&admin, ELSEWHERE, false, 1);
        add_member(&admin, ELSEWHERE, "neighbour", 1);
        let mut secrets = Vec::new();
        for (project, public) in [("open", true), ("closed", false)] {
            tests::repository::create_project(&admin, project, public, 1);
            for role in ProjectRole::ALL {
                add_member(&admin, project, &role.name().to_lowercase(), role.number());
            }
            for who in Who::all() {
                if let Who::Robot(operations) = who {
                    let actions: Vec<&str> = operations.iter().map(|o| o.word()).collect();
                    let what = robot_of(project, &who.name(), &actions);
                    let robot = create_robot(&admin, &what);
                    secrets.push((format!("{project}+{}", who.name()), robot.name, robot.secret));
                }
            }
            let there = Repository::new(&admin, &format!("{project}/app"));
            there.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
        }
        let provider = Provider::start(&format!(
            "http://{}/c/oidc/callback",
            mesh.members()[0].anyone().authority()
        ));
        let doubles = users.iter().map(|of| Double::new(&mesh, &provider, of, &users)).collect();
        let mut town = Town { mesh, edge, secrets, own, doubles, _provider: provider };
        town.own.extend(town.doubles.iter().map(|double| {
            let own = town.mesh.members()[0].anyone().basic(&double.name, &double.cli_secret);
            let shown = must(&own, Method::GET, CURRENT, &json!({}), 200).json();
            (double.name.clone(), shown["user_id"].as_u64().expect("a number"))
        }));
        town
    }

    fn client(&self, who: &Who, project: &str, at: usize) -> Client {
        let node = self.mesh.members()[at].anyone();
        match who {
            Who::Anonymous => node,
            Who::Administrator => self.mesh.client(at),
            Who::Stranger | Who::Neighbour | Who::Member(_) => node.basic(&who.name(), PASSWORD),
            Who::Robot(_) => {
                let key = format!("{project}+{}", who.name());
                let (_, name, secret) =
                    self.secrets.iter().find(|(k, ..)| *k == key).expect("each robot is known");
                node.basic(name, secret)
            }
        }
    }

    /// A request of whom this name names for a row of the table, which does no harm if it is admitted.
    fn ask(&self, client: &Client, who: &str, row: &str, method: &str, project: &str) -> Answer {
        let admin = self.mesh.client(0);
        let nowhere = digest(b"nothing that was ever pushed");
        let own = self.own.iter().find(|(name, _)| name == who).map_or(1, |(_, id)| *id);
        // what a method destroys must not be there, or be made for it
        let (user, robot) = match method {
            "DELETE" => (999_999, {
                let what = robot_of(project, "passing", &["pull"]);
                let made = admin.send_json(Method::POST, "/api/v2.0/robots", &what);
                let made = made.unwrap_or_else(|none| panic!("{none}"));
                if made.status == 201 { number(&made) } else { self.robot(project, "passing") }
            }),
            _ => (own, self.robot(project, "bot1")),
        };
        let number =
            must(&admin, Method::GET, &format!("/api/v2.0/projects/{project}"), &json!({}), 200);
        let path = row
            .replace("{repository}", &format!("{project}/app"))
            .replace("{digest}", &nowhere)
            .replace("{reference}", if method == "GET" { "1" } else { &nowhere })
            .replace("{project}", project)
            .replace("{user}", &user.to_string())
            .replace("{node}", "nobody")
            .replace("{scanner}", "none")
            .replace("{signer}", "none")
            .replace("{name}", if method == "GET" { "app" } else { "nothing" })
            .replace("{tag}", "none")
            .replace("{task}", "1")
            .replace("{key}", if method == "GET" { "public" } else { "nothing" });
        let path = path.replace("{trust}", "999999");
        let path = match row {
            _ if row.starts_with("/api/v2.0/robots/{id}") => {
                path.replace("{id}", &robot.to_string())
            }
            "/api/v2.0/robots" if method == "GET" => {
                format!("{path}?q=Level=project,ProjectID={}", number.json()["project_id"])
            }
            "/api/v2.0/labels/{label}" => {
                path.replace("{label}", &self.label(&number.json()["project_id"]).to_string())
            }
            "/api/v2.0/labels" if method == "GET" => {
                format!("{path}?scope=p&project_id={}", number.json()["project_id"])
            }
            "/api/v2.0/users/search" => format!("{path}?username=a"),
            _ => path.replace("{id}", "999999").replace("{label}", "999999"),
        };
        let body = match (row, method) {
            ("/api/v2.0/export/cve", "POST") => {
                json!({"projects": [number.json()["project_id"]]}).to_string()
            }
            ("/api/v2.0/retentions", "POST") => json!({"scope": {"ref": project}}).to_string(),
            ("/api/v2.0/robots", "POST") => robot_of(project, "made", &["pull"]).to_string(),
            ("/api/v2.0/labels", "POST") => {
                let project = &number.json()["project_id"];
                json!({"name": "made", "scope": "p", "project_id": project}).to_string()
            }
            _ => "no json".to_owned(),
        };
        let method: Method = method.parse().expect("a method");
        let content = if row.starts_with("/v2/") { MANIFEST } else { "application/json" };
        let mut ask = client.ask(method.clone(), &path).header("content-type", content);
        if row == "/api/v2.0/export/cve" {
            ask = ask.header("x-scan-data-type", tests::scans::REPORT);
        }
        if !matches!(method, Method::GET | Method::HEAD | Method::DELETE) {
            ask = ask.body(body);
        }
        ask.send().unwrap_or_else(|none| panic!("{method} {path} as {who}: {none}"))
    }

    /// A label of the project with this number, which may be deleted.
    fn label(&self, project: &serde_json::Value) -> u64 {
        let admin = self.mesh.client(0);
        let what = json!({"name": "passing", "scope": "p", "project_id": project});
        let made = admin.send_json(Method::POST, "/api/v2.0/labels", &what);
        let made = made.unwrap_or_else(|none| panic!("{none}"));
        if made.status == 201 {
            return number(&made);
        }
        let path = format!("/api/v2.0/labels?scope=p&project_id={project}&q=name=passing");
        let all = must(&admin, Method::GET, &path, &json!({}), 200).json();
        all[0]["id"].as_u64().expect("a label of that name")
    }

    fn robot(&self, project: &str, name: &str) -> u64 {
        let admin = self.mesh.client(0);
        let shown =
            must(&admin, Method::GET, &format!("/api/v2.0/projects/{project}"), &json!({}), 200);
        let path =
            format!("/api/v2.0/robots?q=Level=project,ProjectID={}", shown.json()["project_id"]);
        let all = must(&admin, Method::GET, &path, &json!({}), 200).json();
        let full = format!("robot${project}+{name}");
        let found =
            all.as_array().and_then(|all| all.iter().find(|one| one["name"] == full.as_str()));
        found.and_then(|one| one["id"].as_u64()).expect("a robot of that name")
    }
}

impl Double {
    /// Signs somebody in for the first time, and gives them what `of` has.
    fn new(mesh: &Formed, provider: &Provider, of: &str, users: &[String]) -> Self {
        let (admin, node) = (mesh.client(0), mesh.members()[0].anyone());
        let name = format!("double{of}");
        if of == users[0] {
            let all = users.iter().map(|user| format!("double{user}"));
            let known: serde_json::Map<String, serde_json::Value> =
                all.map(|name| (name.clone(), json!({"preferred_username": name}))).collect();
            provider.knows(&json!(known));
            let settings = json!({"auth_mode": "oidc_auth", "oidc_endpoint": provider.issuer(),
                "oidc_client_id": "atoll", "oidc_client_secret": CLIENT_SECRET,
                "oidc_scope": "openid,profile", "oidc_auto_onboard": true,
                "oidc_user_claim": "preferred_username"});
            must(&admin, Method::PUT, "/api/v2.0/configurations", &settings, 200);
        }
        let sent = node.get("/c/oidc/login").unwrap_or_else(|none| panic!("{none}"));
        let place = provider.sign_in(&name, &sent);
        let cookies: Vec<String> = sent.cookies().iter().map(|(n, v)| format!("{n}={v}")).collect();
        let back = node.ask(Method::GET, &place).header("cookie", &cookies.join("; ")).send();
        let browser = session_in(&node, &back.unwrap_or_else(|none| panic!("{none}")));
        let shown = must(&browser, Method::GET, CURRENT, &json!({}), 200).json();
        let cli_secret = shown["oidc_user_meta"]["secret"].as_str().expect("a secret").to_owned();
        match ProjectRole::ALL.iter().find(|role| role.name().to_lowercase() == of) {
            Some(role) => {
                for project in ["open", "closed"] {
                    add_member(&admin, project, &name, role.number());
                }
            }
            None if of == "neighbour" => {
                add_member(&admin, ELSEWHERE, &name, 1);
            }
            None if of == "admin" => {
                let path = format!("/api/v2.0/users/{}/sysadmin", shown["user_id"]);
                must(&admin, Method::PUT, &path, &json!({"sysadmin_flag": true}), 200);
            }
            None => {}
        }
        Self { of: of.to_owned(), id_token: provider.id_token(&name), name, cli_secret }
    }
}

/// The scopes of a token that is as good as the password.
fn scopes(project: &str) -> Vec<String> {
    vec![
        format!("repository:{project}/app:pull,push,delete"),
        "registry:catalog:*".to_owned(),
        "registry:api:*".to_owned(),
    ]
}

#[test]
fn everybody_may_what_the_table_says_at_every_node() {
    let town = Town::new();
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (project, public) in [("open", true), ("closed", false)] {
        for who in Who::all() {
            for at in [1, town.edge] {
                let password = town.client(&who, project, at);
                // the edge's token is asked of a replica, as a client of both would have it
                let wanted = scopes(project);
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                let token = with_token(&town.client(&who, project, 2), &wanted);
                let bearer = token.credentials().and_then(|all| all.strip_prefix("Bearer "));
                let bearer = bearer.expect("a token").to_owned();
                let token = town.mesh.members()[at].anyone().bearer(&bearer);
                let name = who.name();
                let mut ways = vec![("a password", &name, password), ("a token", &name, token)];
                if let Some(double) = town.doubles.iter().find(|double| double.of == name) {
                    let node = town.mesh.members()[at].anyone();
                    let by_secret = node.clone().basic(&double.name, &double.cli_secret);
                    ways.push(("a CLI secret", &double.name, by_secret));
                    ways.push(("an ID token", &double.name, node.bearer(&double.id_token)));
                }
                if who.is_user() {
                    let there = town.mesh.members()[2].anyone();
                    let secret = match who {
                        Who::Administrator => town.mesh.password(),
                        _ => PASSWORD,
                    };
                    let browser = with_session(&there, &who.name(), secret);
                    let browser = browser.asking(&town.mesh.members()[at].anyone());
                    ways.push(("a cookie", &name, browser));
                }
                for (way, name, client) in &ways {
                    for row in DOORS {
                        for method in row.methods {
                            if at == town.edge && !at_edges(row.path, method) {
                                continue;
                            }
                            let anonymous = matches!(who, Who::Anonymous);
                            // a token for anonymous clients is a valid credential
                            // at the door of the registry, and nowhere else
                            let shown = row.path == "/v2/" && *way == "a token";
                            // what destroys a user is tried on one that does not exist
                            let own = *method != "DELETE";
                            let may = who.may(row.need, public, own) || (shown && anonymous);
                            let answer = town.ask(client, name, row.path, method, project);
                            tried += 1;
                            let admitted = !matches!(answer.status, 401 | 403);
                            if admitted != may || answer.status >= 500 {
                                wrong.push(format!(
                                    "{who:?} with {way} at node {at}, {method} {} in {project}: {} \
                                     instead of {}",
                                    row.path,
                                    answer.status,
                                    if may { "admitted" } else { "refused" },
                                ));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(tried > 8_000, "only {tried} were tried");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether an edge answers this: it changes nothing, and does not know all people.
fn at_edges(path: &str, method: &str) -> bool {
    let about_people = [
        "/configurations",
        "/export/",
        "/immutabletagrules",
        "/labels",
        "/ldap/",
        "/usergroups",
        "/users",
        "/quotas",
        "/retentions",
        "/robots",
        "/members",
        "/summary",
        "/logs",
        "/auditlog-exts",
        "/scan",
        "/trash",
        "/unsigned",
        "/signing",
        "/security/",
        "/additions/",
        "/system/",
    ]
    .iter()
    .any(|word| path.contains(word));
    method == "GET" && !about_people
}

#[test]
fn what_was_taken_away_is_gone_in_every_region_with_a_token_too() {
    let mut mesh = Formed::of(&SITES, "");
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 1h}\n");
    mesh.members()[edge].wait_ready();
    let admin = mesh.client(0);
    tests::repository::create_project(&admin, "p", false, 1);
    let app = Repository::new(&admin, "p/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let scope = "repository:p/app:pull";
    // with a token of another node, shown at each node
    let everywhere = |name: &str, secret: &str| -> Vec<Client> {
        let from = mesh.members()[1].anyone().basic(name, secret);
        let token = with_token(&from, &[scope]);
        let bearer = token.credentials().and_then(|all| all.strip_prefix("Bearer ")).expect("one");
        let mut all: Vec<Client> =
            mesh.members().iter().map(|node| node.anyone().bearer(bearer)).collect();
        all.extend(mesh.members().iter().map(|node| node.anyone().basic(name, secret)));
        for (n, client) in all.iter().enumerate() {
            let at = n % mesh.members().len();
            if at == edge {
                // it hears by itself of what is allowed again, too
                wait::until("the edge knows", || (reads(client, "p/app") == 200).then_some(()));
            }
            let words = || mesh.members()[at].last_words();
            assert_eq!(reads(client, "p/app"), 200, "{name} at {at}: {}", words());
        }
        all
    };
    let gone = |all: &[Client], what: &str| {
        for client in
            all.iter().filter(|c| c.authority() != mesh.members()[edge].anyone().authority())
        {
            let status = reads(client, "p/app");
            assert!(matches!(status, 401 | 403), "{what}: {status} at {}", client.authority());
        }
        // an edge hears of it by itself; what it has kept for an hour does not count
        for client in
            all.iter().filter(|c| c.authority() == mesh.members()[edge].anyone().authority())
        {
            wait::until("the edge knows", || {
                matches!(reads(client, "p/app"), 401 | 403).then_some(())
            });
        }
    };
    let ann = create_user(&admin, "ann");
    let member = add_member(&admin, "p", "ann", 3);
    let before = everywhere("ann", PASSWORD);
    must(
        &admin,
        Method::DELETE,
        &format!("/api/v2.0/projects/p/members/{member}"),
        &json!({}),
        200,
    );
    gone(&before, "a member was removed");

    add_member(&admin, "p", "ann", 3);
    let before = everywhere("ann", PASSWORD);
    let path = format!("/api/v2.0/users/{ann}/password");
    must(&admin, Method::PUT, &path, &json!({"new_password": "An0ther-word"}), 200);
    gone(&before, "a password was changed");

    let before = everywhere("ann", "An0ther-word");
    must(&admin, Method::PUT, &format!("/api/v2.0/users/{ann}"), &json!({"disabled": true}), 200);
    gone(&before, "a user was disabled");
    must(&admin, Method::PUT, &format!("/api/v2.0/users/{ann}"), &json!({"disabled": false}), 200);
    let before = everywhere("ann", "An0ther-word");
    must(&admin, Method::DELETE, &format!("/api/v2.0/users/{ann}"), &json!({}), 200);
    gone(&before, "a user was deleted");

    let robot = create_robot(&admin, &robot_of("p", "ci", &["pull"]));
    let before = everywhere(&robot.name, &robot.secret);
    let path = format!("/api/v2.0/robots/{}", robot.id);
    let refreshed = must(&admin, Method::PATCH, &path, &json!({"secret": ""}), 200).json();
    gone(&before, "a robot's secret was refreshed");
    let secret = refreshed["secret"].as_str().expect("the new secret").to_owned();
    let before = everywhere(&robot.name, &secret);
    let mut disabled = robot_of("p", &robot.name, &["pull"]);
    disabled["disable"] = true.into();
    must(&admin, Method::PUT, &path, &disabled, 200);
    gone(&before, "a robot was disabled");
    must(&admin, Method::PUT, &path, &robot_of("p", &robot.name, &["pull"]), 200);
    let before = everywhere(&robot.name, &secret);
    must(&admin, Method::DELETE, &path, &json!({}), 200);
    gone(&before, "a robot was deleted");
}

/// A request whose body is still to come. The node has decided that it wants it.
struct Begun {
    connection: TcpStream,
    rest: Vec<u8>,
}

impl Begun {
    fn new(client: &Client, head: &str, kind: &str, body: &[u8]) -> Self {
        let mut connection = wire::connect(client.authority(), Duration::from_secs(60));
        let credentials = client.credentials().expect("credentials");
        let text = format!(
            "{head} HTTP/1.1\r\nHost: {}\r\nAuthorization: {credentials}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
            client.authority(),
            body.len()
        );
        connection.write_all(text.as_bytes()).expect("the head is sent");
        // a node asks for a body (RFC 9110 section 10.1.1) once it has admitted the request
        let mut go = [0; 25];
        connection.read_exact(&mut go).expect("an interim answer");
        assert_eq!(go, *b"HTTP/1.1 100 Continue\r\n\r\n", "{}", String::from_utf8_lossy(&go));
        Begun { connection, rest: body.to_vec() }
    }

    fn json(client: &Client, head: &str, body: &serde_json::Value) -> Self {
        Begun::new(client, head, "application/json", body.to_string().as_bytes())
    }

    /// The status of the answer, after the body has come.
    fn finish(mut self) -> u16 {
        self.connection.write_all(&self.rest).expect("the body is sent");
        wire::answer(&mut self.connection).expect("an answer").status
    }
}

#[test]
fn a_request_that_ends_late_does_what_its_sender_may_do_then() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    let node = mesh.members()[0].anyone();
    for user in ["ann", "eve"] {
        create_user(&admin, user);
    }
    let [ann, eve] = ["ann", "eve"].map(|name| node.clone().basic(name, PASSWORD));
    let project = |by: &Client, name: &str| {
        let what = json!({"project_name": name});
        must(by, Method::POST, "/api/v2.0/projects", &what, 201);
    };
    let delete = |name: &str| {
        must(&admin, Method::DELETE, &format!("/api/v2.0/projects/{name}"), &json!({}), 200);
    };
    let join = json!({"role_id": 1, "member_user": {"username": "eve"}});

    // a project is deleted, and somebody else makes one of the same name
    project(&eve, "p");
    let late = Begun::json(&eve, "POST /api/v2.0/projects/p/members", &join);
    let robot = Begun::json(&eve, "POST /api/v2.0/robots", &robot_of("p", "late", &["pull"]));
    let public = json!({"metadata": {"public": "true"}});
    let opened = Begun::json(&eve, "PUT /api/v2.0/projects/p", &public);
    delete("p");
    project(&ann, "p");
    assert_eq!([late, robot, opened].map(Begun::finish), [403; 3]);
    let members = must(&ann, Method::GET, "/api/v2.0/projects/p/members", &json!({}), 200);
    assert_eq!(members.header("x-total-count"), Some("1"));

    // a member is removed
    let member = add_member(&admin, "p", "eve", 1);
    let image = Image::tiny();
    Repository::new(&eve, "p/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let token = with_token(&eve, &["repository:p/app:pull,push"]);
    let pushes = [&eve, &token]
        .map(|by| Begun::new(by, "PUT /v2/p/app/manifests/late", MANIFEST, &image.manifest.bytes));
    let back = Begun::json(&eve, "POST /api/v2.0/projects/p/members", &join);
    let path = format!("/api/v2.0/projects/p/members/{member}");
    must(&ann, Method::DELETE, &path, &json!({}), 200);
    for push in pushes {
        assert!(matches!(push.finish(), 401 | 403), "with a token, a client asks for another");
    }
    assert_eq!(back.finish(), 403);
    assert!(Repository::new(&admin, "p/app").resolve("late").is_err());

    // a password changes
    let eves = must(&eve, Method::GET, "/api/v2.0/users/current", &json!({}), 200).json();
    let create = Begun::json(&eve, "POST /api/v2.0/projects", &json!({"project_name": "q"}));
    let path = format!("/api/v2.0/users/{}/password", eves["user_id"]);
    must(&admin, Method::PUT, &path, &json!({"new_password": "An0ther-word"}), 200);
    assert_eq!(create.finish(), 401);
}

#[test]
fn who_may_not_see_a_project_does_not_learn_of_it() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    tests::repository::create_project(&admin, "merger", false, 1);
    tests::repository::create_project(&admin, "own", false, 1);
    let eve = create_user(&admin, "eve");
    add_member(&admin, "own", "eve", 1);
    let eve = {
        assert!(eve > 1);
        mesh.members()[0].anyone().basic("eve", PASSWORD)
    };
    let robot = create_robot(&admin, &robot_of("merger", "ci", &["pull"])).id;
    let own = create_robot(&eve, &robot_of("own", "ci", &["pull"])).id;
    let merger = must(&admin, Method::GET, "/api/v2.0/projects/merger", &json!({}), 200).json();
    let merger = merger["project_id"].as_u64().expect("a number");
    let said = |method: Method, path: &str, body: &serde_json::Value| {
        let answer = eve.send_json(method, path, body).unwrap_or_else(|none| panic!("{none}"));
        (answer.status, answer.envelope().map(|(_, text)| text).unwrap_or_default())
    };
    // each with something that there is and something that there is not
    let system = |name: &str| {
        let mut what = robot_of(name, "x", &["pull"]);
        what["level"] = "system".into();
        what
    };
    let two = |name: &str| {
        let mut what = robot_of("own", "x", &["pull"]);
        let other = robot_of(name, "x", &["pull"])["permissions"][0].clone();
        what["permissions"].as_array_mut().expect("a list").push(other);
        what
    };
    let none = json!({});
    let (post, put, get) = (Method::POST, Method::PUT, Method::GET);
    let projects = |id: u64| format!("/api/v2.0/projects/{id}");
    let of = |id: u64| format!("/api/v2.0/robots?q=Level=project,ProjectID={id}");
    let robots = |id: u64| format!("/api/v2.0/robots/{id}");
    let all = "/api/v2.0/robots".to_owned();
    let their = |name: &str| robot_of(name, "robot$own+ci", &["pull"]);
    for (method, [there, nowhere], [real, unreal]) in [
        (&get, [projects(merger), projects(999)], [&none, &none]),
        (&Method::DELETE, [projects(merger), projects(999)], [&none, &none]),
        (&get, [of(merger), of(999)], [&none, &none]),
        (&get, [robots(robot), robots(999)], [&none, &none]),
        (&get, [robots(robot) + "/trusts", robots(999) + "/trusts"], [&none, &none]),
        (&Method::DELETE, [robots(robot), robots(999)], [&none, &none]),
        (
            &post,
            [all.clone(), all.clone()],
            [&robot_of("merger", "x", &["pull"]), &robot_of("nothing", "x", &["pull"])],
        ),
        (&post, [all.clone(), all.clone()], [&system("merger"), &system("nothing")]),
        (&post, [all.clone(), all.clone()], [&two("merger"), &two("nothing")]),
        (&put, [robots(own), robots(own)], [&their("merger"), &their("nothing")]),
    ] {
        let (first, second) =
            (said(method.clone(), &there, real), said(method.clone(), &nowhere, unreal));
        assert!(matches!(first.0, 400 | 403), "{method} {there}: {first:?}");
        assert!(!first.1.contains("merger"), "{method} {there}: {first:?}");
        assert_eq!(
            first,
            (second.0, second.1.replace("999", &merger.to_string())),
            "{method} {there}"
        );
    }
}
