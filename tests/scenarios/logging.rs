//! What a node's log has of a request: enough to find it again, and nothing that opens anything.

use http::Method;
use serde_json::json;
use tests::formed::Formed;
use tests::image::Image;
use tests::people::{
    PASSWORD, create_robot, create_user, must, robot_of, token_answer, with_session, with_token,
};
use tests::repository::{Repository, create_project};

#[test]
fn an_answer_is_found_in_the_log_by_its_request_and_no_secret_is_in_it() {
    let mesh = Formed::of(&[("one", "us-east-1")], "log: {level: debug}\n");
    let node = mesh.members()[0].anyone();
    let admin = mesh.client(0);
    create_project(&admin, "team", false, 1);
    create_user(&admin, "ann");
    let robot = create_robot(&admin, &robot_of("team", "ci", &["pull", "push"]));
    let ci = node.clone().basic(&robot.name, &robot.secret);
    Repository::new(&ci, "team/app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let token = with_token(&ci, &["repository:team/app:pull"]);
    let session = with_session(&node, "ann", PASSWORD);
    must(&session, Method::GET, "/api/v2.0/users/current", &json!({}), 200);
    let offline = node.clone().basic("ann", PASSWORD);
    let offline = offline.get("/service/token?service=atoll&offline_token=true").expect("one");
    let refresh = offline.json()["refresh_token"].as_str().expect("a refresh token").to_owned();
    let form = format!("grant_type=refresh_token&service=atoll&refresh_token={refresh}");
    let ask = node.ask(Method::POST, "/service/token");
    let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(ask.send().unwrap_or_else(|none| panic!("{none}")).status, 200);

    let guess = "A-Guess-That-Is-Wrong-1";
    assert_eq!(token_answer(&node.clone().basic("ann", guess), &[]).status, 401);
    let asked = token.ask(Method::GET, "/v2/team/other/manifests/1?hidden=in-a-query");
    let asked = asked.header("x-request-id", "the-one-that-is-looked-for").send();
    assert_eq!(asked.unwrap_or_else(|none| panic!("{none}")).status, 401);

    let words = mesh.members()[0].words();
    let line = words
        .lines()
        .find(|line| line.contains("answered") && line.contains("the-one-that-is-looked-for"));
    let line = line.unwrap_or_else(|| panic!("the request is not in the log"));
    for part in
        ["status=401", "client=127.", "/v2/team/other/manifests/1", "this token is not for", "GET"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    let (cookie, csrf) = session.session().expect("a session");
    let bearer = token.credentials().expect("a token").trim_start_matches("Bearer ").to_owned();
    let basic = ci.credentials().expect("a password").trim_start_matches("Basic ").to_owned();
    for (what, secret) in [
        ("the administrator's password", mesh.password()),
        ("a password", PASSWORD),
        ("a wrong password", guess),
        ("a robot's secret", &robot.secret),
        ("a token", &bearer),
        ("a header", &basic),
        ("a refresh token", &refresh),
        ("a cookie", cookie),
        ("its token for writes", csrf),
        ("a query", "in-a-query"),
    ] {
        let found = words.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{what}: {}", found.unwrap_or_default());
    }
}
