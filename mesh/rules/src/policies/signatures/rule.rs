//! What the mesh signs by itself: by a project's rule, and again after its key was replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Anchor, AnchorId, By, Format, MESH, Mode, Policy, Seen, SignatureRecord, Signer, State,
    metadata,
};
use crate::policies::selectors::Pattern;
use crate::words::fallback::Fallback;
use crate::words::names::Tag;

/// A project's rule: which tags the mesh signs without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    tags: Pattern,
}

impl Rule {
    /// The rule in a project's metadata; `None` if the mesh signs only what somebody asks for. What
    /// cannot be read is none: it is refused when it is written.
    pub fn of(entries: &BTreeMap<String, String>) -> Option<Self> {
        let written = entries.get(metadata::AUTO)?;
        Pattern::new(written).ok().map(|tags| Rule { tags })
    }

    /// Whether it is about this tag. Tags of signatures and of lists of referrers are never signed.
    pub fn covers(&self, tag: &Tag) -> bool {
        Fallback::of(tag).is_none() && self.tags.matches(tag.as_str())
    }
}

/// What a project signs with now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its key.
    pub key: AnchorId,
    /// The authority of its certificates, if it signs for notation, too.
    pub authority: Option<AnchorId>,
}

impl Own {
    /// The one of these signers that is the mesh's own and signs now; `None` if there is none.
    pub fn of(signers: &[Signer]) -> Option<Self> {
        let active = || signers.iter().filter(|one| one.logged && one.state == State::Active);
        let key = active().find_map(|one| match &one.anchor {
            Anchor::Key { id, .. } => Some(*id),
            _ => None,
        })?;
        let authority = active().find_map(|one| match &one.anchor {
            Anchor::Authority { ids, .. } => ids.first().copied(),
            _ => None,
        });
        Some(Own { key, authority })
    }
}

/// The signatures that count as the mesh's own: without a fault, and in its log.
fn logged(record: &SignatureRecord) -> impl Iterator<Item = &Seen> {
    let all = record.evidence.iter().flat_map(|one| &one.signatures);
    all.filter(|seen| seen.logged.is_some() && seen.signature.fault.is_none())
}

/// What an image lacks of the forms in which it shall be signed under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Both of cosign's forms.
    pub cosign: bool,
    /// An envelope of notation.
    pub notation: bool,
}

/// The names of entries of the sign log by a project's present key, by their numbers.
pub type Named = BTreeMap<u64, String>;

/// The numbers of these entries, as far as a record says by what they are.
fn entries(record: &SignatureRecord, of: impl Fn(&Seen) -> bool) -> BTreeSet<u64> {
    logged(record).filter(|seen| of(seen)).filter_map(|seen| seen.logged).collect()
}

fn is_by_key(seen: &Seen, own: &Own, format: Format) -> bool {
    seen.signature.format == format && seen.signature.by == By::Key(own.key)
}

/// The entries with an envelope of notation.
fn envelopes(record: &SignatureRecord, authority: AnchorId) -> BTreeSet<u64> {
    entries(
        record,
        |seen| matches!(&seen.signature.by, By::Certificate { root, .. } if *root == authority),
    )
}

/// The entries with both of cosign's forms by the present key, and the name in each.
fn of_cosign(record: &SignatureRecord, own: &Own) -> Named {
    let bundles = entries(record, |seen| is_by_key(seen, own, Format::Bundle));
    let tagged = logged(record).filter(|seen| is_by_key(seen, own, Format::Cosign));
    let named = tagged.filter_map(|seen| Some((seen.logged?, seen.signature.reference.clone()?)));
    named.filter(|(entry, _)| bundles.contains(entry)).collect()
}

/// The entries that have an envelope of notation and nothing that says its name and its key: only the log
/// itself does. There are some where a project began to sign for notation later.
pub fn unnamed(record: &SignatureRecord, own: &Own) -> Vec<u64> {
    let Some(authority) = own.authority else { return Vec::new() };
    let cosign = of_cosign(record, own);
    envelopes(record, authority).into_iter().filter(|one| !cosign.contains_key(one)).collect()
}

/// The names under which `own` has signed an image in all the forms that it signs in. `named` are those
/// of [`unnamed`] entries.
pub fn signed_under(record: &SignatureRecord, own: &Own, named: &Named) -> BTreeSet<String> {
    let cosign = of_cosign(record, own);
    let names = cosign.values().cloned().collect::<BTreeSet<_>>();
    let Some(authority) = own.authority else { return names };
    let envelopes = envelopes(record, authority);
    let for_notation = cosign.iter().chain(named).filter(|(entry, _)| envelopes.contains(*entry));
    let for_notation: BTreeSet<String> = for_notation.map(|(_, name)| name.clone()).collect();
    names.intersection(&for_notation).cloned().collect()
}

/// What is lacking of an image under this name. Each form is signed once.
pub fn lacking(record: &SignatureRecord, own: &Own, name: &str, named: &Named) -> Lacking {
    if signed_under(record, own, named).contains(name) {
        return Lacking::default();
    }
    let cosign = !of_cosign(record, own).values().any(|known| known == name);
    Lacking { cosign, notation: own.authority.is_some() }
}

/// The names under which any of the project's own keys has signed an image, whatever became of the
/// key: the mesh signs what it has signed once, as long as it serves it under that name.
pub fn signed_ever(record: &SignatureRecord, signers: &[Signer]) -> BTreeSet<String> {
    let is_own =
        |seen: &&Seen| signers.iter().any(|signer| signer.logged && signer.is(&seen.signature.by));
    logged(record).filter(is_own).filter_map(|seen| seen.signature.reference.clone()).collect()
}

/// What a project demands of others before the mesh signs: a signature of the mesh says that this was
/// met, so its own is not among it. `None` if nothing is demanded.
pub fn without_own(policy: Policy, signers: &[Signer]) -> Option<Policy> {
    let own: BTreeSet<&str> =
        signers.iter().filter(|one| one.logged).map(|one| &*one.name).chain([MESH]).collect();
    let by_others = |list: &&Vec<String>| !list.iter().any(|name| own.contains(&**name));
    let require: Vec<Vec<String>> = policy.require.iter().filter(by_others).cloned().collect();
    if require.is_empty() {
        return None;
    }
    let wait = std::time::Duration::ZERO;
    Some(Policy { mode: Mode::Enforce, require, cosign: false, notation: false, wait, ..policy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::signatures::{Evidence, Signature};
    use crate::words::digest::Digest;
    use crate::words::moment::Timestamp;

    const OLD: AnchorId = AnchorId([1; 32]);
    const NEW: AnchorId = AnchorId([2; 32]);
    const ROOT: AnchorId = AnchorId([3; 32]);
    const NAME: &str = "atoll.example/shop/web:v1";

    fn signer(name: &str, anchor: Anchor, state: State, logged: bool) -> Signer {
        Signer {
            name: name.into(),
            anchor,
            formats: Vec::new(),
            predicates: Vec::new(),
            repositories: None,
            tags: None,
            logged,
            not_before: None,
            not_after: None,
            state,
        }
    }

    fn key(id: AnchorId) -> Anchor {
        Anchor::Key { id, pem: String::new() }
    }

    fn seen(format: Format, by: By, reference: Option<&str>, logged: Option<u64>) -> Seen {
        let signature = Signature {
            format,
            by,
            fault: None,
            predicate: None,
            reference: reference.map(str::to_owned),
            signed: None,
            until: None,
            payload: Digest::sha256(b"payload"),
            claims: BTreeMap::new(),
        };
        Seen { at: Timestamp(0), logged, signature }
    }

    fn record(signatures: Vec<Seen>) -> SignatureRecord {
        let manifest = Digest::sha256(b"m");
        let evidence = vec![Evidence { manifest, tag: None, is_text: true, signatures }];
        SignatureRecord { evidence, ..SignatureRecord::default() }
    }

    #[test]
    fn a_rule_is_about_tags_of_its_pattern_and_never_about_those_of_signatures() {
        let rule = |text: &str| Rule::of(&[(metadata::AUTO.to_owned(), text.to_owned())].into());
        let covers = |text: &str, tag: &str| rule(text).unwrap().covers(&tag.parse().unwrap());
        assert!(covers("v*", "v1.2") && covers("**", "latest"));
        assert!(!covers("v*", "latest"));
        let tag = format!("sha256-{}", "ab".repeat(32));
        assert!(!covers("**", &tag) && !covers("**", &format!("{tag}.sig")));
        assert_eq!(Rule::of(&BTreeMap::new()), None);
    }

    #[test]
    fn an_image_is_signed_when_each_form_of_one_entry_is_there() {
        let own = Own { key: NEW, authority: None };
        let certified = Own { key: NEW, authority: Some(ROOT) };
        let classic = |entry| seen(Format::Cosign, By::Key(NEW), Some(NAME), entry);
        let bundle = |entry| seen(Format::Bundle, By::Key(NEW), None, entry);
        let subject = String::new();
        let envelope =
            seen(Format::NotationJws, By::Certificate { root: ROOT, subject }, None, Some(7));
        let names = |signatures: Vec<Seen>, own: &Own| {
            signed_under(&record(signatures), own, &Named::new()).len()
        };
        assert_eq!(names(vec![classic(Some(7)), bundle(Some(7))], &own), 1);
        assert_eq!(names(vec![classic(Some(7))], &own), 0, "one form is missing");
        assert_eq!(names(vec![classic(Some(7)), bundle(Some(8))], &own), 0, "of another signing");
        assert_eq!(names(vec![classic(None), bundle(None)], &own), 0, "not in the log");
        assert_eq!(names(vec![classic(Some(7)), bundle(Some(7))], &certified), 0);
        assert_eq!(names(vec![classic(Some(7)), bundle(Some(7)), envelope], &certified), 1);
        let other = seen(Format::Cosign, By::Key(OLD), Some(NAME), Some(7));
        assert_eq!(names(vec![other, bundle(Some(7))], &own), 0, "another key");
    }

    #[test]
    fn what_is_signed_for_notation_later_is_not_signed_for_cosign_again() {
        let own = Own { key: NEW, authority: Some(ROOT) };
        let envelope = |entry| {
            let by = By::Certificate { root: ROOT, subject: String::new() };
            seen(Format::NotationJws, by, None, Some(entry))
        };
        let cosign = || {
            let tagged = seen(Format::Cosign, By::Key(NEW), Some(NAME), Some(7));
            vec![tagged, seen(Format::Bundle, By::Key(NEW), None, Some(7))]
        };
        let nothing = Named::new();
        let before = record(cosign());
        let lacks = |cosign, notation| Lacking { cosign, notation };
        assert_eq!(lacking(&before, &own, NAME, &nothing), lacks(false, true));
        assert_eq!(lacking(&before, &own, "another", &nothing), lacks(true, true));
        let without = Own { authority: None, ..own.clone() };
        assert_eq!(lacking(&before, &without, NAME, &nothing), lacks(false, false));
        // the log says whose and under which name the envelope is
        let after = record([cosign(), vec![envelope(8)]].concat());
        assert_eq!(unnamed(&after, &own), [8]);
        let named = Named::from([(8, NAME.to_owned())]);
        assert_eq!(lacking(&after, &own, NAME, &named), lacks(false, false));
        assert_eq!(signed_under(&after, &own, &named), BTreeSet::from([NAME.to_owned()]));
        let of_another = Named::from([(8, "another".to_owned())]);
        assert_eq!(lacking(&after, &own, NAME, &of_another), lacks(false, true));
        assert_eq!(lacking(&after, &own, NAME, &nothing), lacks(false, true), "by an earlier key");
        assert_eq!(unnamed(&record([cosign(), vec![envelope(7)]].concat()), &own), [0; 0]);
    }

    #[test]
    fn what_a_key_of_the_project_has_signed_is_known_by_its_name() {
        let own = Own { key: NEW, authority: None };
        let signers = [
            signer("mesh", key(OLD), State::VerifyOnly, true),
            signer("mesh-2", key(NEW), State::Active, true),
        ];
        let of = |seen: Seen| signed_ever(&record(vec![seen]), &signers).len();
        assert_eq!(of(seen(Format::Cosign, By::Key(OLD), Some(NAME), Some(1))), 1);
        assert_eq!(of(seen(Format::Cosign, By::Key(NEW), Some(NAME), Some(1))), 1);
        assert_eq!(of(seen(Format::Cosign, By::Key(OLD), Some(NAME), None)), 0, "not in the log");
        assert_eq!(of(seen(Format::Cosign, By::Key(ROOT), Some(NAME), Some(1))), 0, "nobody's");
        assert_eq!(Own::of(&signers), Some(own));
        assert_eq!(Own::of(&signers[..1]), None, "a key that only verifies signs nothing");
    }

    #[test]
    fn before_the_mesh_signs_only_others_are_asked() {
        let of = |require: &str| {
            let entries = [(metadata::MODE, "enforce"), (metadata::REQUIRE, require)];
            let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let signers = [signer("mesh-2", key(NEW), State::Active, true)];
            without_own(Policy::of(&entries.into()).unwrap(), &signers).map(|one| one.require)
        };
        assert_eq!(of("mesh"), None);
        assert_eq!(of("ci;mesh-2"), Some(vec![vec!["ci".to_owned()]]));
        assert_eq!(of("ci,mesh"), None, "the mesh's own would be enough");
    }
}
