//! What an operator may rely on: all mistakes at once, each with its line and remedy; no hidden
//! default; what is written reads back.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use config::{
    CongestionControl, Edge, Hsm, KmsKey, LogFormat, Mirrors, Mistakes, ProjectCreation, REFERENCE,
    SealWith, Settings, StaleReads, Tls, TlsFiles, load, parse, render,
};
use proptest::prelude::*;
use rules::ledger::records::Role;

/// The least that a node needs.
const LEAST: &str = "data_dir: /d\nregion: r\nmesh: {advertise: 10.0.0.11:7946}\n";

fn least() -> Settings {
    let mut settings = Settings::new("/d", "r");
    settings.mesh.advertise = Some(SocketAddr::from(([10, 0, 0, 11], 7946)));
    settings
}

/// The lines that the mistakes of `text` print.
fn lines(text: &str) -> Vec<String> {
    match parse("node.yaml", text) {
        Ok(settings) => panic!("no mistake in {text}: {settings:?}"),
        Err(Mistakes(mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

/// What is printed for one wrong line after [`LEAST`].
#[track_caller]
fn check(line: &str, expected: &str) {
    assert_eq!(lines(&format!("{LEAST}{line}")), [expected.to_owned()]);
}

#[test]
fn the_reference_is_the_defaults() {
    let mut defaults = Settings::new("/var/lib/atoll", "us-east-1");
    defaults.mesh.advertise = Some(SocketAddr::from(([10, 0, 0, 11], 7946)));
    assert_eq!(parse("reference.yaml", REFERENCE), Ok(defaults));
}

#[test]
fn what_is_left_out_has_its_default() {
    assert_eq!(parse("node.yaml", LEAST), Ok(least()));
    let headings_only = format!("{LEAST}http:\nroster:\nledger: {{}}\nlog:\n  # level: debug\n");
    assert_eq!(parse("node.yaml", &headings_only), Ok(least()));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = "\
regoin: us-east-1
http:
  listen: localhost:5000
  tls:
    certificate: /etc/atoll/tls.crt
ledger:
  heartbeat: abc
  heartbeat: 400ms
  log_bytes: [1]
lease:
  renew_every: 3s
drain: 20m
";
    assert_eq!(
        lines(text),
        [
            "node.yaml: data_dir: is missing; add the line `data_dir: /var/lib/atoll`",
            "node.yaml: region: is missing; add the line `region: us-east-1`",
            "node.yaml: mesh.advertise: is missing, and mesh.listen (0.0.0.0:7946) is every interface; set \
             mesh.advertise to the address that other nodes dial, e.g. 10.0.0.11:7946",
            "node.yaml:1: regoin: there is no such setting; write region if that is what regoin means, or remove the line",
            "node.yaml:3: http.listen: 'localhost:5000' is not an address; write an IP address and a port, e.g. \
             0.0.0.0:5000",
            "node.yaml:4: http.tls.key: is missing; add the line `key: /etc/atoll/tls.key`",
            "node.yaml:7: ledger.heartbeat: 'abc' is not a duration; write e.g. 400ms (a whole number and ms, s, m or h)",
            "node.yaml:8: ledger.heartbeat: is written a second time (first on line 7); keep one of the two lines of \
             ledger.heartbeat",
            "node.yaml:9: ledger.log_bytes: is a list where a single value belongs; write one value on the line of \
             log_bytes",
            "node.yaml:11: lease.renew_every: lease.renew_every (3s) is not below lease.duration (2s): a lease must be \
             renewed before it runs out; lower lease.renew_every or raise lease.duration",
            "node.yaml:12: drain: 20m is out of range; write a value from 0s to 10m",
        ]
    );
}

#[test]
fn an_unknown_key_names_the_setting_that_was_meant() {
    check(
        "log:\n  leval: debug",
        "node.yaml:5: log.leval: there is no such setting; write level if that is what leval means, or remove the line",
    );
    check(
        "heartbeat: 400ms",
        "node.yaml:4: heartbeat: there is no such setting; write heartbeat under `ledger:`, or remove the line",
    );
    check(
        "ledger.heartbeat: 400ms",
        "node.yaml:4: ledger.heartbeat: there is no such setting; write heartbeat under `ledger:`, or remove the line",
    );
    check(
        "log: {drain: 5s}",
        "node.yaml:4: log.drain: there is no such setting; write drain at the top level, or remove the line",
    );
    check(
        "lease: {colour: blue}",
        "node.yaml:4: lease.colour: there is no such setting; remove colour, or use one of duration, renew_every",
    );
}

#[test]
fn a_cap_has_the_name_of_a_region_and_a_size() {
    let caps = |text: &str| {
        parse("node.yaml", &format!("{LEAST}{text}")).map(|settings| settings.links.caps)
    };
    assert_eq!(
        caps("links: {caps: {no: 20MiB, eu-1: 1GiB}}").unwrap().into_iter().collect::<Vec<_>>(),
        [("eu-1".to_owned(), 1 << 30), ("no".to_owned(), 20 << 20)]
    );
    assert_eq!(caps("links: {caps: null}"), Ok(Default::default()));
    check(
        "links: {caps: {eu: 5}}",
        "node.yaml:4: links.caps.eu: '5' is not a size; write e.g. 20MiB (a whole number and B, KiB, MiB or GiB)",
    );
    check(
        "links: {caps: {eu: 1KiB}}",
        "node.yaml:4: links.caps.eu: 1KiB is out of range; write a value from 64KiB to 100GiB",
    );
    let lines = lines(&format!("{LEAST}links: {{caps: {{E_U: 1MiB}}}}"));
    assert!(lines.len() == 1 && lines[0].starts_with("node.yaml:4: links.caps.E_U: "), "{lines:?}");
}

#[test]
fn a_congestion_control_is_one_of_two() {
    let chosen = |word: &str| {
        parse("node.yaml", &format!("{LEAST}links: {{congestion: {word}}}"))
            .map(|s| s.links.congestion)
    };
    assert_eq!(chosen("cubic").unwrap(), CongestionControl::Cubic);
    assert_eq!(chosen("delivery").unwrap(), CongestionControl::Delivery);
    check(
        "links: {congestion: bbr}",
        "node.yaml:4: links.congestion: 'bbr' is not a choice here; write delivery or cubic",
    );
}

#[test]
fn the_meshs_own_ca_issues_certificates_to_replicas_for_names_of_clients() {
    let tls = |more: &str, text: &str| {
        parse("node.yaml", &format!("{LEAST}{more}http:\n  tls: {{{text}}}\n")).map(|s| s.http.tls)
    };
    let names = vec!["registry.example.com".to_owned(), "2001:db8::1".into(), "10.0.0.1".into()];
    assert_eq!(
        tls("", "issuer: mesh, names: \"registry.example.com, 2001:DB8::1,10.0.0.1\"").unwrap(),
        Some(Tls::Mesh { names })
    );
    assert_eq!(tls("", "issuer: mesh").unwrap(), Some(Tls::Mesh { names: Vec::new() }));
    for (more, text, setting) in [
        ("", "issuer: letsencrypt", "http.tls.issuer"),
        ("role: edge\n", "issuer: mesh", "http.tls.issuer"),
        ("", "issuer: mesh, names: node-1.mesh.atoll", "http.tls.names"),
        ("", "issuer: mesh, names: \"a.example:5000\"", "http.tls.names"),
        ("", "issuer: mesh, key: /etc/atoll/tls.key", "http.tls.key"),
        ("", "names: a.example, certificate: /a, key: /b", "http.tls.names"),
    ] {
        let mistakes = tls(more, text).unwrap_err().0;
        assert!(mistakes.iter().any(|one| one.setting == setting), "{text}: {mistakes:?}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_named_together() {
    for (text, first, second) in [
        ("roster: {probe_rtt: 700ms}", "roster.probe_rtt", "roster.probe_period"),
        ("roster: {suspect_to_down: 500ms}", "roster.probe_period", "roster.suspect_to_down"),
        ("ledger: {heartbeat: 600ms}", "ledger.election_min", "ledger.heartbeat"),
        ("ledger: {election_max: 1200ms}", "ledger.election_min", "ledger.election_max"),
        ("lease: {duration: 500ms}", "lease.renew_every", "lease.duration"),
        ("edge: {alone_for: 1h}", "edge.alone_for", "role"),
    ] {
        let lines = lines(&format!("{LEAST}{text}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("node.yaml:4: "), "{}", lines[0]);
        assert!(lines[0].contains(first) && lines[0].contains(second), "{}", lines[0]);
    }
}

#[test]
fn a_mistake_brings_no_others_after_it() {
    check(
        "lease: 3",
        "node.yaml:4: lease: is a single value where a group of settings belongs; write `key: value` lines in lease",
    );
    check(
        "http: {tls: yes}",
        "node.yaml:4: http.tls: is a single value where a group of settings belongs; write `key: value` lines in http.tls",
    );
    check(
        "ledger: {heartbeat: 0s}",
        "node.yaml:4: ledger.heartbeat: 0s is out of range; write a value from 10ms to 10s",
    );
    assert_eq!(lines("- a\n- b").len(), 1);
    assert_eq!(lines("data_dir: /d\nregion: r\nmesh: 7946").len(), 1);
}

#[test]
fn a_setting_without_a_value_is_not_a_default() {
    check(
        "drain:",
        "node.yaml:4: drain: has no value; write a value after `drain:` or remove the line for the default",
    );
    assert_eq!(
        lines("data_dir:\nregion: r\nmesh: {listen: 127.0.0.1:0}"),
        ["node.yaml:1: data_dir: has no value; write e.g. `data_dir: /var/lib/atoll`"]
    );
}

#[test]
fn issuers_are_urls_or_what_urls_begin_with() {
    let people = |text: &str| {
        parse("node.yaml", &format!("{LEAST}people: {{issuers: {text}}}")).map(|s| s.people.issuers)
    };
    assert_eq!(people("null").unwrap(), None);
    assert_eq!(people("none").unwrap(), Some(vec![]));
    let two = people("'https://ci.example, https://eks.example/id/*'").unwrap().unwrap();
    assert_eq!(two, ["https://ci.example", "https://eks.example/id/*"]);
    for bad in
        ["ci.example", "https://*.example/*", "https://ci.example*", "http://ci.example", "''"]
    {
        assert!(people(bad).is_err(), "{bad}");
    }
}

#[test]
fn only_true_opens_a_door() {
    let upstreams = |text: &str| {
        parse("node.yaml", &format!("{LEAST}upstreams: {{{text}}}")).map(|s| s.upstreams)
    };
    let written = upstreams("allow_loopback: true, fresh_for: 0s").unwrap();
    assert!(written.allow_loopback && !written.allow_private && written.fresh_for.is_zero());
    for word in ["yes", "True", "on", "1"] {
        check(
            &format!("upstreams: {{allow_private: {word}}}"),
            &format!(
                "node.yaml:4: upstreams.allow_private: '{word}' is not a choice here; write true or false"
            ),
        );
    }
    check(
        "upstreams: {fresh_for: 25h}",
        "node.yaml:4: upstreams.fresh_for: 25h is out of range; write a value from 0s to 24h",
    );
}

#[test]
fn a_mirror_is_named_as_images_name_it() {
    let text = "mirrors: {names: 'r.example, n:5000', default: docker.io, aliases: {docker.io: hub, \"r.example:5000\": r}}";
    let mirrors = parse("node.yaml", &format!("{LEAST}{text}")).unwrap().mirrors;
    assert_eq!(mirrors.names, ["r.example", "n:5000"]);
    assert_eq!(
        mirrors.aliases.into_iter().collect::<Vec<_>>(),
        [
            ("docker.io".into(), "hub".parse().unwrap()),
            ("r.example:5000".into(), "r".parse().unwrap())
        ]
    );
    for (wrong, what) in [
        (
            "mirrors: {default: 'https://docker.io'}",
            "mirrors.default: 'https://docker.io' is not a registry's name",
        ),
        (
            "mirrors: {domain: 'mirror.example:5000'}",
            "mirrors.domain: 'mirror.example:5000' is not a domain",
        ),
        (
            "mirrors: {aliases: {docker.io: hub/library}}",
            "mirrors.aliases.docker.io: 'hub/library' is not a project's name",
        ),
        (
            "mirrors: {aliases: {docker.io: {hub: x}}}",
            "mirrors.aliases.docker.io: is a group of settings where a single",
        ),
        ("mirrors: {alias: {docker.io: hub}}", "mirrors.alias: there is no such setting"),
    ] {
        let lines = lines(&format!("{LEAST}{wrong}"));
        assert!(lines.len() == 1 && lines[0].contains(what), "{lines:?}");
    }
}

#[test]
fn nodes_must_be_able_to_dial_what_is_advertised() {
    for address in ["0.0.0.0:7946", "'[::]:7946'", "10.0.0.11:0"] {
        let text = format!("data_dir: /d\nregion: r\nmesh:\n  advertise: {address}\n");
        let lines = lines(&text);
        assert!(
            lines.len() == 1 && lines[0].contains("is not an address that other nodes can dial"),
            "{lines:?}"
        );
    }
    assert!(parse("node.yaml", "data_dir: /d\nregion: r\nmesh: {listen: 10.0.0.11:7946}").is_ok());
}

#[test]
fn what_seals_needs_all_of_its_settings() {
    let half = format!("{LEAST}signing: {{hsm: {{module: /m.so, key: k}}}}\n");
    assert_eq!(
        lines(&half),
        [
            "node.yaml:4: signing.hsm.token: is missing, and others of signing.hsm are set; set it: the token's label",
            "node.yaml:4: signing.hsm.pin_file: is missing, and others of signing.hsm are set; set it: the file with the user's PIN",
        ]
    );
    let hsm = "hsm: {module: /m.so, token: t, key: k, pin_file: /p}";
    let settings = parse("node.yaml", &format!("{LEAST}signing: {{{hsm}}}\n")).expect("settings");
    assert_eq!(settings.signing.hsm.token.as_deref(), Some("t"));
    let kms = format!("{LEAST}signing: {{kms: {{url: 'http://127.0.0.1:8080', key: k}}}}\n");
    assert_eq!(
        lines(&kms),
        [
            "node.yaml:4: signing.kms.region: is missing, and others of signing.kms are set; set it: AWS's region",
            "node.yaml:4: signing.kms.credentials_file: is missing, and others of signing.kms are set; set it: the file with an access key",
        ]
    );
    for (seals, lacks) in [
        ("hsm", "signing.hsm.module"),
        ("kms", "signing.kms.key"),
        ("passphrase", "signing.passphrase_file"),
    ] {
        check(
            &format!("signing: {{seal_with: {seals}}}\n"),
            &format!(
                "node.yaml:4: signing.seal_with: names what is not there: {lacks} is not set; set {lacks} or remove the line"
            ),
        );
    }
    check(
        &format!("signing: {{hsm: {{token: '{}'}}}}\n", "t".repeat(33)),
        &format!(
            "node.yaml:4: signing.hsm.token: {:?} is not a label; write 1 to 32 bytes, e.g. atoll",
            "t".repeat(33)
        ),
    );
}

#[test]
fn a_region_called_no_stays_no() {
    let settings =
        parse("node.yaml", "data_dir: /d\nregion: no\nmesh: {listen: 10.0.0.1:1}").unwrap();
    assert_eq!((settings.region.as_str(), settings.name.as_str()), ("no", "no-1"));
}

#[test]
fn a_file_saved_on_windows_is_read_like_any_other() {
    let text = format!("\u{feff}{}", LEAST.replace('\n', "\r\n"));
    assert_eq!(parse("node.yaml", &text), Ok(least()));
    assert!(
        lines(&format!("{text}drain: x\r\n"))[0]
            .starts_with("node.yaml:4: drain: 'x' is not a duration")
    );
}

#[test]
fn a_long_region_needs_a_name_of_its_own() {
    let region = "r".repeat(62);
    let text = format!("data_dir: /d\nregion: {region}\nmesh: {{listen: 10.0.0.1:1}}\n");
    assert!(lines(&text)[0].contains("set name, since region is too long to make one from"));
    assert!(parse("node.yaml", &format!("{text}name: a\n")).is_ok());
}

#[test]
fn a_document_that_means_more_than_it_shows_is_refused() {
    for (text, line) in [
        ("a: &x 1\nb: *x", 1),
        ("data_dir: !!str /d", 1),
        ("http: &x {}", 1),
        ("data_dir: /d\n---\nregion: r", 2),
        ("data_dir: /d\n  region: r\n", 2),
        ("a: \"open", 1),
    ] {
        let Err(Mistakes(mistakes)) = parse("node.yaml", text) else { panic!("accepted {text}") };
        assert_eq!((mistakes.len(), mistakes[0].line), (1, line), "{mistakes:?}");
    }
}

#[test]
fn no_document_is_too_large_or_too_deep_to_refuse() {
    let large = format!("{LEAST}#{}", "x".repeat(1 << 20));
    assert_eq!(
        lines(&large),
        ["node.yaml: is larger than 1MiB; check that this is a configuration file"]
    );
    for deep in ["- ", "[", "{a: ", "? "] {
        assert_eq!(lines(&deep.repeat(100_000)).len(), 1, "{deep}");
    }
}

#[test]
fn load_also_looks_at_the_files_that_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |tls: &str| {
        let data = path("data").display().to_string();
        let dir = directory.path().display();
        let text = format!(
            "data_dir: {data}\nregion: r\nmesh: {{listen: 10.0.0.1:1}}\nhttp:\n  tls:\n    certificate: {dir}/crt\n    \
             key: {dir}/{tls}\n"
        );
        fs::write(path("node.yaml"), text).unwrap();
    };
    fs::write(path("crt"), "").unwrap();
    fs::write(path("key"), "").unwrap();
    write("key");
    let settings = load(&path("node.yaml")).unwrap();
    assert_eq!(
        settings.http.tls,
        Some(Tls::Files(TlsFiles { certificate: path("crt"), key: path("key") }))
    );

    write("nokey");
    fs::write(path("data"), "a file").unwrap();
    let mistakes = load(&path("node.yaml")).unwrap_err().0;
    let found: Vec<_> = mistakes.iter().map(|m| (m.line, m.setting.as_str())).collect();
    assert_eq!(found, [(1, "data_dir"), (7, "http.tls.key")]);

    let dir = directory.path().display();
    let text = format!(
        "data_dir: {dir}/d\nregion: r\nmesh: {{listen: 10.0.0.1:1}}\nupstreams:\n  fresh_for: 1s\n  ca: {dir}/ca.pem\n"
    );
    fs::write(path("node.yaml"), text).unwrap();
    for (holds, wrong) in
        [(None, "cannot be read"), (Some("-----BEGIN KEY-----"), "holds no certificate")]
    {
        if let Some(text) = holds {
            fs::write(path("ca.pem"), text).unwrap();
        }
        let told = load(&path("node.yaml")).unwrap_err().to_string();
        assert!(told.contains("node.yaml:6: upstreams.ca: ") && told.contains(wrong), "{told}");
    }
    fs::write(path("ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    assert_eq!(load(&path("node.yaml")).unwrap().upstreams.ca, Some(path("ca.pem")));
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load(&directory.path().join("none.yaml")).unwrap_err();
    assert!(missing.to_string().contains("none.yaml: cannot be read: "), "{missing}");
    fs::write(directory.path().join("binary.yaml"), [0xff, 0xfe]).unwrap();
    assert!(
        load(&directory.path().join("binary.yaml"))
            .unwrap_err()
            .to_string()
            .contains("is not a text file")
    );
    fs::write(directory.path().join("large.yaml"), vec![b'#'; 2 << 20]).unwrap();
    assert!(
        load(&directory.path().join("large.yaml"))
            .unwrap_err()
            .to_string()
            .contains("is larger than 1MiB")
    );
}

#[test]
fn the_least_that_the_docs_name_is_enough() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let least = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let settings = parse("operations.md", least).unwrap();
    assert_eq!(settings.mesh.advertise.unwrap().to_string(), "10.0.0.11:7946");
    let edge = parse("operations.md", &format!("role: edge\n{least}")).unwrap();
    assert_eq!(edge.region, settings.region);
}

#[test]
fn the_example_in_deploy_is_a_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/node.example.yaml");
    parse("node.example.yaml", &fs::read_to_string(path).unwrap()).unwrap();
}

fn milliseconds(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn any_name() -> &'static str {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
}

fn any_registry() -> &'static str {
    "[a-z0-9-]{1,9}(\\.[a-z]{1,5}){0,2}(:[1-9][0-9]{0,3})?"
}

fn any_path() -> &'static str {
    "[^\\pC]{1,30}"
}

prop_compose! {
    /// Settings that obey every bound and agreement.
    fn any_settings()(
        (data_dir, region, name) in (any_path(), any_name(), any_name()),
        (listen4, port, v6) in (any::<[u8; 4]>(), 1..=u16::MAX, any::<bool>()),
        (url, tls, level) in (
            proptest::option::of("https?://[a-z0-9-]{1,9}(\\.[a-z]{1,5}){0,2}(:[1-9][0-9]{0,3})?"),
            proptest::option::of((any_path(), any_path())),
            "(info|WARN|off)(,[a-z]{1,5}(::[a-z]{1,5})?=(debug|trace)){0,2}",
        ),
        (rtt, period, suspect) in (milliseconds(10..=10_000), milliseconds(1..=20_000), milliseconds(1..=90_000)),
        (heartbeat, above_twice, above_min) in
            (milliseconds(10..=10_000), milliseconds(10..=20_000), milliseconds(1..=20_000)),
        (renew, over) in (milliseconds(10..=30_000), milliseconds(100..=30_000)),
        (hold, back, drain) in (milliseconds(0..=60_000), milliseconds(0..=86_400_000), milliseconds(0..=600_000)),
        (durability, log_bytes, open, manifest) in
            (1_u32..=5, 65_536_u64..=68_719_476_736, 1_u32..=100_000, 65_536_u64..=8_388_608),
        (expire, first, stall, source_stall, commit, replicate) in (
            milliseconds(1000..=2_592_000_000), milliseconds(100..=60_000), milliseconds(100..=600_000),
            milliseconds(100..=600_000), milliseconds(100..=600_000), milliseconds(100..=3_600_000),
        ),
        caps in proptest::collection::btree_map(any_name(), 65_536_u64..=107_374_182_400, 0..4),
        (refuse, json) in any::<(bool, bool)>(),
        (names, domain, default, aliases) in (
            proptest::collection::vec(any_registry(), 0..3),
            proptest::option::of("[a-z0-9-]{1,9}(\\.[a-z]{1,5}){0,2}"),
            proptest::option::of(any_registry()),
            proptest::collection::btree_map(any_registry(), any_name(), 0..3),
        ),
        (private, loopback, fresh, missing, ca) in (
            any::<bool>(), any::<bool>(), milliseconds(0..=86_400_000), milliseconds(0..=3_600_000),
            proptest::option::of(any_path()),
        ),
        (budget, edge) in (
            proptest::option::of((16_u64 << 20)..=(1 << 60)),
            proptest::option::of((milliseconds(0..=86_400_000), milliseconds(0..=31_536_000_000), any::<bool>())),
        ),
    ) -> Settings {
        let mut s = Settings::new(data_dir, region);
        s.name = name;
        s.http.listen = if v6 { SocketAddr::from(([0_u16; 8], port)) } else { SocketAddr::from((listen4, port)) };
        s.http.public_url = url;
        s.http.tls = match (tls, private) {
            (Some((certificate, key)), _) => Some(Tls::Files(TlsFiles { certificate: certificate.into(), key: key.into() })),
            (None, true) if edge.is_none() => Some(Tls::Mesh { names: domain.iter().cloned().collect() }),
            (None, _) => None,
        };
        s.mesh.listen = SocketAddr::from((listen4, port));
        s.mesh.advertise = Some(SocketAddr::from(([10, 0, 0, 1], port)));
        s.roster.probe_rtt = rtt;
        s.roster.probe_period = (rtt + period).max(Duration::from_millis(100));
        s.roster.suspect_to_down = s.roster.probe_period + suspect;
        s.ledger.heartbeat = heartbeat;
        s.ledger.election_min = 2 * heartbeat + above_twice;
        s.ledger.election_max = s.ledger.election_min + above_min;
        s.ledger.log_bytes = log_bytes;
        s.lease.renew_every = renew;
        s.lease.duration = renew + over;
        s.failover.hold_down = hold;
        s.failover.return_after = back;
        s.failover.replace_voter_after = back.max(Duration::from_secs(1));
        s.projects.durability = durability;
        s.people.token_lifetime = expire.clamp(Duration::from_secs(60), Duration::from_secs(86_400));
        s.people.refresh_lifetime = expire.max(Duration::from_secs(3600));
        s.people.robot_prefix = if json { "bot#".to_owned() } else { "robot$".to_owned() };
        s.people.issuers = match (json, refuse) {
            (true, true) => Some(vec![]),
            (true, false) => Some(vec!["https://ci.example".to_owned(), "https://eks.example/id/*".to_owned()]),
            _ => None,
        };
        s.people.allow_private_issuers = loopback;
        s.people.allow_loopback_issuers = private;
        if refuse {
            s.people.project_creation = ProjectCreation::Administrators;
            s.http.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        }
        s.uploads.expire_after = expire;
        s.uploads.max_manifest = manifest;
        s.uploads.max_open = open;
        s.upstreams.allow_private = private;
        s.upstreams.allow_loopback = loopback;
        s.upstreams.fresh_for = fresh;
        s.upstreams.missing_for = missing;
        s.upstreams.questions = open;
        s.upstreams.questions_per_minute = open;
        if let Some(ca) = &ca {
            s.signing.passphrase_file = json.then(|| ca.into());
            s.signing.seal_with = Some(if json { SealWith::Passphrase } else { SealWith::Hsm });
            s.signing.hsm = Hsm {
                module: Some(ca.into()),
                token: Some("our HSM: \"1\"".into()),
                key: Some("null".into()),
                previous_key: refuse.then(|| "0".into()),
                pin_file: Some(ca.into()),
            };
        }
        if let (Some(ca), true) = (&ca, private) {
            s.signing.kms = KmsKey {
                key: Some("arn:aws:kms:eu-west-1:111122223333:key/1".into()),
                region: Some("eu-west-1".into()),
                url: loopback.then(|| "http://127.0.0.1:8080".into()),
                credentials_file: Some(ca.into()),
            };
        }
        s.upstreams.ca = ca.map(Into::into);
        s.cache.budget = budget;
        s.cache.manifests = open.max(10);
        if let Some((access_age, alone_for, upstream_fallback)) = edge {
            s.role = Role::Edge;
            s.edge = Edge { access_age, alone_for, upstream_fallback };
        }
        let aliases = aliases.into_iter().map(|(registry, project)| (registry, project.parse().unwrap())).collect();
        s.mirrors = Mirrors { names, domain, default, aliases };
        s.deadlines.first_byte = first;
        s.deadlines.stall = stall;
        s.deadlines.source_stall = source_stall;
        s.deadlines.commit = commit;
        s.deadlines.replicate = replicate;
        s.links.caps = caps;
        s.links.congestion = if json { CongestionControl::Cubic } else { CongestionControl::Delivery };
        s.reads.without_lease = if refuse { StaleReads::Refuse } else { StaleReads::Serve };
        s.log.level = level;
        s.log.format = if json { LogFormat::Json } else { LogFormat::Human };
        s.drain = drain;
        s
    }
}

proptest! {
    #[test]
    fn what_is_rendered_reads_back(settings in any_settings()) {
        prop_assert_eq!(parse("node.yaml", &render(&settings)), Ok(settings));
    }

    #[test]
    fn no_text_stops_the_parser(text in any::<String>()) {
        let _ = parse("node.yaml", &text);
    }

    #[test]
    fn a_broken_line_never_stops_the_parser(line in 0_usize..240, junk in "[ -~]{0,12}") {
        let mut lines: Vec<&str> = REFERENCE.lines().collect();
        let line = line % lines.len();
        lines[line] = &junk;
        if let Err(mistakes) = parse("reference.yaml", &lines.join("\n")) {
            prop_assert!(!mistakes.0.is_empty());
        }
    }
}

#[test]
fn a_setting_of_an_earlier_build_is_accepted_and_said_to_have_no_effect() {
    let text = "data_dir: /d\nregion: r\nmesh: {advertise: 10.0.0.1:7946}\nledger: {snapshot_every: 5000}\n";
    let settings = config::parse("node.yaml", text).expect("it is accepted");
    assert_eq!(settings.retired.len(), 1);
    assert!(settings.retired[0].contains("ledger.snapshot_every"));
}
