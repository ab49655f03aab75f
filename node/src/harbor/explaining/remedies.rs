//! Who may sign an image that lacks signatures, and how.

use rules::policies::signatures::{Anchor, Context, MESH, Policy, Refusal, Signer, may_sign_here};

/// How the image can get the signatures that it lacks: a sentence for each list of signers of which one
/// has to sign. `image` is its name with its digest, `host` the name of this registry for clients.
pub(super) fn to_sign(
    policy: &Policy,
    signers: &[Signer],
    refusal: &Refusal,
    context: &Context<'_>,
    (host, image): (&str, &str),
) -> Vec<String> {
    let accepted: Vec<&Signer> =
        signers.iter().filter(|signer| may_sign_here(signer, context)).collect();
    let of = |name: &str| {
        let ours = name == MESH;
        accepted.iter().find(|one| one.name == name || ours && one.logged).copied()
    };
    let is_missing = |list: &&Vec<String>| match refusal {
        Refusal::Insufficient { missing, .. } => missing.contains(&list.join(" or ")),
        _ => true,
    };
    let lists: Vec<Vec<String>> = match policy.require.is_empty() {
        true => vec![accepted.iter().map(|signer| signer.name.clone()).collect()],
        false => policy.require.iter().filter(is_missing).cloned().collect(),
    };
    let mut told = Vec::new();
    for list in lists {
        let known: Vec<&Signer> = list.iter().filter_map(|name| of(name)).collect();
        let Some(first) = known.first() else {
            if !list.is_empty() {
                told.push(format!(
                    "none of the signers counts that could sign it ({}): see atoll signer list",
                    list.join(", ")
                ));
            }
            continue;
        };
        let names = list.iter().filter(|name| of(name).is_some());
        let names = names.map(String::as_str).collect::<Vec<_>>().join(" or ");
        told.push(format!("sign it as {names}, as with: {}", command(first, host, image)));
    }
    told
}

/// A command that signs as this signer.
fn command(signer: &Signer, host: &str, image: &str) -> String {
    if signer.logged {
        return format!("atoll sign {image}");
    }
    match &signer.anchor {
        Anchor::Key { .. } => format!(
            "cosign sign --key KEY --tlog-upload=false {host}/{image} (cosign 3: --signing-config FILE \
             of a configuration without services, in place of --tlog-upload)"
        ),
        Anchor::Authority { .. } => format!("notation sign {host}/{image}"),
        Anchor::Keyless { issuer, subject, .. } => {
            format!("cosign sign {host}/{image}, as {subject} of {issuer}")
        }
    }
}

#[cfg(test)]
mod tests {
    use rules::policies::selectors::Pattern;
    use rules::policies::signatures::{AnchorId, Mode, State};
    use rules::words::moment::Timestamp;
    use rules::words::names::{RepositoryName, Tag};

    use super::*;

    fn signer(name: &str, logged: bool) -> Signer {
        let anchor = Anchor::Key { id: AnchorId([1; 32]), pem: String::new() };
        Signer { logged, ..Signer::of_the_mesh(name.into(), anchor) }
    }

    #[test]
    fn who_may_sign_is_told_with_a_command() {
        let repository: RepositoryName = "shop/web".parse().expect("a name");
        let tag: Tag = "v1".parse().expect("a tag");
        let (pushed, now) = (Timestamp(0), Timestamp(9));
        let tag = Some(&tag);
        let context =
            Context { repository: &repository, cached: false, tag, tags: &[], pushed, now };
        let (host, image) = ("registry.example", "shop/web@sha256:12");
        let told = |policy: &Policy, signers: &[Signer], refusal: &Refusal| {
            to_sign(policy, signers, refusal, &context, (host, image))
        };
        let elsewhere = Signer {
            repositories: Some(Pattern::new("api").expect("one")),
            ..signer("api", false)
        };
        let dev = Signer { tags: Some(Pattern::new("dev").expect("one")), ..signer("dev", false) };
        let pending = Signer { state: State::Pending, ..signer("next", false) };
        let signers = [signer("ci", false), elsewhere, dev, pending, signer("mesh-2", true)];
        let any = Policy { mode: Mode::Enforce, ..Policy::NOTHING };
        let said = told(&any, &signers, &Refusal::Unsigned);
        assert_eq!(said.len(), 1);
        let begin = "sign it as ci or mesh-2, as with: cosign sign --key KEY --tlog-upload=false \
                     registry.example/shop/web@sha256:12";
        assert!(said[0].starts_with(begin), "{said:?}");
        let lists = |text: &[&[&str]]| {
            text.iter().map(|list| list.iter().map(|one| (*one).to_owned()).collect()).collect()
        };
        let both =
            Policy { require: lists(&[&["next", "ci"], &["mesh"], &["dev"]]), ..any.clone() };
        let said = told(&both, &signers, &Refusal::Unsigned);
        assert!(said[0].starts_with("sign it as ci, "), "{said:?}");
        assert_eq!(said[1], "sign it as mesh, as with: atoll sign shop/web@sha256:12");
        assert!(said[2].starts_with("none of the signers counts that could sign it (dev)"));
        let missing = vec!["mesh".to_owned()];
        let said = told(&both, &signers, &Refusal::Insufficient { missing, wrong: Vec::new() });
        assert_eq!(said.len(), 1, "what is there is not asked for: {said:?}");
        assert!(told(&any, &[], &Refusal::Unsigned).is_empty());
    }
}
