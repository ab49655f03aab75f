//! People sign in at an OpenID Connect provider: with a browser, with an ID token and with a secret for
//! clients that have no browser; also while the provider changes its keys or is away.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Image, MANIFEST};
use tests::oidc::{CLIENT_SECRET, Provider};
use tests::people::{must, session_in, token_answer, with_token};
use tests::repository::Repository;
use tests::wait;

const CURRENT: &str = "/api/v2.0/users/current";
const SETTINGS: &str = "/api/v2.0/configurations";

struct Desk {
    mesh: Formed,
    provider: Provider,
}

impl Desk {
    /// A mesh of two replicas whose people sign in at a provider.
    fn new(more: &Value) -> Self {
        Self::at(Formed::of(&[("one", "us-east-1"), ("two", "eu-1")], ""), more)
    }

    fn at(mesh: Formed, more: &Value) -> Self {
        let back = format!("http://{}/c/oidc/callback", mesh.members()[0].anyone().authority());
        let provider = Provider::start(&back);
        let mut settings = json!({
            "auth_mode": "oidc_auth", "oidc_endpoint": provider.issuer(),
            "oidc_client_id": "atoll", "oidc_client_secret": CLIENT_SECRET,
            "oidc_scope": "openid,profile,email,groups", "oidc_groups_claim": "groups",
            "oidc_admin_group": "lords", "oidc_auto_onboard": true,
            "oidc_user_claim": "preferred_username", "oidc_name": "test",
        });
        for (name, value) in more.as_object().expect("settings") {
            settings[name] = value.clone();
        }
        must(&mesh.client(0), Method::PUT, SETTINGS, &settings, 200);
        Self { mesh, provider }
    }

    fn node(&self, at: usize) -> Client {
        self.mesh.members()[at].anyone()
    }

    /// The answer of the second node to a browser that began at the first.
    fn come_back(&self, person: &str) -> Answer {
        let sent = self.node(0).get("/c/oidc/login").unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(sent.status, 302, "{sent}");
        let place = self.provider.sign_in(person, &sent);
        let cookies: Vec<String> =
            sent.cookies().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ask = self.node(1).ask(Method::GET, &place).header("cookie", &cookies.join("; "));
        ask.send().unwrap_or_else(|none| panic!("{none}"))
    }

    fn browser(&self, person: &str) -> Client {
        let answer = self.come_back(person);
        assert_eq!(answer.status, 302, "{answer}");
        session_in(&self.node(1), &answer)
    }
}

fn who(browser: &Client) -> Value {
    must(browser, Method::GET, CURRENT, &json!({}), 200).json()
}

fn reads(client: &Client) -> u16 {
    let ask = client.ask(Method::GET, "/v2/team/app/manifests/1").header("accept", MANIFEST);
    ask.send().unwrap_or_else(|none| panic!("{none}")).status
}

#[test]
fn somebody_signs_in_with_a_browser_and_their_groups_count_at_every_node() {
    let mut desk = Desk::new(&json!({}));
    let admin = desk.mesh.client(0);
    let ping = |body: &Value, status: u16| {
        must(&admin, Method::POST, "/api/v2.0/system/oidc/ping", body, status)
    };
    ping(&json!({"url": desk.provider.issuer()}), 200);
    ping(&json!({"url": desk.provider.issuer(), "verify_cert": true}), 200);
    for (url, why) in [
        ("http://127.0.0.1:1", "cannot be used"),
        ("http://idp.example.com", "https"),
        (&format!("{}/", desk.provider.issuer()), "another issuer"),
    ] {
        let refused = ping(&json!({"url": url}), 400);
        assert!(refused.to_string().contains(why), "{url}: {refused}");
    }
    ping(&json!({"url": desk.provider.issuer(), "verify_cert": false}), 400);
    let claims = |groups: &[&str]| json!({"ann": {"preferred_username": "ann", "email": "ann@example.com", "groups": groups}});
    desk.provider.knows(&claims(&["devs"]));
    tests::repository::create_project(&admin, "team", false, 1);
    let app = Repository::new(&admin, "team/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));

    // the secret for clients without a browser is a password for docker login
    let browser = desk.browser("ann");
    let shown = who(&browser);
    assert_eq!((&shown["username"], &shown["email"]), (&json!("ann"), &json!("ann@example.com")));
    let secret = shown["oidc_user_meta"]["secret"].as_str().expect("a secret").to_owned();
    let docker = desk.node(0).basic("ann", &secret);
    assert_eq!(token_answer(&docker, &[]).status, 200);
    assert_eq!(token_answer(&desk.node(0).basic("ann", "guessed"), &[]).status, 401);
    assert_eq!(token_answer(&desk.node(0).basic("ann", ""), &[]).status, 401);

    // a group that becomes a member lets its people in at once
    let token = with_token(&docker, &["repository:team/app:pull", "registry:api:*"]);
    assert_eq!((reads(&docker), reads(&token)), (403, 401), "its scope is not for this");
    let members = "/api/v2.0/projects/team/members";
    let join = json!({"role_id": 3, "member_group": {"group_name": "devs", "group_type": 3}});
    let made = must(&admin, Method::POST, members, &join, 201);
    let member = tests::people::number(&made);
    assert_eq!(
        (reads(&docker), reads(&browser), reads(&browser.clone().asking(&desk.node(0)))),
        (200, 200, 200)
    );
    let token = with_token(&docker, &["repository:team/app:pull"]);
    assert_eq!(reads(&token), 200);
    must(&admin, Method::DELETE, &format!("{members}/{member}"), &json!({}), 200);
    assert_eq!((reads(&docker), reads(&browser), reads(&token)), (403, 403, 403));
    must(&admin, Method::POST, members, &join, 201);

    // other groups at the provider count with the next sign-in, also that of administrators
    desk.provider.knows(&claims(&["lords"]));
    let again = desk.browser("ann");
    assert_eq!((who(&again)["user_id"].clone(), reads(&docker)), (shown["user_id"].clone(), 200));
    assert_eq!(who(&again)["sysadmin_flag"], true);
    must(&again, Method::GET, "/api/v2.0/users", &json!({}), 200);
    desk.provider.knows(&claims(&[]));
    desk.browser("ann");
    assert_eq!((reads(&docker), who(&again)["sysadmin_flag"].clone()), (403, json!(false)));

    // an ID token is as good as a password while it lasts, at every node, and nobody else's is
    let token = desk.provider.id_token("ann");
    for at in [0, 1] {
        assert_eq!(who(&desk.node(at).bearer(&token))["username"], "ann");
    }
    let changed = format!("{}AAAA", &token[..token.len() - 4]);
    assert_eq!(desk.node(0).bearer(&changed).get(CURRENT).expect("an answer").status, 401);
    desk.provider.knows(&json!({"eve": {"preferred_username": "eve"}}));
    let stranger = desk.provider.id_token("eve");
    assert_eq!(desk.node(0).bearer(&stranger).get(CURRENT).expect("an answer").status, 401);
    desk.provider.knows(&claims(&[]));

    // another secret, or none: what was shown before is not valid
    let path = format!("/api/v2.0/users/{}/cli_secret", shown["user_id"]);
    must(&again, Method::PUT, &path, &json!({"secret": "weak"}), 400);
    must(&again, Method::PUT, &path, &json!({"secret": "Another-word-1"}), 200);
    assert_eq!(token_answer(&docker, &[]).status, 401);
    let docker = desk.node(1).basic("ann", "Another-word-1");
    assert_eq!(token_answer(&docker, &[]).status, 200);
    let path = format!("/api/v2.0/users/{}/password", shown["user_id"]);
    must(&admin, Method::PUT, &path, &json!({"new_password": "An0ther-word"}), 412);

    // the provider has another key; an administrator's word counts before the provider's
    desk.provider.resume();
    assert_eq!(who(&desk.browser("ann"))["user_id"], shown["user_id"]);
    let user = format!("/api/v2.0/users/{}", shown["user_id"]);
    must(&admin, Method::PUT, &user, &json!({"disabled": true}), 200);
    assert_eq!((token_answer(&docker, &[]).status, desk.come_back("ann").status), (401, 401));
    must(&admin, Method::DELETE, &user, &json!({}), 200);
    let browser = desk.browser("ann");
    let anew = who(&browser);
    assert_ne!(anew["user_id"], shown["user_id"], "an account of its own");

    // the provider is away
    let token = desk.provider.id_token("ann");
    assert_eq!(who(&desk.node(1).bearer(&token))["username"], "ann");
    desk.provider.stop();
    let secret = anew["oidc_user_meta"]["secret"].as_str().expect("a secret");
    assert_eq!(token_answer(&desk.node(0).basic("ann", secret), &[]).status, 200);
    assert_eq!(who(&browser)["username"], "ann");
    assert_eq!(who(&desk.node(1).bearer(&token))["username"], "ann", "by the last keys");
    assert_eq!(admin.get(CURRENT).expect("an answer").status, 200);
}

#[test]
fn a_name_is_chosen_and_nobody_gets_in_with_what_is_not_theirs() {
    let desk = Desk::new(&json!({"oidc_auto_onboard": false}));
    let admin = desk.mesh.client(0);
    let shown = must(&admin, Method::GET, SETTINGS, &json!({}), 200);
    assert!(!shown.json().to_string().contains("oidc_client_secret"));
    let elsewhere = json!({"oidc_endpoint": "https://elsewhere.example"});
    must(&admin, Method::PUT, SETTINGS, &elsewhere, 400);
    desk.provider.knows(&json!({"bob": {"preferred_username": "admin"}, "eve": {}}));

    // the suggestion is a name that somebody has
    let answer = desk.come_back("bob");
    assert_eq!((answer.status, answer.json()["username"].clone()), (200, json!("admin")));
    let cookies: Vec<String> =
        answer.cookies().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let choose = |cookie: &str, name: &str| {
        let ask = desk.node(0).ask(Method::POST, "/c/oidc/onboard").header("cookie", cookie);
        let ask = ask.header("content-type", "application/json");
        let body = json!({"username": name}).to_string();
        ask.body(body).send().unwrap_or_else(|none| panic!("{none}"))
    };
    for bad in ["admin", "a:b", "robot$x", ""] {
        assert_eq!(choose(&cookies.join("; "), bad).status, 403, "{bad}");
    }
    assert_eq!(choose("", "bob").status, 403, "without having signed in");
    let chosen = choose(&cookies.join("; "), "bob");
    assert_eq!(chosen.status, 200, "{chosen}");
    assert_eq!(who(&session_in(&desk.node(0), &chosen))["username"], "bob");
    // a name is chosen once, and the session of then goes on
    for again in ["admin", "bob", "robert"] {
        assert_eq!(choose(&cookies.join("; "), again).status, 403, "{again}");
    }
    assert_eq!(who(&session_in(&desk.node(0), &chosen))["username"], "bob");

    // another browser's answer, another state, and a code that was made up
    let sent = desk.node(0).get("/c/oidc/login").expect("an answer");
    let place = desk.provider.sign_in("eve", &sent);
    let other = desk.node(0).get("/c/oidc/login").expect("an answer");
    let with = |from: &Answer, place: &str| {
        let cookie = from.cookies().iter().map(|(n, v)| format!("{n}={v}")).collect::<String>();
        let ask = desk.node(0).ask(Method::GET, place).header("cookie", &cookie);
        ask.send().unwrap_or_else(|none| panic!("{none}")).status
    };
    assert_eq!(desk.node(0).get(&place).expect("an answer").status, 403, "no cookie");
    assert_eq!(with(&other, &place), 403);
    let made_up = place.replace("code=", "code=x");
    assert_eq!(with(&sent, &made_up), 401);
    // an error is the provider's only if it says so, in the browser that was sent there
    assert_eq!(desk.node(0).get("/c/oidc/callback?error=access_denied").expect("one").status, 403);
    let part = |name: &str| {
        let mut pairs = place.split_once('?').expect("a query").1.split('&');
        let pair = pairs.find(|pair| pair.starts_with(&format!("{name}=")));
        pair.unwrap_or_else(|| panic!("{name} in {place}")).to_owned()
    };
    let error =
        |rest: &str| format!("/c/oidc/callback?error=access_denied&{}{rest}", part("state"));
    assert_eq!(with(&sent, &error("")), 403, "this provider always names itself");
    assert_eq!(with(&sent, &error("&iss=https://elsewhere.example")), 403);
    assert_eq!(with(&sent, &error(&format!("&{}", part("iss")))), 401);
    let elsewhere = place.replace(&part("iss"), "iss=https://elsewhere.example");
    assert_eq!(with(&sent, &elsewhere), 403, "a code of another provider goes nowhere");

    // who signed in is in the audit log, and that somebody was refused
    let log = "/api/v2.0/auditlog-exts?q=operation=login&page_size=100";
    wait::until("the logins are in the log", || {
        let all = must(&admin, Method::GET, log, &json!({}), 200).json();
        let has = |name: &str, right: bool| {
            let fits = |one: &&Value| one["username"] == name && one["operation_result"] == right;
            all.as_array().expect("a list").iter().any(|one| fits(&one))
        };
        (has("bob", true) && has("(unknown)", false)).then_some(())
    });

    // with another way to sign in nobody comes in by the old one
    must(&admin, Method::PUT, SETTINGS, &json!({"auth_mode": "db_auth"}), 200);
    assert_eq!(desk.node(0).get("/c/oidc/login").expect("an answer").status, 403);
    wait::until("the administrator signs in", || {
        (admin.get(CURRENT).ok()?.status == 200).then_some(())
    });
}

#[test]
fn who_has_not_signed_in_for_long_is_asked_to_do_it_again() {
    let mesh = Formed::of(&[("one", "us-east-1")], "people: {refresh_lifetime: 8760h}\n");
    let desk = Desk::at(mesh, &json!({}));
    desk.provider.knows(&json!({"ann": {"preferred_username": "ann"}}));
    let node = desk.node(0);
    let sent = node.get("/c/oidc/login").unwrap_or_else(|none| panic!("{none}"));
    let place = desk.provider.sign_in("ann", &sent);
    let cookies: Vec<String> = sent.cookies().iter().map(|(n, v)| format!("{n}={v}")).collect();
    let ask = node.ask(Method::GET, &place).header("cookie", &cookies.join("; "));
    let browser = session_in(&node, &ask.send().unwrap_or_else(|none| panic!("{none}")));
    let secret = who(&browser)["oidc_user_meta"]["secret"].as_str().expect("one").to_owned();
    let docker = node.clone().basic("ann", &secret);
    let answer = docker.get("/service/token?service=atoll&offline_token=true").expect("an answer");
    let refresh = answer.json()["refresh_token"].as_str().expect("a refresh token").to_owned();
    let refreshed = || {
        let form = format!("grant_type=refresh_token&service=atoll&refresh_token={refresh}");
        let ask = node.ask(Method::POST, "/service/token");
        let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
        ask.send().unwrap_or_else(|none| panic!("{none}")).status
    };
    assert_eq!((token_answer(&docker, &[]).status, refreshed()), (200, 200));

    // ninety-one days later
    let member = &desk.mesh.members()[0];
    member.stop(Signal::TERM);
    member.serve_days_later(91);
    member.wait_ready();
    let admin = desk.mesh.client(0);
    for (days, then) in [(90, 401), (92, 200), (0, 200), (1, 401)] {
        let setting = json!({"oidc_sign_in_days": days});
        must(&admin, Method::PUT, SETTINGS, &setting, 200);
        let found = (token_answer(&docker, &[]).status, refreshed());
        assert_eq!(found, (then, then), "{days} days");
    }
    assert_eq!(admin.get(CURRENT).expect("an answer").status, 200, "who has a password here stays");
}

/// The settings for a provider that is asked each time.
fn each_time() -> Value {
    json!({
        "oidc_scope": "openid,profile,email,groups,offline_access",
        "oidc_extra_redirect_parms": {"prompt": "consent"}, "oidc_ask_minutes": 0,
    })
}

fn in_groups(groups: &[&str]) -> Value {
    json!({"ann": {"preferred_username": "ann", "groups": groups}})
}

impl Desk {
    /// A private project that the group `devs` may pull from, with an image.
    fn with_team(&self) {
        let admin = self.mesh.client(0);
        tests::repository::create_project(&admin, "team", false, 1);
        let app = Repository::new(&admin, "team/app");
        app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
        let join = json!({"role_id": 3, "member_group": {"group_name": "devs", "group_type": 3}});
        must(&admin, Method::POST, "/api/v2.0/projects/team/members", &join, 201);
    }

    /// Somebody's CLI secret.
    fn cli_secret(&self, person: &str) -> String {
        let shown = who(&self.browser(person));
        shown["oidc_user_meta"]["secret"].as_str().expect("a secret").to_owned()
    }
}

/// A refresh token for whoever this is.
fn refresh_token(client: &Client) -> String {
    let answer = client.get("/service/token?service=atoll&offline_token=true").expect("an answer");
    answer.json()["refresh_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The status of an image for a token that a refresh token got, or that of the answer without one.
fn reads_refreshed(node: &Client, refresh: &str) -> u16 {
    let form = format!(
        "grant_type=refresh_token&service=atoll&scope=repository:team/app:pull&refresh_token={refresh}"
    );
    let ask = node.ask(Method::POST, "/service/token");
    let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = ask.send().unwrap_or_else(|none| panic!("{none}"));
    match answer.json()["access_token"].as_str() {
        Some(token) => reads(&node.clone().bearer(token)),
        None => answer.status,
    }
}

#[test]
fn who_leaves_a_group_at_the_provider_has_its_rights_no_more_at_the_next_use() {
    let mut mesh = Formed::of(&[("one", "us-east-1"), ("two", "eu-1")], "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let desk = Desk::at(mesh, &each_time());
    desk.provider.knows(&in_groups(&["devs"]));
    desk.with_team();
    let secret = desk.cli_secret("ann");
    let at = |node: usize| desk.node(node).basic("ann", &secret);
    let refresh = refresh_token(&at(0));
    let asked = desk.provider.redeemed();
    assert_eq!((reads_refreshed(&desk.node(0), &refresh), reads(&at(1))), (200, 200));
    assert!(desk.provider.redeemed() > asked, "the provider is asked");
    wait::until("the edge lets her in", || (reads(&at(edge)) == 200).then_some(()));

    // at two replicas at once, and one of them asks
    desk.provider.knows(&in_groups(&[]));
    desk.provider.behaves("hold");
    let asked = desk.provider.redeemed();
    let (first, second) = (&desk.node(0), &desk.node(1));
    std::thread::scope(|threads| {
        let one = threads.spawn(|| reads_refreshed(first, &refresh));
        wait::until("one asks", || (desk.provider.redeemed() > asked).then_some(()));
        let two = threads.spawn(|| reads_refreshed(second, &refresh));
        let three = threads.spawn(|| reads(&second.clone().basic("ann", &secret)));
        desk.provider.behaves("");
        let found = [one, two, three].map(|one| one.join().expect("an answer"));
        assert_eq!(found, [401, 401, 403], "a token that is not for this, and no right to it");
    });
    wait::until("the edge has heard it", || (reads(&at(edge)) == 403).then_some(()));

    // another group counts at once, too
    desk.provider.knows(&in_groups(&["devs"]));
    assert_eq!((reads_refreshed(&desk.node(1), &refresh), reads(&at(0))), (200, 200));

    // whom the provider does not know any more has nothing until they sign in there again
    let browser = desk.browser("ann");
    desk.provider.knows(&json!({}));
    assert_eq!(reads_refreshed(&desk.node(0), &refresh), 401);
    assert_eq!((reads(&at(0)), reads(&at(1))), (401, 401));
    assert_eq!(browser.get(CURRENT).expect("an answer").status, 401);
    wait::until("the edge has heard it", || (reads(&at(edge)) == 401).then_some(()));
    desk.provider.knows(&in_groups(&["devs"]));
    assert_eq!(reads(&at(0)), 401, "she has not signed in yet");
    assert_eq!(desk.cli_secret("ann"), secret);
    assert_eq!((reads(&at(0)), reads(&at(1))), (200, 200));
    assert_eq!(reads_refreshed(&desk.node(0), &refresh), 401, "it has ended");
    let log = "/api/v2.0/auditlog-exts?page_size=100";
    let rows = must(&desk.mesh.client(0), Method::GET, log, &json!({}), 200).json().to_string();
    assert!(rows.contains("ann: the OIDC provider asks for a new sign-in"), "{rows}");
    assert!(rows.contains("ann: groups from OIDC"), "{rows}");
}

#[test]
fn while_the_provider_is_away_what_it_said_counts_for_a_time() {
    let desk = Desk::new(&each_time());
    desk.provider.knows(&in_groups(&["devs"]));
    desk.with_team();
    let secret = desk.cli_secret("ann");
    let docker = desk.node(1).basic("ann", &secret);
    let refresh = refresh_token(&docker);
    let admin = desk.mesh.client(0);
    let settings = |settings: &Value| {
        must(&admin, Method::PUT, SETTINGS, settings, 200);
    };
    desk.provider.knows(&in_groups(&[]));
    desk.provider.behaves("away");
    assert_eq!((reads(&docker), reads_refreshed(&desk.node(0), &refresh)), (200, 200));
    settings(&json!({"oidc_remember_minutes": 0}));
    assert_eq!((reads(&docker), reads_refreshed(&desk.node(0), &refresh)), (503, 503));
    assert_eq!(admin.get(CURRENT).expect("an answer").status, 200, "others do not notice");
    // what it said lately is not asked for again
    settings(&json!({"oidc_ask_minutes": 1440}));
    assert_eq!((reads(&docker), reads_refreshed(&desk.node(0), &refresh)), (200, 200));
    settings(&json!({"oidc_ask_minutes": 0, "oidc_remember_minutes": 1440}));
    desk.provider.behaves("");
    wait::until("the provider is asked again", || {
        let found = (reads(&docker), reads_refreshed(&desk.node(0), &refresh));
        (found == (403, 401)).then_some(())
    });

    // a provider that gives no refresh token is asked at a sign-in only
    settings(&json!({"oidc_scope": "openid,profile,email,groups"}));
    desk.provider.knows(&in_groups(&["devs"]));
    assert_eq!(desk.cli_secret("ann"), secret);
    desk.provider.knows(&in_groups(&[]));
    let asked = desk.provider.redeemed();
    assert_eq!((reads(&docker), desk.provider.redeemed()), (200, asked));
    // who would have to be asked where nobody signs in any more has nothing
    settings(&each_time());
    assert_eq!(desk.cli_secret("ann"), secret);
    let docker = desk.node(0).basic("ann", &secret);
    let refresh = refresh_token(&docker);
    settings(&json!({"auth_mode": "db_auth"}));
    assert_eq!((reads(&docker), reads_refreshed(&desk.node(0), &refresh)), (401, 401));
}

#[test]
fn a_node_that_dies_while_it_asks_the_provider_is_followed_by_another_one() {
    let sites = [("one", "us-east-1"), ("two", "eu-1"), ("three", "asia-1")];
    let desk = Desk::at(Formed::of(&sites, ""), &each_time());
    desk.provider.knows(&in_groups(&["devs"]));
    desk.with_team();
    let secret = desk.cli_secret("ann");
    let docker = |at: usize| desk.node(at).basic("ann", &secret);
    let dies_while_it_asks = |how: &str| {
        assert_eq!(reads(&docker(2)), 200);
        desk.provider.knows(&in_groups(&[]));
        desk.provider.behaves(how);
        let asked = desk.provider.redeemed();
        std::thread::scope(|threads| {
            let cut = threads.spawn(|| {
                let ask = docker(2).ask(Method::GET, "/v2/team/app/manifests/1").send();
                ask.map(|answer| answer.status)
            });
            wait::until("it asks", || (desk.provider.redeemed() > asked).then_some(()));
            desk.mesh.members()[2].stop(Signal::KILL);
            assert!(cut.join().expect("an end").is_err());
        });
        desk.provider.behaves("");
        wait::until("another node has asked", || (reads(&docker(0)) != 200).then_some(()));
        let found = reads(&docker(1));
        desk.mesh.members()[2].serve();
        desk.mesh.members()[2].wait_ready();
        found
    };
    assert_eq!(dies_while_it_asks("hold"), 403, "the token was not used, and her groups count");
    desk.provider.knows(&in_groups(&["devs"]));
    // the provider has replaced the token, and takes the old one for stolen
    assert_eq!(dies_while_it_asks("lose"), 401);
    desk.provider.knows(&in_groups(&["devs"]));
    assert_eq!(desk.cli_secret("ann"), secret);
    assert_eq!((reads(&docker(0)), reads(&docker(2))), (200, 200));
}

#[test]
fn who_signs_in_for_the_first_time_with_two_browsers_at_once_has_two_sessions() {
    let desk = Desk::new(&json!({}));
    for person in ["ann", "bob", "eve"] {
        desk.provider.knows(&json!({person: {"preferred_username": person}}));
        let begin = || {
            let sent = desk.node(0).get("/c/oidc/login").unwrap_or_else(|none| panic!("{none}"));
            let place = desk.provider.sign_in(person, &sent);
            let all: Vec<String> = sent.cookies().iter().map(|(n, v)| format!("{n}={v}")).collect();
            (place, all.join("; "))
        };
        let begun = [begin(), begin()];
        let start = std::sync::Barrier::new(begun.len());
        let end = |at: usize, (place, cookies): &(String, String)| {
            let ask = desk.node(at).ask(Method::GET, place).header("cookie", cookies);
            start.wait();
            let answer = ask.send().unwrap_or_else(|none| panic!("{none}"));
            assert_eq!(answer.status, 302, "{answer}");
            session_in(&desk.node(at), &answer)
        };
        let sessions = std::thread::scope(|threads| {
            let ends = |at: usize| {
                let (end, one) = (&end, &begun[at]);
                threads.spawn(move || end(at, one))
            };
            let both = [0, 1].map(ends);
            both.map(|one| one.join().expect("a session"))
        });
        let shown: Vec<Value> = sessions.iter().map(who).collect();
        assert_eq!(shown[0], shown[1], "one account with one secret");
        assert!(shown[0]["oidc_user_meta"]["secret"].is_string(), "{}", shown[0]);
    }
}

#[test]
fn what_a_name_was_to_be_chosen_with_makes_no_account_that_was_deleted_since() {
    let desk = Desk::new(&json!({"oidc_auto_onboard": false}));
    let admin = desk.mesh.client(0);
    desk.provider.knows(&json!({"bob": {"preferred_username": "bob"}}));
    let choose = |answer: &Answer, name: &str| {
        let all: Vec<String> = answer.cookies().iter().map(|(n, v)| format!("{n}={v}")).collect();
        let ask =
            desk.node(0).ask(Method::POST, "/c/oidc/onboard").header("cookie", &all.join("; "));
        let ask = ask.header("content-type", "application/json");
        let body = json!({"username": name}).to_string();
        ask.body(body).send().unwrap_or_else(|none| panic!("{none}"))
    };
    let answer = desk.come_back("bob");
    let chosen = choose(&answer, "bob");
    assert_eq!(chosen.status, 200, "{chosen}");
    let id = who(&session_in(&desk.node(0), &chosen))["user_id"].clone();
    must(&admin, Method::DELETE, &format!("/api/v2.0/users/{id}"), &json!({}), 200);
    let refused = choose(&answer, "bob");
    assert_eq!(refused.status, 403, "{refused}");
    // who signs in there again may
    let again = choose(&desk.come_back("bob"), "bob");
    assert_eq!(again.status, 200, "{again}");
}
