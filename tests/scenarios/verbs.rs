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
