//! A token of SoftHSM's: what a key wraps opens only for its place, and what is wrong is said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hsm::{Fault, Key, LOOK, Place, Token};

/// Where SoftHSM's settings are: its library reads them once for each process.
const SETTINGS: &str = "SOFTHSM2_CONF";
const PIN: &str = "123456";

/// Debian's library; others have it elsewhere.
fn module() -> PathBuf {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ];
    let found = places.iter().map(PathBuf::from).find(|file| file.is_file());
    found.expect("SoftHSM is missing: apt-get install softhsm2 opensc, or run tests/run")
}

fn run(program: &str, arguments: &[&str]) {
    let ran = Command::new(program).args(arguments).output();
    let ran = ran.unwrap_or_else(|error| {
        panic!("{program}: {error}: apt-get install softhsm2 opensc, or run tests/run")
    });
    assert!(ran.status.success(), "{program} {arguments:?}: {ran:?}");
}

fn make_token(label: &str) {
    run(
        "softhsm2-util",
        &["--init-token", "--free", "--label", label, "--so-pin", "87654321", "--pin", PIN],
    );
}

fn make_key(token: &str, label: &str) {
    let module = module().display().to_string();
    run(
        "pkcs11-tool",
        &[
            "--module",
            &module,
            "--token-label",
            token,
            "--login",
            "--pin",
            PIN,
            "--keygen",
            "--key-type",
            "AES:32",
            "--label",
            label,
            "--sensitive",
        ],
    );
}

/// Plays this test once more in a process of its own, with settings of its own.
fn apart(test: &str, play: impl FnOnce(&Path)) {
    if let Some(settings) = std::env::var_os(SETTINGS) {
        return play(Path::new(&settings).parent().expect("a folder"));
    }
    module();
    let folder = tempfile::TempDir::with_prefix("softhsm-").expect("a temporary folder");
    let (settings, tokens) = (folder.path().join("settings"), folder.path().join("tokens"));
    std::fs::create_dir(&tokens).expect("a folder");
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
    std::fs::write(&settings, text).expect("a file");
    std::fs::write(folder.path().join("pin"), PIN).expect("a file");
    let this = std::env::current_exe().expect("this program");
    let mut again = Command::new(this);
    let ran = again.args(["--exact", test, "--nocapture"]).env(SETTINGS, settings).output();
    let ran = ran.expect("this program runs");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn place(folder: &Path, token: &str) -> Place {
    Place { module: module(), token: token.into(), pin_file: folder.join("pin") }
}

fn open(place: Place, labels: &[&str]) -> Vec<Key> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Token::open(place, labels).expect("a thread")
}

/// Waits for a look that says what is wanted.
fn wait(what: &str, is_it: impl Fn() -> bool) {
    for _ in 0..(20 * 4 * LOOK.as_secs()) {
        if is_it() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}");
}

#[test]
fn what_a_key_wraps_opens_with_it_alone_and_for_its_place_alone() {
    apart("what_a_key_wraps_opens_with_it_alone_and_for_its_place_alone", |folder| {
        make_token("mine");
        make_key("mine", "one");
        make_key("mine", "two");
        let keys = open(place(folder, "mine"), &["one", "two"]);
        let (one, two) = (&keys[0], &keys[1]);
        wait("both are found", || one.sample().is_ok() && two.sample().is_ok());
        assert_ne!(one.sample(), two.sample());

        let wrapped = one.wrap(b"a private key", b"mesh|7|1").expect("wrapped");
        assert!(!wrapped.windows(7).any(|part| part == b"private"), "{wrapped:?}");
        assert_ne!(wrapped, one.wrap(b"a private key", b"mesh|7|1").expect("wrapped"));
        let opened = one.unwrap(&wrapped, b"mesh|7|1").expect("it opens");
        assert_eq!(&opened[..], b"a private key");
        for (key, binding) in [(one, &b"mesh|8|1"[..]), (one, b"mesh|7|2"), (two, b"mesh|7|1")] {
            assert_eq!(key.unwrap(&wrapped, binding).err(), Some(Fault::Closed));
        }
        for at in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[at] ^= 1;
            assert_eq!(one.unwrap(&damaged, b"mesh|7|1").err(), Some(Fault::Closed), "{at}");
        }
        for length in [0, 11, 12, 20] {
            assert_eq!(one.unwrap(&wrapped[..length], b"mesh|7|1").err(), Some(Fault::Closed));
        }
        // and it goes on
        assert!(one.unwrap(&wrapped, b"mesh|7|1").is_ok() && one.sample().is_ok());
    });
}

#[test]
fn what_lacks_is_named_and_found_when_it_comes() {
    apart("what_lacks_is_named_and_found_when_it_comes", |folder| {
        let nowhere = Place { module: "/nowhere/module.so".into(), ..place(folder, "mine") };
        let key = &open(nowhere, &["one"])[0];
        wait(
            "no library",
            || matches!(key.sample(), Err(Fault::Module(why)) if why.contains("/nowhere/module.so")),
        );
        assert!(matches!(key.wrap(b"x", b"y"), Err(Fault::Module(_))));

        let keys = open(place(folder, "mine"), &["one", "two"]);
        let says = |key: &Key, fault: &Fault| key.sample().as_ref() == Err(fault);
        let no_token = Fault::Token("there is no token mine".into());
        wait("no token", || keys.iter().all(|key| says(key, &no_token)));
        assert_eq!(keys[0].wrap(b"x", b"y"), Err(no_token));
        make_token("mine");
        make_key("mine", "two");
        let no_key = Fault::Key("the token mine has no AES key one".into());
        wait("no key", || says(&keys[0], &no_key) && keys[1].sample().is_ok());
        make_key("mine", "one");
        wait("the key came", || keys[0].sample().is_ok());
        make_key("mine", "two");
        let several = Fault::Key("the token mine has several AES keys two".into());
        wait("another one came", || says(&keys[1], &several));
    });
}

/// Tokens count wrong PINs and close themselves.
#[test]
fn a_pin_that_was_refused_is_shown_once() {
    apart("a_pin_that_was_refused_is_shown_once", |folder| {
        make_token("mine");
        make_key("mine", "one");
        std::fs::write(folder.join("pin"), "wrong1").expect("a file");
        let key = &open(place(folder, "mine"), &["one"])[0];
        wait(
            "it is refused and not shown again",
            || matches!(key.sample(), Err(Fault::Pin(why)) if why.contains("until the file changes")),
        );
        std::fs::write(folder.join("pin"), format!("{PIN}\n")).expect("a file");
        wait("another one is", || key.sample().is_ok());
        std::fs::remove_file(folder.join("pin")).expect("a file");
        assert!(key.wrap(b"x", b"y").is_ok(), "it is logged in");
    });
}
