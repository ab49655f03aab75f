//! Vulnerability databases: bolt files, of which the two heads are right and all else is not.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use scan::Database;

const PAGE: usize = 1024;

/// A folder of this process, with the file beside the database.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("atoll-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let metadata = r#"{"Version":2,"UpdatedAt":"2026-01-01T00:00:00Z","NextUpdate":"2026-01-02T00:00:00Z"}"#;
    std::fs::write(folder.join("metadata.json"), metadata).expect("it is written");
    folder
});

fn head(number: u64) -> Vec<u8> {
    let mut head = Vec::new();
    for word in [0xED0C_DAED_u32, 2, PAGE as u32, 0] {
        head.extend(word.to_le_bytes());
    }
    for word in [2, 0, 3, 99, number] {
        head.extend(word.to_le_bytes());
    }
    let sum = head.iter().fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    head.extend(sum.to_le_bytes());
    let mut page = [number.to_le_bytes().to_vec(), vec![4, 0, 0, 0, 0, 0, 0, 0], head].concat();
    page.resize(PAGE, 0);
    page
}

fuzz_target!(|bytes: &[u8]| {
    let mut file = [head(0), head(1)].concat();
    for (at, page) in bytes.chunks(PAGE).enumerate() {
        let mut page = page.to_vec();
        page.resize(PAGE, 0);
        // its own number, which each page begins with
        page[..8].copy_from_slice(&(at as u64 + 2).to_le_bytes());
        file.extend(page);
    }
    let path = FOLDER.join("trivy.db");
    std::fs::write(&path, file).expect("it is written");
    if let Ok(database) = Database::open(&path) {
        for package in ["openssl", "a", ""] {
            let _ = database.advisories("debian 12", package);
            let _ = database.of_ecosystem("npm", package);
            let _ = database.red_hat(package);
            let _ = database.products("repository", package);
            let _ = database.detail(package);
        }
    }
});
