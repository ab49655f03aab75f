//! Conditions and order of lists, as clients write them (`q`, `sort`).
#![no_main]

use std::cmp::Ordering;

use libfuzzer_sys::fuzz_target;
use rules::words::moment::Timestamp;
use rules::words::query::{Field, Kind, Query, Value, number, text};

const FIELDS: &[Field<Vec<String>>] = &[
    Field::new("name", Kind::Text, |all| text(all.first().map_or("", |one| one))),
    Field::new("id", Kind::Number, |all| number(all.len() as u64)),
    Field::new("time", Kind::Time, |all| Value::Time(Timestamp(all.len() as u64 * 1_000_000_000))),
    Field::new("flag", Kind::Flag, |all| Value::Flag(all.is_empty())),
    Field::new("tags", Kind::Several, |all| Value::Several(all.clone())),
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(written) = std::str::from_utf8(bytes) else { return };
    let (q, sort) = written.split_once('\n').unwrap_or((written, ""));
    let Ok(query) = Query::parse(q, sort) else { return };
    let Ok(selection) = query.about(FIELDS) else { return };
    let entry = vec![q.to_owned(), sort.to_owned()];
    let _ = selection.admits(&entry);
    assert_eq!(selection.order(&entry, &entry), Ordering::Equal);
});
