//! The distribution specification's own conformance suite passes whole, with its default switches,
//! against a node that is not the primary of the project it writes to: every write of it is one
//! that another region commits.

use tempfile::TempDir;
use tests::mesh::Mesh;
use tests::{process, tools};

#[test]
fn the_official_suite_passes_whole_through_a_node_that_is_not_the_primary() {
    let mut suite = tools::built_by_go("conformance");
    let mesh = Mesh::up(3);
    let at = (mesh.primary_of("demo") + 1) % 3;
    let (user, password) = mesh.admin();
    let results = TempDir::with_prefix("atoll-conformance-").expect("a temporary folder");
    suite.env("OCI_RESULTS_DIR", results.path()).current_dir(results.path());
    suite.env("OCI_REGISTRY", mesh.client(at).authority()).env("OCI_TLS", "disabled");
    suite.env("OCI_REPO1", "demo/conformance/one").env("OCI_REPO2", "demo/conformance/two");
    let said = process::finish(suite.env("OCI_USERNAME", user).env("OCI_PASSWORD", password));
    // It ends with 0 also when it could not begin, so what counts is its report.
    let report = std::fs::read_to_string(results.path().join("junit.xml"));
    let report = report.unwrap_or_else(|error| {
        panic!("the suite wrote no report ({error}; {}):\n{}\n{}", said.end, said.out, said.err)
    });
    let count = |what: &str| -> usize {
        let after =
            report.split_once(&format!("{what}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        if after.is_none() && what == "skipped" {
            return 0; // the report leaves it out when there is nothing to count
        }
        let number = after.and_then(|(number, _)| number.parse().ok());
        number.unwrap_or_else(|| {
            panic!("the report does not count {what}: {}", &report[..report.len().min(400)])
        })
    };
    let (tests, failures, errors, skipped) =
        (count("tests"), count("failures"), count("errors"), count("skipped"));
    println!(
        "conformance: {tests} tests, {failures} failed, {errors} errors, {skipped} skipped, {} disabled",
        count("disabled")
    );
    let story = said.out.split("\nConfiguration:").next().unwrap_or_default();
    let failed: Vec<_> = story
        .lines()
        .filter(|line| !line.ends_with(": Pass") && !line.ends_with(": Disabled"))
        .collect();
    assert!(
        said.success && failures + errors + skipped == 0,
        "not whole:\n{}\n{}",
        failed.join("\n"),
        said.err
    );
    assert!(tests > 100, "only {tests} tests ran");
}
