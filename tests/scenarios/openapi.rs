//! The document of the API says what the nodes answer: each serves it, and schemathesis, which makes
//! requests of it, gets no 5xx and nothing that the document does not say.

use std::process::Command;

use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::people::{add_member, create_robot, create_user, must, robot_of};
use tests::{process, tools};

const DOCUMENT: &str = "/api/openapi.json";

#[test]
fn every_node_serves_the_document_of_its_api() {
    let mesh = Mesh::up(3);
    let first = must(&mesh.anyone(0), Method::GET, DOCUMENT, &json!({}), 200).json();
    let paths = first["paths"].as_object().expect("paths");
    let listed =
        |path: &str, method: &str| paths.get(path).is_some_and(|entry| entry.get(method).is_some());
    assert!(listed("/api/v2.0/projects/{project}/members", "post"));
    assert!(listed("/api/atoll/v1/jobs/{id}/log", "get"));
    let body = &paths["/api/v2.0/labels"]["post"]["requestBody"]["content"]["application/json"];
    let schema = body["schema"]["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
    let schema = first.pointer(schema.expect("a place")).expect("the schema of a label");
    assert!(schema["required"].as_array().is_some_and(|all| all.contains(&json!("scope"))));
    for at in 1..3 {
        let other = must(&mesh.anyone(at), Method::GET, DOCUMENT, &json!({}), 200).json();
        assert_eq!(other, first);
    }
}

#[test]
fn schemathesis_finds_no_fault_of_a_node_and_nothing_undocumented() {
    let mesh = Mesh::up(1);
    let admin = mesh.client(0);
    // things that its requests are about, beside those that do not exist
    tests::repository::create_project(&admin, "team", true, 1);
    create_user(&admin, "ann");
    add_member(&admin, "team", "ann", 2);
    create_robot(&admin, &robot_of("team", "ci", &["pull"]));
    for name in ["team/app", "demo/app"] {
        mesh.repository(0, name).push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let label = json!({"name": "approved", "scope": "g"});
    must(&admin, Method::POST, "/api/v2.0/labels", &label, 201);

    let folder = TempDir::with_prefix("atoll-schemathesis-").expect("a temporary folder");
    let settings = folder.path().join("settings.toml");
    // seven of ten requests are about things that there are
    let (mut values, mut parameters) = (String::new(), String::new());
    for (parameter, known) in [
        ("project", r#"["team", "demo"]"#),
        ("name", r#"["app"]"#),
        ("reference", r#"["1"]"#),
        ("id", "[1, 2, 3, 4, 5]"),
        ("user", "[1, 2]"),
        ("label", "[1]"),
        ("signer", r#"["ci"]"#),
        ("key", r#"["public", "auto_scan"]"#),
    ] {
        values += &format!("[dictionaries.{parameter}]\nvalues = {known}\n");
        let chosen = format!("{{ dictionary = \"{parameter}\", probability = 0.7 }}");
        parameters += &format!("\"path.{parameter}\" = {chosen}\n");
    }
    let known = format!("{values}[parameters]\n{parameters}");
    std::fs::write(&settings, known).expect("the settings are written");
    let program = tools::cache().join("schemathesis/bin/schemathesis");
    assert!(
        program.is_file(),
        "{} is missing: apt-get install python3-venv and run tests/run openapi, which installs it",
        program.display()
    );
    let (user, password) = mesh.admin();
    let mut tester = Command::new(program);
    tester.current_dir(folder.path()).env("HOME", folder.path());
    tester.arg("--config-file").arg(&settings).args(["run", "--no-color"]);
    tester.arg(format!("http://{}{DOCUMENT}", admin.authority()));
    tester.args(["--auth", &format!("{user}:{password}")]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
        response_schema_conformance,response_headers_conformance";
    tester.args(["--checks", checks, "--phases", "coverage,fuzzing", "--max-examples", "20"]);
    // the same requests in each run
    tester.args([
        "--generation-deterministic",
        "--continue-on-failure",
        "--no-shrink",
        "--warnings",
        "off",
    ]);
    let said = process::finish(&mut tester);
    assert!(said.success, "{}\n{}\n{}", said.end, said.out, said.err);
    assert!(said.out.contains("No issues found"), "{}", said.out);
    let document = must(&admin, Method::GET, DOCUMENT, &json!({}), 200).json();
    let paths = document["paths"].as_object().expect("paths").iter();
    // the tool asks for the document itself before it begins
    let others = paths.filter(|(path, _)| *path != DOCUMENT);
    let operations: usize = others.filter_map(|(_, entry)| Some(entry.as_object()?.len())).sum();
    let tested = format!("Tested: {operations}\n");
    assert!(operations > 90 && said.out.contains(&tested), "{operations}: {}", said.out);
    // nobody lost what the requests must not take
    must(&admin, Method::GET, "/api/v2.0/users/current", &json!({}), 200);
}
