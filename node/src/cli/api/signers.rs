//! `atoll signer`, `atoll signatures` and `atoll exempt`: whom a project trusts to sign, and what the
//! signatures of an image are worth.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use rules::policies::signatures::is_signer_name;
use serde_json::{Map, Value, json};

use super::projects::by_name;
use super::scanning::time;
use super::stored::artifact_path;
use super::{Api, Asking, text, with};
use crate::cli::shown::{agreed, safe};

/// Arguments of `signer`.
#[derive(Args)]
pub(in crate::cli) struct SignerCommand {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    asking: Asking,
}

/// A signer of a project.
#[derive(Args)]
struct Named {
    /// Its name: a-z, 0-9, `-`, `_` and `.`
    name: String,
    /// The project.
    #[arg(long)]
    project: String,
}

/// What of a signer can be said when it is added, and later.
#[derive(Args)]
struct Terms {
    /// A form of signatures that is accepted; may be given several times. All, if none is given:
    /// cosign, cosign-referrer, cosign-attestation, sigstore-bundle, notation-jws, notation-cose.
    #[arg(long = "format")]
    formats: Vec<String>,
    /// A predicate type that counts as a signature; may be given several times. Without it, only
    /// cosign's signatures do, and no other attestation.
    #[arg(long = "predicate", value_name = "TYPE")]
    predicates: Vec<String>,
    /// The repositories that it may sign, without the project: `web`, `team/**`. All by default.
    #[arg(long, value_name = "GLOB")]
    repositories: Option<String>,
    /// The tags that it may sign, as in `v*`. All by default. By digest the tag counts that was signed; if
    /// none was, one of the tags that name the image now must fit.
    #[arg(long, value_name = "GLOB")]
    tags: Option<String>,
    /// Since when it counts: 2027-01-31 (UTC), 2027-01-31T12:00:00Z, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_before: Option<u64>,
    /// Until when it counts.
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_after: Option<u64>,
}

impl Terms {
    fn written(&self, into: &mut Map<String, Value>) {
        if !self.formats.is_empty() {
            into.insert("formats".into(), json!(self.formats));
        }
        if !self.predicates.is_empty() {
            into.insert("predicates".into(), json!(self.predicates));
        }
        for (key, value) in [("repositories", &self.repositories), ("tags", &self.tags)] {
            if let Some(value) = value {
                into.insert(key.into(), json!(value));
            }
        }
        for (key, value) in [("not_before", self.not_before), ("not_after", self.not_after)] {
            if let Some(value) = value {
                into.insert(key.into(), value.into());
            }
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// It is published, and counts for nothing yet.
    Pending,
    /// It counts.
    Active,
    /// It counts, and signs nothing new.
    VerifyOnly,
}

#[derive(Subcommand)]
enum Verb {
    /// List the signers that a project trusts.
    List {
        /// The project.
        #[arg(long)]
        project: String,
    },
    /// Show a signer.
    Show(Named),
    /// Trust a signer: a key, or whoever has a certificate, or an identity.
    Add {
        #[command(flatten)]
        signer: Named,
        /// A file with a public key, as `cosign generate-key-pair` writes it.
        #[arg(long, value_name = "FILE", group = "anchor")]
        key: Option<PathBuf>,
        /// A file with certificates of authorities (notation's trust store).
        #[arg(long, value_name = "FILE", group = "anchor")]
        authority: Option<PathBuf>,
        /// With --authority: a file with certificates of timestamp authorities.
        #[arg(long, value_name = "FILE", requires = "authority")]
        timestamps: Option<PathBuf>,
        /// With --authority: whose certificates are trusted, as in `C=DE,O=Acme`; may be given several
        /// times. All of the authority's without it.
        #[arg(long = "subject", value_name = "SUBJECT", requires = "authority")]
        subjects: Vec<String>,
        /// A file with the certificates of a Fulcio (keyless signatures).
        #[arg(long, value_name = "FILE", group = "anchor", requires_all = ["issuer", "identity"])]
        fulcio: Option<PathBuf>,
        /// With --fulcio: a file with the public key of the Rekor.
        #[arg(long, value_name = "FILE", requires = "fulcio")]
        rekor: Option<PathBuf>,
        /// With --fulcio: who vouches for the identity.
        #[arg(long, value_name = "URL", requires = "fulcio")]
        issuer: Option<String>,
        /// With --fulcio: the identity; `*` stands for any text.
        #[arg(long, requires = "fulcio")]
        identity: Option<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Change what a signer may sign, or whether it counts.
    Set {
        #[command(flatten)]
        signer: Named,
        /// Whether it counts.
        #[arg(long, value_enum)]
        state: Option<State>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Trust a signer no more. With --compromised it says first what would be refused, because nobody can
    /// take that back.
    Revoke {
        #[command(flatten)]
        signer: Named,
        /// Others may have the key: nothing counts that it has signed. Without this, what was
        /// verified before stays good.
        #[arg(long)]
        compromised: bool,
        /// Why, for those whose pulls are refused.
        #[arg(long)]
        reason: Option<String>,
        /// With --compromised: do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Forget a signer. What it has signed counts for nothing then. Says first what would be refused.
    Remove {
        #[command(flatten)]
        signer: Named,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

fn file(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

async fn path_of(api: &Api, project: &str) -> io::Result<String> {
    let name = by_name(api, project).await?["name"].clone();
    Ok(format!("/api/v2.0/projects/{}/signers", name.as_str().unwrap_or_default()))
}

async fn one(api: &Api, signer: &Named) -> io::Result<String> {
    let name = &signer.name;
    if !is_signer_name(name) {
        let said = format!("{name:?} is no name of a signer: it has a-z, 0-9, -, _ and .");
        return Err(io::Error::other(said));
    }
    Ok(format!("{}/{name}", path_of(api, &signer.project).await?))
}

/// What a signer is, in a word and an id.
fn anchor(signer: &Value) -> String {
    if signer["key"].is_string() {
        return format!("key {}", text(&signer["id"]));
    }
    if signer["authority"].is_object() {
        let subjects = signer["authority"]["subjects"].as_array().into_iter().flatten();
        let subjects: Vec<String> = subjects.map(text).collect();
        return format!("certificates of {}", subjects.join(" or "));
    }
    let keyless = &signer["keyless"];
    format!("{} of {}", text(&keyless["subject"]), text(&keyless["issuer"]))
}

async fn list(api: &Api, path: &str) -> io::Result<()> {
    let mut all = api.all(path).await?;
    if !api.is_json() {
        for signer in &mut all {
            signer["is"] = anchor(signer).into();
        }
    }
    api.print(
        &all,
        &[
            ("NAME", "/name"),
            ("STATE", "/state"),
            ("SIGNER", "/is"),
            ("REPOSITORIES", "/repositories"),
            ("TAGS", "/tags"),
            ("REASON", "/reason"),
        ],
    );
    Ok(())
}

/// Runs `signer`.
pub(in crate::cli) fn run(command: &SignerCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            Verb::List { project } => list(&api, &path_of(&api, project).await?).await?,
            Verb::Show(signer) => api.print_one(&api.get(&one(&api, signer).await?).await?),
            Verb::Add {
                signer,
                key,
                authority,
                timestamps,
                subjects,
                fulcio,
                rekor,
                issuer,
                identity,
                terms,
            } => {
                let mut body = Map::from_iter([("name".to_owned(), json!(signer.name))]);
                let optional = |path: &Option<PathBuf>| match path {
                    Some(path) => file(path),
                    None => Ok(String::new()),
                };
                if let Some(path) = key {
                    body.insert("key".into(), file(path)?.into());
                } else if let Some(path) = authority {
                    let (certificates, timestamps) = (file(path)?, optional(timestamps)?);
                    let authority = json!({
                        "certificates": certificates,
                        "timestamps": timestamps,
                        "subjects": subjects,
                    });
                    body.insert("authority".into(), authority);
                } else if let Some(path) = fulcio {
                    let keyless = json!({
                        "certificates": file(path)?,
                        "rekor": optional(rekor)?,
                        "issuer": issuer,
                        "subject": identity,
                    });
                    body.insert("keyless".into(), keyless);
                } else {
                    return Err(io::Error::other(
                        "say what makes the signer known: --key, --authority or --fulcio",
                    ));
                }
                terms.written(&mut body);
                let path = path_of(&api, &signer.project).await?;
                api.send(Method::POST, &path, Some(&Value::Object(body))).await?;
                list(&api, &path).await?;
                remind(&api, &signer.project).await?;
            }
            Verb::Set { signer, state, terms } => {
                let mut body = Map::new();
                if let Some(state) = state {
                    let word = match state {
                        State::Pending => "pending",
                        State::Active => "active",
                        State::VerifyOnly => "verify-only",
                    };
                    body.insert("state".into(), word.into());
                }
                terms.written(&mut body);
                let path = one(&api, signer).await?;
                api.send(Method::PUT, &path, Some(&Value::Object(body))).await?;
                api.say(&format!("{} is changed", signer.name));
            }
            Verb::Revoke { signer, compromised, reason, yes } => {
                if *compromised && !may_end(&api, signer, true, *yes).await? {
                    return Err(io::Error::other(format!("{} counts as before", signer.name)));
                }
                let state = if *compromised { "compromised" } else { "superseded" };
                let body = json!({"state": state, "reason": reason.clone().unwrap_or_default()});
                let path = one(&api, signer).await?;
                api.send(Method::PUT, &path, Some(&body)).await?;
                api.say(&match compromised {
                    true => format!("nothing counts that {} has signed", signer.name),
                    false => format!("nothing new counts that {} signs", signer.name),
                });
            }
            Verb::Remove { signer, yes } => {
                if !may_end(&api, signer, false, *yes).await? {
                    return Err(io::Error::other(format!("{} stays", signer.name)));
                }
                api.send(Method::DELETE, &one(&api, signer).await?, None).await?;
                api.say(&format!("{} is removed", signer.name));
            }
        }
        Ok(())
    })
}

/// The time within which pulls count as those of now, in days.
const LATELY: u64 = 30;

/// Says what a project would refuse without a signer; whether that is wanted.
async fn may_end(api: &Api, signer: &Named, compromised: bool, yes: bool) -> io::Result<bool> {
    let (project, name) = (by_name(api, &signer.project).await?, &signer.name);
    one(api, signer).await?;
    let path = format!("/api/v2.0/projects/{}/unsigned", text(&project["name"]));
    let query = format!("without={name}&compromised={compromised}");
    let all = api.get(&format!("{path}?{query}")).await?;
    let lately = api.get(&format!("{path}?{query}&pulled_within_days={LATELY}")).await?;
    let mode = project["metadata"]["signature_policy"].as_str().unwrap_or("off");
    // not among what programs read
    eprint!("{}", told(name, &all, &lately, mode));
    if yes {
        return Ok(true);
    }
    let (question, stays) = match compromised {
        true => (format!("Revoke {name} for good?"), format!("{name} counts as before")),
        false => (format!("Remove {name}?"), format!("{name} stays")),
    };
    agreed(&question, &format!("{stays}; confirm with --yes"))
}

/// What a project would refuse without a signer, for people.
fn told(name: &str, all: &Value, lately: &Value, mode: &str) -> String {
    let count = |answer: &Value| answer["refused_in_all"].as_u64().unwrap_or_default();
    if count(all) == 0 {
        return format!("Without {name} no tag would be refused that is not now.\n");
    }
    let mut lines = vec![format!(
        "Without {name} {} of {} tags would be refused that are not now; {} of these were pulled in \
         the last {LATELY} days.",
        count(all),
        all["artifacts"],
        count(lately)
    )];
    let refused = |answer: &Value| answer["refused"].as_array().cloned().unwrap_or_default();
    let shown = if count(lately) > 0 { refused(lately) } else { refused(all) };
    for one in shown.iter().take(5) {
        let artifact = text(&one["artifact"]);
        let repository = artifact.split('@').next().unwrap_or_default();
        lines.push(format!("  {repository}:{}", text(&one["tag"])));
    }
    if mode != "enforce" {
        lines.push(format!("The project serves unsigned images now (signature_policy is {mode})."));
    }
    lines.iter().map(|line| format!("{}\n", safe(line))).collect()
}

/// Says that nothing is demanded yet, if that is so.
async fn remind(api: &Api, project: &str) -> io::Result<()> {
    let metadata = by_name(api, project).await?["metadata"].clone();
    if !matches!(metadata["signature_policy"].as_str(), Some("warn" | "enforce")) {
        eprintln!(
            "{project} serves unsigned images, too: see `atoll signatures --unsigned {project}`, then `atoll project set {project} signature_policy=enforce`"
        );
    }
    Ok(())
}

/// Arguments of `signatures`.
#[derive(Args)]
pub(in crate::cli) struct SignaturesCommand {
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST.
    #[arg(required_unless_present = "unsigned")]
    image: Option<String>,
    /// List what a project would refuse if it enforced its policy now.
    #[arg(long, value_name = "PROJECT", conflicts_with = "image")]
    unsigned: Option<String>,
    /// With --unsigned: only what was pulled within so many days.
    #[arg(long, value_name = "DAYS", requires = "unsigned")]
    pulled_within: Option<u64>,
    #[command(flatten)]
    asking: Asking,
}

/// Runs `signatures`.
pub(in crate::cli) fn signatures(command: &SignaturesCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match (&command.image, &command.unsigned) {
            (Some(image), _) => show(&api, image).await,
            (None, Some(project)) => unsigned(&api, project, command.pulled_within).await,
            (None, None) => Ok(()),
        }
    })
}

async fn unsigned(api: &Api, project: &str, days: Option<u64>) -> io::Result<()> {
    let name = by_name(api, project).await?["name"].clone();
    let name = name.as_str().unwrap_or_default();
    let query = days.map_or(String::new(), |days| format!("?pulled_within_days={days}"));
    let answer = api.get(&format!("/api/v2.0/projects/{name}/unsigned{query}")).await?;
    if api.is_json() {
        api.print_one(&answer);
        return Ok(());
    }
    let (total, all) = (&answer["refused_in_all"], &answer["artifacts"]);
    println!("{total} of {all} tags would be refused");
    let refused = answer["refused"].as_array().cloned().unwrap_or_default();
    let columns =
        [("ARTIFACT", "/artifact"), ("TAG", "/tag"), ("PULLED", "/pulled_at"), ("WHY", "/why")];
    api.print(&refused, &columns);
    Ok(())
}

async fn show(api: &Api, image: &str) -> io::Result<()> {
    let answer = api.get(&format!("{}/signatures", artifact_path(image)?)).await?;
    if api.is_json() {
        api.print_one(&answer);
        return Ok(());
    }
    println!("{}, policy {}", text(&answer["artifact"]), text(&answer["policy"]));
    let exemption = &answer["exemption"];
    if exemption.is_object() {
        let of = match exemption["index"].as_str() {
            Some(index) => format!(", as the index {index} is that lists it"),
            None => String::new(),
        };
        println!(
            "exempt{of} until {} by {}: {}",
            text(&exemption["until"]),
            text(&exemption["by"]),
            text(&exemption["reason"])
        );
    }
    let mut count = 0;
    let own = answer["artifacts"].as_array().into_iter().flatten().map(|one| (one, String::new()));
    let inherited = answer["inherited"].as_array().into_iter().flatten();
    let inherited = inherited.map(|one| (one, format!(" of index {}", text(&one["index"]))));
    for (artifact, of) in own.chain(inherited) {
        for signature in artifact["signatures"].as_array().into_iter().flatten() {
            count += 1;
            println!("{}", line(signature, &of));
        }
    }
    if count == 0 {
        println!("it has no signatures");
    }
    Ok(())
}

fn line(signature: &Value, of: &str) -> String {
    let by = &signature["by"];
    let names = by["signers"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let who = match (by["kind"].as_str(), names.is_empty()) {
        (_, false) => names.join(", "),
        (Some("unknown"), _) if by["hint"].is_string() => format!("key {}", text(&by["hint"])),
        (Some("unknown"), _) => "somebody".into(),
        _ => format!("{} {}", text(&by["kind"]), text(&by["id"])),
    };
    let verdict = match signature["counts"] == true {
        true => "counts".into(),
        false => format!("counts for nothing: {}", text(&signature["why_not"])),
    };
    let kind = match signature["predicate_type"].as_str() {
        Some(_) => format!(" ({})", text(&signature["predicate_type"])),
        None => String::new(),
    };
    format!("{who}{of}, {}{kind}: {verdict}", text(&signature["format"]))
}

/// Arguments of `exempt`.
#[derive(Args)]
pub(in crate::cli) struct ExemptCommand {
    /// The image, by its digest: REPOSITORY@DIGEST.
    image: String,
    /// Why; it is in the audit log.
    #[arg(long, required_unless_present = "end")]
    reason: Option<String>,
    /// Until when, at most 90 days from now: 2027-01-31 (as that day begins, in UTC),
    /// 2027-01-31T12:00:00Z, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = time, required_unless_present = "end")]
    until: Option<u64>,
    /// End an exemption now.
    #[arg(long, conflicts_with_all = ["reason", "until"])]
    end: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Runs `exempt`.
pub(in crate::cli) fn exempt(command: &ExemptCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let path = format!("{}/signatures/exemption", artifact_path(&command.image)?);
        if command.end {
            api.send(Method::DELETE, &path, None).await?;
            api.say(&format!("{} needs its signatures again", command.image));
        } else {
            let body = json!({"reason": command.reason, "until": command.until});
            let answer = api.send(Method::PUT, &path, Some(&body)).await?;
            let with = match answer.body["listed"].as_u64() {
                Some(count @ 1..) => format!(", with the {count} that it lists,"),
                _ => String::new(),
            };
            let project = command.image.split('/').next().unwrap_or_default();
            let scans = by_name(&api, project).await?["metadata"]["prevent_vul"] == "true";
            let but = match scans {
                true => "; what its scan finds is refused as before (prevent_vul)",
                false => "",
            };
            let image = &command.image;
            api.say(&format!("{image}{with} is served without signatures until then{but}"));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_would_refuse_without_a_signer_is_told_before() {
        let refused = json!([{"artifact": "shop/web@sha256:12", "tag": "v1"}]);
        let all = json!({"artifacts": 9, "refused_in_all": 2, "refused": refused});
        let lately = json!({"artifacts": 4, "refused_in_all": 1, "refused": refused});
        let said = told("ci", &all, &lately, "enforce");
        assert_eq!(
            said,
            "Without ci 2 of 9 tags would be refused that are not now; 1 of these were pulled in the \
             last 30 days.\n  shop/web:v1\n"
        );
        assert!(told("ci", &all, &lately, "warn").contains("signature_policy is warn"));
        let nothing = json!({"artifacts": 9, "refused_in_all": 0, "refused": []});
        assert!(told("ci", &nothing, &nothing, "enforce").contains("no tag would be refused"));
    }
}
