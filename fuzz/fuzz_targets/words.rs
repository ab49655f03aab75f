//! What clients write: names, references, digests, networks, platforms of schedules, patterns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::ledger::jobs::cron::Cron;
use rules::proxies::proxy::patterns;
use rules::words::digest::Digest;
use rules::words::names::{NodeName, ProjectName, Reference, Region, RepositoryName};
use rules::words::network::Network;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.starts_with(name.project().as_str()));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    let _ = (text.parse::<ProjectName>(), text.parse::<Reference>(), text.parse::<NodeName>());
    let _ = (text.parse::<Region>(), text.parse::<Network>(), text.parse::<Cron>(), patterns(text));
});
