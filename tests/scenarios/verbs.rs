//! The command line does what the API does, with credentials that `atoll login` keeps in a file that
//! nobody else can read.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::process::{self, Finished};
use tests::tools;

struct Desk {
    mesh: Mesh,
    folder: TempDir,
}

impl Desk {
    fn contexts(&self) -> PathBuf {
        self.folder.path().join("deep/contexts.json")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(tools::atoll());
        command.env("ATOLL_CONTEXTS", self.contexts()).current_dir(self.folder.path());
        command.args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> String {
        process::succeed(&mut self.command(line))
    }

    /// What it prints with `--output json`: one document and nothing else.
    fn json(&self, line: &str) -> serde_json::Value {
        let out = self.run(&format!("{line} --output json"));
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("atoll {line}: {e}: {out}"))
    }

    /// What it says when it must fail.
    fn refused(&self, line: &str) -> String {
        let Finished { success, err, .. } = process::finish(&mut self.command(line));
        assert!(!success, "atoll {line} succeeded");
        err
    }

    fn secret(&self, name: &str, text: &str) -> String {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file.display().to_string()
    }
}

#[test]
fn a_team_is_set_up_from_the_command_line() {
    let desk = Desk {
        mesh: Mesh::up(3),
        folder: TempDir::with_prefix("atoll-desk-").expect("a temporary folder"),
    };
    let url = desk.mesh.nodes()[0].url.clone();
    let (_, password) = desk.mesh.admin();
    let said = desk.refused("project list");
    assert!(said.contains("atoll login"), "the remedy is named: {said}");
    let wrong = desk.secret("wrong", "not it");
    let said = desk.refused(&format!("login {url} --password-file {wrong}"));
    assert!(said.contains("admin") && !desk.contexts().exists(), "{said}");
    let said = desk.refused(&format!("login {} --password-file {wrong}", &url[7..]));
    assert!(said.contains("http://"), "{said}");
    let file = desk.secret("password", &format!("{password}\n"));
    desk.run(&format!("login {url} --password-file {file} --name home"));
    let mode = std::fs::metadata(desk.contexts()).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    desk.run("project create team --durability 2");
    assert!(desk.refused("project create team").contains("team"));
    desk.run("project set team public=true sparse_indexes=false");
    let shown = desk.run("project show team --output json");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["metadata"]["public"], "true");
    assert!(desk.run("project list").contains("team"));

    let ann = desk.secret("ann", "Correct-horse-1\n");
    desk.run(&format!("user create ann --new-password-file {ann}"));
    let empty = desk.secret("empty", "\n");
    let said = desk.refused(&format!("user create eve --new-password-file {empty}"));
    assert!(said.contains("--new-password-file") && said.contains("your own"), "{said}");
    desk.run("member add team ann developer");
    assert!(desk.run("member list team").contains("developer"));
    desk.run("member set team ann maintainer");
    assert!(desk.run("member list team").contains("maintainer"));
    desk.run("member add team devs guest --group oidc");
    desk.run("member add team cn=ops,dc=example guest --group ldap");
    desk.run("member set team devs developer");
    let members = desk.run("member list team");
    assert!(members.contains("devs") && members.contains("ops"), "{members}");
    desk.run("member remove team ops");
    assert!(!desk.run("member list team").contains("ops"));
    desk.run(&format!("login {url} --user ann --password-file {ann} --name ann"));
    let said = desk.refused("user list");
    assert!(!said.is_empty());
    assert!(desk.run("project list --context home --output json").contains("team"));

    let client = desk.mesh.anyone(1).basic("ann", "Correct-horse-1");
    let app = tests::repository::Repository::new(&client, "team/deep/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    assert!(desk.run("repo list team").contains("team/deep/app"));
    desk.run("tag add team/deep/app:1 stable");
    assert!(desk.refused("tag add team/deep/app:1 stable").contains("stable"));
    assert!(desk.run("artifact list team/deep/app").contains("1,stable"));
    desk.run("tag delete team/deep/app:stable");
    assert!(!desk.run("tag list team/deep/app:1").contains("stable"));
    let tags = desk.run("tag list team/deep/app");
    assert!(tags.contains("DIGEST") && tags.contains("sha256:"), "{tags}");
    let said = desk.refused("retention apply team --context home");
    assert!(said.contains("--file") && said.contains("--preset"), "both ways are named: {said}");
    assert!(desk.run("artifact show team/deep/app:1").contains("sha256:"));

    let made = desk.run("robot create ci --project team --may pull,push --days 7 --context home");
    let (robot, secret) = made.trim().split_once('\n').expect("a name and a secret");
    assert_eq!(robot, "robot$team+ci");
    let by_robot = desk.mesh.anyone(2).basic(robot, secret.trim());
    let by_robot = tests::repository::Repository::new(&by_robot, "team/deep/app");
    by_robot.push(&Image::tiny(), "2").unwrap_or_else(|no| panic!("{no}"));
    desk.run(&format!("robot refresh {robot} --project team --context home"));
    by_robot.push(&Image::tiny(), "3").expect_err("the old secret");
    // trust rules and `q` need numbers
    let listed = desk.run("robot list --project team --context home");
    let line = listed.lines().find(|line| line.contains(robot)).expect("the robot");
    let mut cells = line.split_whitespace();
    assert!(cells.next().is_some_and(|id| id.parse::<u64>().is_ok()), "{listed}");
    assert!(cells.last().is_some_and(|end| end.starts_with("20")), "a time: {listed}");
    desk.run("robot create old --project team --days=-1 --context home");
    assert!(desk.run("robot list --project team --context home").contains("never"));
    desk.run("label create gold --context home");
    let listed = desk.run("label list --context home");
    let line = listed.lines().find(|line| line.contains("gold")).expect("the label");
    assert!(line.split_whitespace().next().is_some_and(|id| id.parse::<u64>().is_ok()), "{listed}");
    desk.run("label delete gold --context home");
    desk.run(&format!("robot delete {robot} --project team --context home"));

    // whoever reads the output may leave
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let left = desk.command("project list --context home").stdout(writer).output();
    let left = left.expect("it runs");
    assert!(left.status.success() && left.stderr.is_empty(), "{left:?}");

    desk.run("artifact delete team/deep/app:1");
    assert!(desk.refused("artifact show team/deep/app:1").contains("does not exist"));
    desk.run("repo delete team/deep/app");
    desk.run("member remove team ann --context home");
    desk.run("project delete team --context home");
    assert!(desk.refused("project show team --context home").contains("there is no project team"));
    desk.run("user delete ann --context home");
    desk.run("logout ann");
    let said = desk.refused("project list --context ann");
    assert!(said.contains("home"), "those that there are: {said}");
}

fn desk() -> Desk {
    let mesh = Mesh::up(3);
    let desk = Desk { mesh, folder: TempDir::with_prefix("atoll-desk-").expect("a folder") };
    let file = desk.secret("password", desk.mesh.admin().1);
    let url = desk.mesh.nodes()[0].url.clone();
    desk.run(&format!("login {url} --password-file {file} --name home"));
    desk
}

#[test]
fn with_output_json_each_verb_prints_one_document() {
    let desk = desk();
    let new = desk.secret("new", "Correct-horse-1");
    let done = |line: &str| {
        let said = desk.json(line);
        assert!(said["done"].as_str().is_some_and(|text| !text.is_empty()), "{line}: {said}");
    };
    done("project create team");
    done("project set team public=true");
    done(&format!("user create ann --new-password-file {new}"));
    done("member add team ann guest");
    done("member set team ann developer");
    let robot = desk.json("robot create ci --project team --may pull,push");
    assert!(robot["secret"].is_string(), "{robot}");
    done("label create gold");
    done("label update gold --color #FFD700");
    let app = desk.mesh.repository(1, "team/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    done("tag add team/app:1 2");
    done("label add team/app:1 gold");
    done("label remove team/app:1 gold");
    let mut nothing = desk.command("immutable add team --tags v* --repositories team/app");
    let said = process::finish(&mut nothing);
    assert!(said.success && said.err.contains("You may mean app"), "{}", said.err);
    let rules = desk.json("immutable list team");
    done(&format!("immutable remove team {}", rules[0]["id"]));
    let mut rightly = desk.command("immutable add team --tags v* --output json");
    let said = process::finish(&mut rightly);
    assert!(said.success && !said.err.contains("is about none"), "{}", said.err);
    let rules: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    done(&format!("immutable remove team {}", rules[0]["id"]));
    desk.json("retention apply team --preset environments --production main-*");
    let run = desk.json("retention run team --dry-run");
    assert!(run["status"] == "Success" && run["log"].is_array(), "{run}");
    done("retention remove team");
    done("allowlist set CVE-2024-1");
    for line in [
        "project list",
        "project show team",
        "member list team",
        "user list",
        "robot list --project team",
        "robot show robot$team+ci",
        "trust list robot$team+ci",
        "repo list team",
        "artifact list team/app",
        "artifact show team/app:1",
        "tag list team/app",
        "tag list team/app:1",
        "label list",
        "allowlist show",
        "scanner",
        "gc status",
        "gc run --dry-run",
        "jobs list",
        "jobs schedules",
        "repair team",
        "audit --limit 5",
        "status",
    ] {
        let shown = desk.json(line);
        assert!(shown.is_array() || shown.is_object(), "{line}: {shown}");
    }
    let job = desk.json("jobs list --kind retention")[0]["id"].as_str().expect("a run").to_owned();
    assert!(desk.json(&format!("jobs log {job}")).is_array());
    done("tag delete team/app:2");
    done("artifact delete team/app:1");
    app.push(&Image::tiny(), "3").unwrap_or_else(|no| panic!("{no}"));
    done("repo delete team/app");
    done("label delete gold");
    done("robot disable robot$team+ci");
    done("robot enable robot$team+ci");
    assert!(desk.json("robot refresh robot$team+ci")["secret"].is_string());
    done("robot delete robot$team+ci");
    done("member remove team ann");
    done("user administrator ann");
    done("user disable ann");
    done("user enable ann");
    done("user delete ann");
    done("project delete team");
}

#[test]
fn who_is_disabled_is_refused_and_who_may_pull_is_shown() {
    let desk = desk();
    desk.run("project create team");
    let said = desk.refused("project set team publik=true");
    assert!(said.contains("publik") && said.contains("public, "), "all keys are named: {said}");
    let secret = desk.secret("ann", "Correct-horse-1");
    for (user, role) in [("ann", "developer"), ("bob", "guest"), ("eve", "guest")] {
        desk.run(&format!("user create {user} --new-password-file {secret}"));
        desk.run(&format!("member add team {user} {role}"));
    }
    desk.run("member add team devs maintainer --group oidc");
    let shown = desk.run("project show team");
    for line in ["members, robots", "bob, eve", "ann", "devs (group)"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    desk.run("project set team public=true");
    assert!(desk.run("project show team").contains("everyone"));

    let url = desk.mesh.nodes()[1].url.clone();
    desk.run(&format!("login {url} --user ann --password-file {secret} --name ann"));
    desk.run("project show team --context ann");
    desk.run("user disable ann --context home");
    let line = desk.run("user list --context home");
    assert!(line.lines().any(|line| line.starts_with("ann") && line.contains("true")), "{line}");
    desk.refused("project list --context ann");
    desk.run("user enable ann --context home");
    desk.run("project list --context ann");
    desk.refused("user disable bob --context ann");

    // a robot does what it was granted, also from the command line
    let may = "pull,push,repository:list,artifact:list,artifact:read,tag:list,tag:create";
    let made = desk.json(&format!("robot create ci --project team --may {may} --context home"));
    desk.run("project set team public=false --context home");
    let secret = desk.secret("ci", made["secret"].as_str().expect("a secret"));
    let robot = "robot$team+ci";
    desk.run(&format!("login {url} --user {robot} --password-file {secret} --name ci"));
    desk.mesh
        .repository(2, "team/deep/app")
        .push(&Image::tiny(), "1")
        .unwrap_or_else(|no| panic!("{no}"));
    assert!(desk.run("repo list team").contains("team/deep/app"));
    assert!(desk.run("artifact list team/deep/app").contains("sha256:"));
    desk.run("tag add team/deep/app:1 2");
    assert!(desk.run("tag list team/deep/app").contains('2'));
    assert!(desk.run("artifact show team/deep/app:2").contains("sha256:"));
    let said = desk.refused("tag delete team/deep/app:2");
    assert!(said.contains(robot), "{said}");
    desk.refused("project delete team");
    let shown = desk.run("robot show robot$team+ci --context home");
    assert!(shown.contains("tag:create") && shown.contains("project team"), "{shown}");
    desk.run("robot disable robot$team+ci --context home");
    desk.refused("repo list team");
    desk.run("robot enable robot$team+ci --context home");
    desk.run("repo list team");

    // what happened is found by its kind
    let log = desk.json("audit --kind robot --operation update --context home");
    let log = log.as_array().cloned().unwrap_or_default();
    assert!(log.len() >= 2 && log.iter().all(|one| one["resource_type"] == "robot"), "{log:?}");
}

#[test]
fn trust_rules_are_made_and_removed_from_the_command_line() {
    let desk = desk();
    desk.run("project create team");
    desk.run("robot create ci --project team");
    let keys = serde_json::json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    let file = desk.secret("keys.json", &keys.to_string());
    let add = "trust add robot$team+ci --issuer https://ci.example --audience atoll --subject";
    let listed = desk.run(&format!("{add} repo:team/* --claim ref=main --keys-file {file}"));
    assert!(listed.contains("https://ci.example") && listed.contains("main"), "{listed}");
    let rules = desk.json("trust list robot$team+ci");
    assert_eq!(rules[0]["claims"]["ref"], "main");
    assert_eq!(rules[0]["keys"]["keys"][0]["kid"], "1");
    let id = &rules[0]["id"];
    desk.run(&format!("trust keys robot$team+ci {id} --keys-file {file}"));
    let said = desk.refused(&format!("{add} x --keys-file {}", desk.secret("none", "no JSON")));
    assert!(said.contains("--keys-file"), "{said}");
    assert!(desk.refused("trust list robot$team+none").contains("robot$team+none"));
    desk.run(&format!("trust remove robot$team+ci {id}"));
    assert_eq!(desk.json("trust list robot$team+ci"), serde_json::json!([]));
}

/// Whoever has just started a mesh here means that one, and whoever has logged in since means the other.
#[test]
fn which_mesh_is_asked_is_what_came_last_and_it_is_said() {
    let desk = Desk {
        mesh: Mesh::up(3),
        folder: TempDir::with_prefix("atoll-desk-").expect("a temporary folder"),
    };
    let [home, here] = [0, 1].map(|at| desk.mesh.nodes()[at].url.clone());
    let file = desk.secret("password", desk.mesh.admin().1);
    let ask = |line: &str| {
        let said = process::finish(&mut desk.command(line));
        assert!(said.success, "atoll {line}: {}", said.err);
        said
    };
    desk.run(&format!("login {home} --password-file {file} --name home"));
    let said = ask("status --no-copies");
    assert!(said.out.starts_with(&format!("asked {home}\n")) && said.err.is_empty(), "{said:?}");
    // what `atoll up` writes; for the command line it is another mesh
    let data = desk.folder.path().join("atoll-data");
    std::fs::create_dir(&data).expect("a folder");
    let up = serde_json::json!({"nodes": [{"url": here}], "admin": {"password_file": file}});
    std::fs::write(data.join("mesh.json"), up.to_string()).expect("a file");
    let since = |path: &std::path::Path, seconds: u64| {
        let file = std::fs::File::options().write(true).open(path).expect("a file");
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(at).expect("a time");
    };
    since(&data.join("mesh.json"), 2_000_000);
    since(&desk.contexts(), 1_000_000);
    let said = ask("status --no-copies");
    assert!(said.out.starts_with(&format!("asked {here}\n")), "{said:?}");
    assert!(said.err.contains("--context home"), "it is said how the other is asked: {said:?}");
    assert!(ask("status --no-copies --context home").out.contains(&home));
    since(&desk.contexts(), 3_000_000);
    let said = ask("status --no-copies");
    assert!(said.out.starts_with(&format!("asked {home}\n")), "{said:?}");
    assert!(said.err.contains("--data atoll-data"), "{said:?}");
    let said = ask("project list --data atoll-data");
    assert!(said.err.is_empty(), "nothing is said where it is clear: {said:?}");
}
