use proptest::prelude::*;

use super::*;

struct Entry {
    name: &'static str,
    id: u64,
    made: Timestamp,
    public: bool,
    tags: Vec<String>,
}

const FIELDS: &[Field<Entry>] = &[
    Field::new("name", Kind::Text, |one| text(one.name)),
    Field::new("project_id", Kind::Number, |one| number(one.id)),
    Field::new("creation_time", Kind::Time, |one| Value::Time(one.made)),
    Field::new("public", Kind::Flag, |one| Value::Flag(one.public)),
    Field::new("tags", Kind::Several, |one| Value::Several(one.tags.clone())),
];

fn entry() -> Entry {
    Entry {
        name: "Alpha",
        id: 12,
        made: Timestamp(1_709_210_096_000), // 2024-02-29T12:34:56Z
        public: true,
        tags: vec!["1".into(), "1.2".into()],
    }
}

fn admits(q: &str) -> bool {
    let query = Query::parse(q, "").unwrap_or_else(|e| panic!("{q}: {e}"));
    query.about(FIELDS).unwrap_or_else(|e| panic!("{q}: {e}")).admits(&entry())
}

#[test]
fn each_form_of_a_condition_means_what_harbor_says() {
    for (q, expected) in [
        ("", true),
        (" ", true),
        ("name=Alpha", true),
        ("name=alpha", false),
        ("Name=Alph", false),
        ("name=~LPH", true),
        ("name=~x", false),
        ("name={Beta Alpha}", true),
        ("name={Beta  'Gamma'}", false),
        ("name=(Alpha)", true),
        ("name=(Alpha Beta)", false),
        ("name=[A~B]", true),
        ("name=[B~]", false),
        ("name=\\Alpha", true),
        ("ProjectID=12", true),
        ("project_id=012", true),
        ("projectid=[9~100]", true),
        ("project_id=[13~]", false),
        ("project_id=[~12]", true),
        ("project_id={1 12}", true),
        ("public=true,name=~a", true),
        ("public=0", false),
        ("creation_time=2024-02-29", true),
        ("creation_time=[2024-02-29~2024-02-29]", true),
        ("creation_time=[2024-02-29 12:34:57~]", false),
        ("creation_time=[~2024-02-28]", false),
        ("creation_time=[2024~2024-03]", true),
        ("tags=1", true),
        ("tags=(1 1.2)", true),
        ("tags=(1 2)", false),
        ("tags={2 1.2}", true),
        ("tags=~.2", true),
        ("tags=*", true),
        ("tags=nil", false),
        // the last one counts
        ("name=x,name=Alpha", true),
    ] {
        assert_eq!(admits(q), expected, "{q}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_reason() {
    for (q, sort, word) in [
        ("name", "", "'name'"),
        ("=x", "", "'=x'"),
        ("name=", "", "'name='"),
        ("name=x,", "", "''"),
        ("name=~", "", "'name=~'"),
        ("name=[a]", "", "[a]"),
        ("name=[~]", "", "[~]"),
        ("name=[a~b", "", "[a~b"),
        ("name=(a", "", "(a"),
        ("name={}", "", "{}"),
        ("shoe=9", "", "project_id"),
        ("project_id=x", "", "whole number"),
        ("public=yes", "", "true or false"),
        ("creation_time=[yesterday~]", "", "a time"),
        ("creation_time=2", "", "a time"),
        ("tags=[1~2]", "", "no range"),
        ("", "shoe", "there are name"),
        ("", "name,", "between two commas"),
        ("", "-", "between two commas"),
        ("", "tags", "no order"),
    ] {
        let found = Query::parse(q, sort).and_then(|query| query.about(FIELDS).map(|_| ()));
        let error = found.expect_err(q).to_string();
        assert!(error.contains(word), "q={q} sort={sort}: {error}");
    }
}

#[test]
fn several_fields_sort_one_after_the_other_and_equal_entries_stay() {
    let all = [("b", 1), ("a", 2), ("b", 3), ("a", 10)];
    let sorted = |sort: &str| {
        let query = Query::parse("", sort).unwrap();
        let selection = query.about(FIELDS).unwrap();
        let mut entries: Vec<Entry> =
            all.iter().map(|(name, id)| Entry { name, id: *id, ..entry() }).collect();
        entries.sort_by(|one, other| selection.order(one, other));
        entries.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(sorted(""), [1, 2, 3, 10]);
    assert_eq!(sorted("-project_id"), [10, 3, 2, 1]);
    assert_eq!(sorted("name"), [2, 10, 1, 3]);
    assert_eq!(sorted("-name,-ProjectID"), [3, 1, 10, 2]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(q in "\\PC{0,60}", sort in "\\PC{0,30}") {
        if let Ok(query) = Query::parse(&q, &sort)
            && let Ok(selection) = query.about(FIELDS)
        {
            let _ = selection.admits(&entry());
            prop_assert_eq!(selection.order(&entry(), &entry()), Ordering::Equal);
        }
    }

    #[test]
    fn conditions_are_read_as_they_were_written(
        values in prop::collection::vec("[a-z0-9.-]{1,8}", 1..4),
        key in "[a-z]{1,6}",
    ) {
        let listed = values.join(" ");
        let one = &values[0];
        for (text, wanted) in [
            (one.clone(), Wanted::Is(one.clone())),
            (format!("~{one}"), Wanted::Has(one.clone())),
            (format!("[{one}~]"), Wanted::Between(Some(one.clone()), None)),
            (format!("{{{listed}}}"), Wanted::Any(values.clone())),
            (format!("({listed})"), Wanted::All(values.clone())),
        ] {
            let query = Query::parse(&format!("{key}={text}"), &key).unwrap();
            prop_assert_eq!(query.conditions, vec![(key.clone(), wanted)]);
            prop_assert_eq!(query.sort, vec![(key.clone(), false)]);
        }
    }
}
