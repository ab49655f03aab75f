//! The projects' own keys are sealed under a key in a hardware security module, and one that is away,
//! hangs or is lost keeps nobody from anything but signing.

use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::mesh::primary;
use tests::repository::create_project;
use tests::shop::{THREE, atoll, did, restart_signing, served, set};
use tests::softhsm::Modules;
use tests::wait;

/// Starts a member anew with these settings for signing, and its module.
fn restart(mesh: &Formed, modules: &Modules, at: usize, signing: &str) {
    restart_signing(mesh, at, signing, &modules.environment(at));
}

fn signing(mesh: &Formed, at: usize) -> Value {
    let shown = mesh.client(at).get("/api/atoll/v1/projects/shop/signing");
    shown.unwrap_or_else(|none| panic!("{none}")).json()
}

/// Under which key-encryption key the project's newest key is sealed.
fn under(mesh: &Formed, at: usize) -> String {
    let shown = signing(mesh, at);
    let keys = shown["keys"].as_array().expect("keys");
    let under = keys.last().and_then(|key| key["sealed_under"].as_str());
    under.unwrap_or_else(|| panic!("{shown}")).to_owned()
}

fn wait_signed(mesh: &Formed, at: usize, tag: &str) {
    wait::until_ok("it signs", || {
        let signed = atoll(mesh, at, "sign", &[&format!("shop/web:{tag}")]);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });
    wait::until_ok("it is served", || served(mesh, at, tag));
}

/// Pushes another image, as soon as somebody takes it.
fn push(mesh: &Formed, at: usize, tag: &str) {
    let image = Image::random(&[70]);
    wait::until_ok("it is pushed", || {
        mesh.repository(at, "shop/web").push(&image, tag).map_err(|no| no.to_string())
    });
}

fn wait_status(mesh: &Formed, at: usize, what: &str) {
    wait::until_ok("the status tells", || {
        let told = atoll(mesh, at, "status", &["--no-copies"]);
        if told.success && told.out.contains(what) { Ok(()) } else { Err(told.out + &told.err) }
    });
}

fn policy() -> Value {
    json!({"signature_host": "registry.example", "signature_policy": "enforce"})
}

#[test]
fn keys_move_from_the_passphrase_to_the_module_to_another_key_and_back() {
    let modules = Modules::new(1, &["one", "two", "three"]);
    let secrets = tempfile::TempDir::with_prefix("atoll-hsm-").expect("a temporary folder");
    let file = secrets.path().join("passphrase");
    std::fs::write(&file, "a long passphrase of the operator\n").expect("a file");
    let passphrase = format!("passphrase_file: '{}'", file.display());
    let mesh = Formed::of(&THREE[..1], &format!("signing: {{{passphrase}}}\n"));
    create_project(&mesh.client(0), "shop", true, 1);
    set(&mesh, &policy());
    did(&atoll(&mesh, 0, "sign", &["key", "--project", "shop"]));
    did(&atoll(&mesh, 0, "sign", &["notation", "--project", "shop"]));
    push(&mesh, 0, "1");
    wait_signed(&mesh, 0, "1");
    let by_passphrase = under(&mesh, 0);
    let moved = |from: &str| {
        wait::until("the key is sealed anew", || {
            let now = under(&mesh, 0);
            (now != from).then_some(now)
        })
    };
    let signs = |tag: &str| {
        push(&mesh, 0, tag);
        wait_signed(&mesh, 0, tag);
    };

    // to the module; the passphrase is not needed any more
    restart(&mesh, &modules, 0, &format!("{passphrase}, {}", modules.hsm("one", None)));
    let by_one = moved(&by_passphrase);
    restart(&mesh, &modules, 0, &modules.hsm("one", None));
    signs("2");
    assert_eq!(under(&mesh, 0), by_one);

    // to another key of the module
    restart(&mesh, &modules, 0, &modules.hsm("two", Some("one")));
    let by_two = moved(&by_one);
    restart(&mesh, &modules, 0, &modules.hsm("two", None));
    signs("3");

    // back to the passphrase, whose name is the same as before
    let both = format!("{passphrase}, seal_with: passphrase, {}", modules.hsm("two", None));
    restart(&mesh, &modules, 0, &both);
    assert_eq!(moved(&by_two), by_passphrase);
    restart(&mesh, &modules, 0, &passphrase);
    signs("4");

    // and a key that is lost: what was signed counts, and another key of the project signs
    restart(&mesh, &modules, 0, &format!("{passphrase}, {}", modules.hsm("one", None)));
    assert_eq!(moved(&by_passphrase), by_one);
    restart(&mesh, &modules, 0, &modules.hsm("three", None));
    wait_status(&mesh, 0, "cannot open the key that the project signs with");
    for tag in ["1", "2", "3", "4"] {
        wait::until_ok("it is served", || served(&mesh, 0, tag));
    }
    wait::until_ok("another key is made", || {
        let made = atoll(&mesh, 0, "sign", &["key", "--project", "shop", "--rotate"]);
        if made.success { Ok(()) } else { Err(made.err) }
    });
    signs("5");
    let by_three = under(&mesh, 0);
    for other in [&by_passphrase, &by_one, &by_two] {
        assert_ne!(&by_three, other);
    }
}

#[test]
fn a_module_that_is_away_moves_the_primary_and_one_that_hangs_keeps_nobody_from_pulling() {
    let modules = Modules::new(3, &["one"]);
    let mesh = Formed::of(&THREE, "failover: {return_after: 2s}\n");
    create_project(&mesh.client(0), "shop", true, 2);
    set(&mesh, &policy());
    for at in 0..3 {
        restart(&mesh, &modules, at, &modules.hsm("one", None));
    }
    wait::until_ok("the key is made", || {
        let made = atoll(&mesh, 0, "sign", &["key", "--project", "shop"]);
        if made.success || made.err.contains("--rotate") { Ok(()) } else { Err(made.err) }
    });
    push(&mesh, 0, "1");
    wait_signed(&mesh, 0, "1");
    let primary_of = |asked: usize| {
        let status = mesh.status(asked)?;
        let name = primary(&status, "shop").ok_or("no primary")?;
        THREE.iter().position(|(one, _)| *one == name).ok_or(name)
    };
    let home = primary_of(0).unwrap_or_else(|no| panic!("{no}"));
    let other = (home + 1) % 3;

    // its token is away: another one signs, and it signs again when the token is back
    modules.take(home, true);
    wait_status(&mesh, home, "This node cannot use a key-encryption key: signing.hsm.token");
    wait::until_ok("another one is the primary", || match primary_of(other)? {
        now if now != home => Ok(()),
        _ => Err("it is the same one".to_owned()),
    });
    push(&mesh, other, "2");
    wait_signed(&mesh, other, "2");
    modules.take(home, false);
    wait::until_ok("it comes home", || match primary_of(other)? {
        now if now == home => Ok(()),
        now => Err(format!("{now}")),
    });
    push(&mesh, other, "3");
    wait_signed(&mesh, home, "3");

    // none answers: everything but signing goes on, and what waits is signed afterwards
    modules.hang(true);
    for at in 0..3 {
        wait_status(&mesh, at, "the module has not answered for 5 s");
    }
    push(&mesh, other, "4");
    for at in 0..3 {
        for tag in ["1", "2", "3"] {
            served(&mesh, at, tag).unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
        }
    }
    let signed = atoll(&mesh, other, "sign", &["shop/web:4"]);
    assert!(!signed.success && signed.err.contains("it waits as job"), "{signed:?}");
    modules.hang(false);
    wait::until_ok("the job is done", || served(&mesh, other, "4"));
}
