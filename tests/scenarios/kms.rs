//! The projects' own keys are sealed under a key in AWS KMS, whose outage keeps nobody from anything
//! but signing.

use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::local_kms::{KEYS, LocalKms};
use tests::repository::create_project;
use tests::shop::{THREE, atoll, did, restart_signing, served, set};
use tests::wait;

/// Starts the node anew with these settings for signing.
fn restart(mesh: &Formed, signing: &str) {
    restart_signing(mesh, 0, signing, &[]);
}

/// Under which key-encryption key the project's key is sealed.
fn under(mesh: &Formed) -> String {
    let shown = mesh.client(0).get("/api/atoll/v1/projects/shop/signing");
    let shown: Value = shown.unwrap_or_else(|none| panic!("{none}")).json();
    shown["keys"][0]["sealed_under"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
}

fn signs(mesh: &Formed, tag: &str) {
    push(mesh, tag);
    wait::until_ok("it signs", || {
        let signed = atoll(mesh, 0, "sign", &[&format!("shop/web:{tag}")]);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });
    wait::until_ok("it is served", || served(mesh, 0, tag));
}

fn push(mesh: &Formed, tag: &str) {
    let pushed = mesh.repository(0, "shop/web").push(&Image::random(&[70]), tag);
    pushed.unwrap_or_else(|no| panic!("{no}"));
}

#[test]
fn keys_move_into_kms_and_back_and_an_outage_of_it_is_waited_for() {
    let mut kms = LocalKms::new();
    kms.start();
    let secrets = tempfile::TempDir::with_prefix("atoll-kms-").expect("a temporary folder");
    let file = secrets.path().join("passphrase");
    std::fs::write(&file, "a long passphrase of the operator\n").expect("a file");
    let passphrase = format!("passphrase_file: '{}'", file.display());
    let mesh = Formed::of(&THREE[..1], &format!("signing: {{{passphrase}}}\n"));
    create_project(&mesh.client(0), "shop", true, 1);
    set(&mesh, &json!({"signature_host": "registry.example", "signature_policy": "enforce"}));
    did(&atoll(&mesh, 0, "sign", &["key", "--project", "shop"]));
    signs(&mesh, "1");
    let by_passphrase = under(&mesh);
    let moved = |from: &str| {
        wait::until("the key is sealed anew", || {
            let now = under(&mesh);
            (now != from).then_some(now)
        })
    };

    restart(&mesh, &format!("{passphrase}, {}", kms.settings(KEYS[0])));
    let by_one = moved(&by_passphrase);
    restart(&mesh, &kms.settings(KEYS[0]));
    signs(&mesh, "2");

    // an outage
    kms.stop();
    push(&mesh, "3");
    wait::until_ok("it waits", || {
        let signed = atoll(&mesh, 0, "sign", &["shop/web:3"]);
        let waits = !signed.success && signed.err.contains("it waits as job");
        if waits { Ok(()) } else { Err(signed.out + &signed.err) }
    });
    let told = atoll(&mesh, 0, "status", &["--no-copies"]);
    let said = "This node cannot use a key-encryption key: signing.kms: ";
    assert!(told.success && told.out.contains(said), "{told:?}");
    for tag in ["1", "2"] {
        served(&mesh, 0, tag).unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    kms.start();
    wait::until_ok("the job is done", || served(&mesh, 0, "3"));

    // another key does not open it, and the passphrase is the same as before
    restart(&mesh, &kms.settings(KEYS[1]));
    wait::until_ok("the status tells", || {
        let told = atoll(&mesh, 0, "status", &["--no-copies"]);
        let closed = told.out.contains("cannot open the key that the project signs with");
        if closed { Ok(()) } else { Err(told.out) }
    });
    restart(&mesh, &format!("{passphrase}, seal_with: passphrase, {}", kms.settings(KEYS[0])));
    assert_eq!(moved(&by_one), by_passphrase);
    restart(&mesh, &passphrase);
    signs(&mesh, "4");
}
