//! Databases: of the sqlite3 program where they are read, and put together byte by byte.

use proptest::prelude::*;

use super::*;

/// A tag with its texts, or its numbers.
type Given<'a> = (u32, Result<Vec<&'a str>, Vec<u32>>);

/// A head with these tags.
fn head(tags: &[Given<'_>]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, value) in tags {
        while data.len() % 4 != 0 {
            data.push(0);
        }
        let (kind, count) = match value {
            Ok(texts) if texts.len() == 1 => (6_u32, 1),
            Ok(texts) => (8, texts.len()),
            Err(numbers) => (4, numbers.len()),
        };
        for number in [*tag, kind, data.len() as u32, count as u32] {
            index.extend(number.to_be_bytes());
        }
        match value {
            Ok(texts) => texts.iter().for_each(|text| {
                data.extend(text.as_bytes());
                data.push(0);
            }),
            Err(numbers) => numbers.iter().for_each(|number| data.extend(number.to_be_bytes())),
        }
    }
    let mut head = (tags.len() as u32).to_be_bytes().to_vec();
    head.extend((data.len() as u32).to_be_bytes());
    head.extend(index);
    head.extend(data);
    head
}

fn openssl() -> Vec<u8> {
    head(&[
        (header::NAME, Ok(vec!["openssl-libs"])),
        (header::VERSION, Ok(vec!["3.0.7"])),
        (header::RELEASE, Ok(vec!["18.el9_2"])),
        (header::EPOCH, Err(vec![1])),
        (header::ARCH, Ok(vec!["x86_64"])),
        (header::VENDOR, Ok(vec!["Rocky Enterprise Software Foundation"])),
        (header::SOURCE, Ok(vec!["openssl-3.0.7-18.el9_2.src.rpm"])),
        (header::LICENCE, Ok(vec!["ASL 2.0"])),
        (header::MODULE, Ok(vec!["nodejs:12:8030020201124152102:229f0a1c"])),
        (header::FOLDER_OF, Err(vec![0, 1])),
        (header::FILES, Ok(vec!["tool", "package.json"])),
        (header::FOLDERS, Ok(vec!["/usr/bin/", "/usr/lib/node_modules/npm/"])),
    ])
}

fn vim() -> Vec<u8> {
    head(&[
        (header::NAME, Ok(vec!["vim"])),
        (header::VERSION, Ok(vec!["9"])),
        (header::VENDOR, Ok(vec!["Somebody"])),
    ])
}

fn ndb(heads: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0; 4096];
    file[..4].copy_from_slice(b"RpmP");
    file[12..16].copy_from_slice(&1_u32.to_le_bytes());
    for slot in file[32..].chunks_exact_mut(16) {
        slot[..4].copy_from_slice(b"Slot");
    }
    for (at, head) in heads.iter().enumerate() {
        let (slot, id, block) = (32 + 16 * at, at as u32 + 1, (file.len() / 16) as u32);
        file[slot + 4..slot + 8].copy_from_slice(&id.to_le_bytes());
        file[slot + 8..slot + 12].copy_from_slice(&block.to_le_bytes());
        file.extend(b"BlbS");
        for number in [id, 0, head.len() as u32] {
            file.extend(number.to_le_bytes());
        }
        file.extend(head);
        file.resize(file.len().next_multiple_of(16), 0);
    }
    file
}

/// A Berkeley DB as libdb writes it: a head, one page with the entries, and chains of pages.
fn berkeley(heads: &[Vec<u8>]) -> Vec<u8> {
    const PAGE: usize = 512;
    let mut chains: Vec<Vec<u8>> = Vec::new();
    let mut hash = vec![0; PAGE];
    hash[25] = 13;
    hash[20..22].copy_from_slice(&(2 * heads.len() as u16).to_le_bytes());
    for (at, head) in heads.iter().enumerate() {
        let (key, value) = (PAGE - 32 * (at + 1), PAGE - 32 * (at + 1) + 8);
        hash[26 + 4 * at..28 + 4 * at].copy_from_slice(&(key as u16).to_le_bytes());
        hash[28 + 4 * at..30 + 4 * at].copy_from_slice(&(value as u16).to_le_bytes());
        hash[key] = 1;
        hash[value] = 3;
        let first = chains.len() as u32 + 2;
        hash[value + 4..value + 8].copy_from_slice(&first.to_le_bytes());
        hash[value + 8..value + 12].copy_from_slice(&(head.len() as u32).to_le_bytes());
        let parts: Vec<_> = head.chunks(PAGE - 26).collect();
        for (part_at, part) in parts.iter().enumerate() {
            let mut page = vec![0; PAGE];
            page[25] = 7;
            let next = if part_at + 1 < parts.len() { chains.len() as u32 + 3 } else { 0 };
            page[16..20].copy_from_slice(&next.to_le_bytes());
            page[26..26 + part.len()].copy_from_slice(part);
            chains.push(page);
        }
    }
    let mut meta = vec![0; PAGE];
    meta[12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
    meta[20..24].copy_from_slice(&(PAGE as u32).to_le_bytes());
    meta[25] = 8;
    meta[32..36].copy_from_slice(&(chains.len() as u32 + 1).to_le_bytes());
    [meta, hash, chains.concat()].concat()
}

#[test]
fn packages_are_read_with_sources_and_files() {
    let listing = read(Format::Ndb, &ndb(&[openssl(), vim()])).expect("a database");
    let older = read(Format::BerkeleyDb, &berkeley(&[openssl(), vim()]));
    assert_eq!(older.expect("a database"), listing);
    let one = &listing.packages[0];
    assert_eq!((&*one.name, &*one.version), ("openssl-libs", "1:3.0.7-18.el9_2"));
    let source = one.source.as_ref().expect("a source");
    assert_eq!((&*source.name, &*source.version), ("openssl", "1:3.0.7-18.el9_2"));
    assert_eq!(one.module, "nodejs:12:8030020201124152102:229f0a1c");
    assert_eq!(one.licenses, ["ASL 2.0"]);
    assert_eq!(listing.owned, ["usr/bin/tool", "usr/lib/node_modules/npm/package.json"]);
    let third: Vec<_> = listing.packages.iter().map(|one| one.third_party).collect();
    assert_eq!(third, [false, true]);
}

/// SQLite's files are made by Python's own module, which each of our machines has.
fn sqlite(heads: &[Vec<u8>]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rpmdb.sqlite");
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute('CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')\n\
        db.execute('CREATE INDEX Other ON Packages(hnum)')\n\
        db.executemany('INSERT INTO Packages(blob) VALUES (?)', [(bytes.fromhex(one),) for one in sys.stdin.read().split()])\n\
        db.commit()\n";
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("python3 is installed (apt install python3)");
    let input: String = heads
        .iter()
        .map(|head| head.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    let mut pipe = python.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut pipe, input.as_bytes()).expect("it reads");
    drop(pipe);
    assert!(python.wait().expect("it ends").success());
    std::fs::read(file).expect("it wrote a file")
}

#[test]
fn a_database_of_sqlite_is_read_with_rows_of_all_sizes() {
    let mut heads = vec![openssl(), vim()];
    for number in 0..600 {
        let (name, licence) = (format!("p{number}"), "x".repeat(number * 37));
        heads.push(head(&[
            (header::NAME, Ok(vec![&name])),
            (header::VERSION, Ok(vec!["1"])),
            (header::LICENCE, Ok(vec![&licence])),
        ]));
    }
    let file = sqlite(&heads);
    let listing = read(Format::Sqlite, &file).expect("a database");
    assert_eq!(listing.packages.len(), heads.len());
    assert_eq!(listing.packages[0].name, "openssl-libs");
    assert_eq!(listing.packages[601].licenses[0].len(), 599 * 37);
    assert!(read(Format::Sqlite, &file[..file.len() / 2]).is_err());
    assert!(read(Format::Sqlite, b"").is_err());
    // each page's first child is the page itself
    let mut circle = file.clone();
    for (at, page) in circle.chunks_exact_mut(4096).enumerate() {
        let head = if at == 0 { 100 } else { 0 };
        if page[head] == 5 {
            page[head + 8..head + 12].copy_from_slice(&(at as u32 + 1).to_be_bytes());
        }
    }
    assert!(read(Format::Sqlite, &circle).is_err());
}

proptest! {
    #[test]
    fn damaged_databases_end(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        cut in any::<prop::sample::Index>(),
    ) {
        static SQLITE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            sqlite(&[openssl(), vim(), vec![7; 9000], openssl()])
        });
        for (format, whole) in [
            (Format::Sqlite, SQLITE.clone()),
            (Format::Ndb, ndb(&[openssl(), vim()])),
            (Format::BerkeleyDb, berkeley(&[openssl(), vim(), vec![7; 3000]])),
        ] {
            let mut file = whole;
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            file.truncate(cut.index(file.len()) + 1);
            let _ = read(format, &file);
        }
    }
}
