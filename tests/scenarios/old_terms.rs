//! A leader of the ledger that is killed and back at once never leads in its old term: what its
//! disk had not yet been given, others have promised.
//!
//! Nine writers, disks that take up to 80 ms for each `fsync`, and every two seconds a `kill -9` of
//! the leader, which is back within 0.3 s. If it led on in its old term, it would give entries of
//! its own the places of entries that its followers hold and have acknowledged, and the replicas
//! would differ from then on without noticing. So in the end every acknowledged write must be
//! there, all nodes must have the same tags at the same place of the log, and no term may have been
//! led by two processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use redb::{Database, TableDefinition};
use rustix::process::Signal;
use tests::disk::Disk;
use tests::formed::Formed;
use tests::image::Image;
use tests::member::Member;
use tests::mesh::Mesh;
use tests::{metrics, rounds, wait};

const REPOSITORY: &str = "demo/terms";

#[test]
fn a_leader_that_is_back_at_once_leads_in_another_term() {
    let disk = Disk::new(80);
    let mesh = Mesh::up_on(&disk, 3);
    let images: Vec<_> = (0..9).map(|_| Image::tiny()).collect();
    for image in &images {
        wait::until_ok("an image is pushed", || {
            mesh.repository(0, REPOSITORY).push(image, "first")
        });
    }
    let (over, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let mut terms = Terms::default();
    std::thread::scope(|beside| {
        let stop = StopOnDrop(&over);
        for (writer, image) in images.iter().enumerate() {
            let (mesh, over, acknowledged) = (&mesh, &over, &acknowledged);
            beside.spawn(move || {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let (at, tag) = ((writer + n) % 3, format!("w{writer}-{n}"));
                    if mesh.repository(at, REPOSITORY).put_manifest(&tag, image).is_ok() {
                        acknowledged.lock().expect("no writer panics").push((tag, writer));
                    } else {
                        std::thread::sleep(Duration::from_millis(20)); // the node may be dead
                    }
                }
            });
        }
        for _ in 0..rounds(6) {
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(1_500..2_500)));
            let leader = mesh.leader();
            mesh.kill(leader);
            terms.note(&mesh, leader);
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..300)));
            mesh.start(leader);
        }
        drop(stop);
    });
    for at in 0..3 {
        mesh.wait_ready(at);
        terms.note(&mesh, at);
    }
    let acknowledged = acknowledged.into_inner().expect("no writer panics");
    assert!(acknowledged.len() > 20, "only {} writes went through", acknowledged.len());
    // one node reads what the others must have: then none of them is far behind
    let applied = |at: usize| mesh.status(at).ok()?["ledger"]["applied"].as_u64();
    wait::until("all have applied the same", || {
        let all: BTreeSet<_> = (0..3).map(applied).collect();
        (all.len() == 1 && !all.contains(&None)).then_some(())
    });
    let tags: Vec<_> = (0..3).map(|at| tags(&mesh, at)).collect();
    for at in 0..3 {
        for (tag, writer) in &acknowledged {
            let found = tags[at].get(tag);
            assert_eq!(
                found.map(String::as_str),
                Some(images[*writer].digest()),
                "{tag} was acknowledged; {at} has that"
            );
        }
        let known: BTreeSet<_> = tags[0].keys().chain(tags[at].keys()).collect();
        let differ: Vec<_> =
            known.into_iter().filter(|tag| tags[0].get(*tag) != tags[at].get(*tag)).collect();
        assert!(differ.is_empty(), "0 and {at} differ for good: {differ:?}");
    }
    terms.check();
}

/// Every tag and its manifest, as a node has them itself.
fn tags(mesh: &Mesh, at: usize) -> BTreeMap<String, String> {
    let listed = mesh.client(at).get(&format!("/v2/{REPOSITORY}/tags/list?n=100000"));
    let listed = listed.unwrap_or_else(|none| panic!("{at} lists no tags: {none}"));
    assert!(listed.status == 200 && !listed.may_be_stale(), "{at} lists: {listed}");
    let named = listed.json()["tags"].as_array().cloned().unwrap_or_default();
    let named = named.iter().filter_map(|tag| tag.as_str().map(str::to_owned));
    named
        .map(|tag| {
            let found = mesh
                .repository(at, REPOSITORY)
                .resolve(&tag)
                .unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
            (tag, found.digest)
        })
        .collect()
}

/// Which node led in which term, according to the nodes.
#[derive(Default)]
struct Terms {
    /// How much of a node's log has been read.
    read: BTreeMap<usize, usize>,
    /// The processes that led in a term: a node, and how many of its bytes were said before it
    /// began.
    led: BTreeMap<u64, BTreeSet<(usize, usize)>>,
}

impl Terms {
    /// Reads what the process said that has just ended, or runs to the end.
    fn note(&mut self, mesh: &Mesh, at: usize) {
        let words = mesh.words(at);
        let from = self.read.insert(at, words.len()).unwrap_or(0);
        for line in words[from..].lines().filter(|line| line.contains("this node leads the ledger"))
        {
            let (_, rest) = line
                .split_once("term=")
                .unwrap_or_else(|| panic!("a leader that names no term: {line}"));
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let term =
                number.parse().unwrap_or_else(|_| panic!("a leader that names no term: {line}"));
            self.led.entry(term).or_default().insert((at, from));
        }
    }

    fn check(&self) {
        assert!(self.led.len() > 1, "nobody ever took over: {:?}", self.led);
        let twice: Vec<_> = self.led.iter().filter(|(_, by)| by.len() > 1).collect();
        assert!(
            twice.is_empty(),
            "terms that were led by two processes (node, byte of its log): {twice:?}"
        );
    }
}

/// Lets the writers end also when a round has failed; else the scope would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replicas that a fault has made differ find out by themselves. The fault is made by hand, as an
/// earlier build could have left it: a record is taken out of a stopped node's ledger.
#[test]
fn replicas_whose_records_differ_find_out_and_agree_again() {
    let sites = [("one", "a"), ("two", "b"), ("three", "c")];
    let mesh = Formed::of(&sites, "");
    let image = Image::tiny();
    let tags = ["first", "second", "third"];
    for tag in tags {
        mesh.repository(0, REPOSITORY).push(&image, tag).unwrap_or_else(|no| panic!("{no}"));
    }

    // one of three: it takes what the others have
    let odd = &mesh.members()[2];
    odd.stop(Signal::TERM);
    forget_tag(&odd.data(), "second");
    odd.serve();
    odd.wait_ready();
    wait::until("the odd one has noticed", || {
        (metrics::value(&mesh.client(2), "atoll_ledger_differed_total") > 0).then_some(())
    });
    wait::until_ok("the odd one has the tag again", || {
        mesh.repository(2, REPOSITORY).resolve("second").map(|_| ())
    });
    mesh.agree();

    // all three differ, so no majority says what is right: they agree all the same
    mesh.members().iter().for_each(|member| {
        member.stop(Signal::TERM);
    });
    forget_tag(&mesh.members()[0].data(), "first");
    forget_tag(&mesh.members()[1].data(), "second");
    mesh.members().iter().for_each(Member::serve);
    mesh.members().iter().for_each(Member::wait_ready);
    mesh.agree();
    for tag in tags {
        let at = |at: usize| mesh.repository(at, REPOSITORY).resolve(tag).is_ok();
        assert_eq!([at(1), at(2)], [at(0); 2], "{tag}");
    }
    // and a write goes through as ever
    mesh.repository(1, REPOSITORY).push(&image, "fourth").unwrap_or_else(|no| panic!("{no}"));
}

/// Takes a tag out of the ledger of a node that is stopped.
fn forget_tag(data: &Path, tag: &str) {
    const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state-1");
    const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta-1");
    let file = data.join("ledger/ledger.redb");
    let database = Database::open(&file).unwrap_or_else(|no| panic!("{}: {no}", file.display()));
    let write = database.begin_write().expect("a transaction");
    let key = format!("t{REPOSITORY}\0{tag}");
    let gone = write
        .open_table(STATE)
        .map(|mut table| table.remove(key.as_bytes()).expect("a record").is_some());
    assert!(gone.expect("the records"), "{tag} was there");
    // builds before did not keep it
    write.open_table(META).expect("the meta table").remove("fingerprint").expect("a record");
    write.commit().expect("a commit");
}
