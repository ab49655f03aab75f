//! Tags that say by their names what their manifests are about: those of clients that do not use the
//! list of referrers.
//!
//! `sha256-HEX` is an index of referrers (distribution-spec "Referrers Tag Schema"); `.sig`, `.att` and
//! `.sbom` behind it are cosign's signatures, attestations and SBOMs (its `specs/SIGNATURE_SPEC.md`).

use super::digest::Digest;
use super::names::Tag;

/// What follows the digest in such a tag.
const ENDINGS: [&str; 4] = ["", ".sig", ".att", ".sbom"];
/// The number of digits of a digest that such a tag has at most.
const DIGITS: usize = 64;

/// The tags about a manifest.
pub fn tags_about(digest: &Digest) -> Vec<Tag> {
    let name = digest.to_string();
    let Some((algorithm, hex)) = name.split_once(':') else { return Vec::new() };
    let hex = hex.get(..DIGITS).unwrap_or(hex);
    let tags = ENDINGS.iter().map(|ending| format!("{algorithm}-{hex}{ending}").parse());
    tags.filter_map(Result::ok).collect()
}

/// A tag of that form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback<'a> {
    /// The algorithm of the digest that it is about.
    algorithm: &'a str,
    /// The digits of that digest, or the first of them.
    hex: &'a str,
    /// What follows them: nothing, or one of `.sig`, `.att` and `.sbom`.
    pub ending: &'a str,
}

impl<'a> Fallback<'a> {
    /// Reads a tag; `None` if it is of another form.
    pub fn of(tag: &'a Tag) -> Option<Self> {
        let (algorithm, rest) = tag.as_str().split_once('-')?;
        let (hex, ending) = (rest.get(..DIGITS)?, rest.get(DIGITS..)?);
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let fits = matches!(algorithm, "sha256" | "sha512")
            && hex.bytes().all(is_hex)
            && ENDINGS.contains(&ending);
        fits.then_some(Fallback { algorithm, hex, ending })
    }

    /// Whether it is about this manifest.
    pub fn is_about(&self, digest: &Digest) -> bool {
        let name = digest.to_string();
        let parts = name.split_once(':');
        parts.is_some_and(|(algorithm, hex)| {
            algorithm == self.algorithm && hex.get(..DIGITS) == Some(self.hex)
        })
    }

    /// The digest that it is about, if the tag has all of it.
    pub fn digest(&self) -> Option<Digest> {
        format!("{}:{}", self.algorithm, self.hex).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_what_it_is_about() {
        let (one, other) = (Digest::sha256(b"one"), Digest::sha256(b"other"));
        let long: Digest = format!("sha512:{}", "ab".repeat(64)).parse().unwrap();
        for digest in [one, long] {
            let tags = tags_about(&digest);
            let endings: Vec<&str> =
                tags.iter().map(|tag| Fallback::of(tag).unwrap().ending).collect();
            assert_eq!(endings, ENDINGS);
            for tag in &tags {
                let fallback = Fallback::of(tag).unwrap();
                assert!(fallback.is_about(&digest) && !fallback.is_about(&other), "{tag}");
            }
        }
        let tag = &tags_about(&one)[1];
        assert_eq!(tag.as_str(), format!("{}.sig", one.to_string().replace(':', "-")));
        assert_eq!(Fallback::of(tag).unwrap().digest(), Some(one));
        let hex = "a".repeat(64);
        for other in [
            "latest".to_owned(),
            format!("sha256-{}", &hex[1..]),
            format!("sha256-{hex}a"),
            format!("sha256-{hex}.txt"),
            format!("sha256-{}", hex.to_uppercase()),
            format!("md5-{hex}"),
            format!("sha256_{hex}"),
        ] {
            assert_eq!(Fallback::of(&other.parse().unwrap()), None, "{other}");
        }
    }
}
