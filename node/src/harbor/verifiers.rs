//! What clients elsewhere write into their files to verify what a project's keys have signed. Not in
//! Harbor.

use rules::ledger::records::Project;
use rules::ledger::sign_log::MeshKey;
use rules::policies::signatures::{Anchor, Signer};
use rules::words::names::RepositoryName;
use serde_json::{Map, Value, json};

/// The maximum number of repositories in a trust policy of notation: it takes no patterns.
const SCOPES: usize = 500;

/// All of it. `keys` and `authorities` are those that count.
pub(super) fn all(
    host: Option<&str>,
    project: &Project,
    repositories: &[RepositoryName],
    keys: &[&MeshKey],
    authorities: &[&Signer],
) -> Value {
    let (host, name) = (host.unwrap_or("HOST"), &project.name);
    let scope = format!("{host}/{name}");
    let path = |key: &&MeshKey| format!("/etc/atoll/{name}-{}.pub", MeshKey::signer(key.version));
    let paths: Vec<String> = keys.iter().map(path).collect();
    let verify = paths.iter().map(|path| {
        format!("cosign verify --key {path} --private-infrastructure {scope}/REPOSITORY@sha256:...")
    });
    let pems: Vec<&str> = keys.iter().map(|key| key.pem.as_str()).collect();
    let controller = pems.iter().map(|pem| json!({"key": {"data": pem}}));
    let mut all = json!({
        "keys": paths.iter().zip(&pems).map(|(path, pem)| json!({"file": path, "pem": pem}))
            .collect::<Vec<_>>(),
        // containers-policy.json(5)
        "policy.json": {
            "default": [{"type": "reject"}],
            "transports": {"docker": {&scope: [{
                "type": "sigstoreSigned",
                "keyPaths": paths,
                "signedIdentity": {"type": "matchRepoDigestOrExact"},
            }]}},
        },
        // containers-registries.d(5): without it nothing is looked for
        "registries.d": {"docker": {host: {"use-sigstore-attachments": true}}},
        "cosign": verify.collect::<Vec<_>>(),
        "policy-controller": {
            "apiVersion": "policy.sigstore.dev/v1beta1",
            "kind": "ClusterImagePolicy",
            "metadata": {"name": format!("atoll-{name}")},
            "spec": {
                "images": [{"glob": format!("{scope}/**")}],
                "authorities": controller.collect::<Vec<_>>(),
            },
        },
        "kyverno": kyverno(name.as_str(), &scope, &pems),
    });
    if !authorities.is_empty() {
        all["notation"] = notation(name.as_str(), host, repositories, authorities);
    }
    all
}

/// <https://kyverno.io/docs/policy-types/cluster-policy/verify-images/sigstore/>
fn kyverno(name: &str, scope: &str, pems: &[&str]) -> Value {
    let entries = pems.iter().map(|pem| {
        json!({"keys": {
            "publicKeys": pem,
            // nothing of it is in a public log
            "rekor": {"ignoreTlog": true},
            "ctlog": {"ignoreSCT": true},
        }})
    });
    json!({
        "apiVersion": "kyverno.io/v1",
        "kind": "ClusterPolicy",
        "metadata": {"name": format!("atoll-{name}")},
        "spec": {
            "background": false,
            "validationFailureAction": "Enforce",
            "webhookTimeoutSeconds": 30,
            "rules": [{
                "name": "signed-by-the-registry",
                "match": {"any": [{"resources": {"kinds": ["Pod"]}}]},
                "verifyImages": [{
                    "imageReferences": [format!("{scope}/*")],
                    "mutateDigest": true,
                    "attestors": [{"count": 1, "entries": entries.collect::<Vec<_>>()}],
                }],
            }],
        },
    })
}

/// notation's trust store and trust policy (notaryproject/specifications
/// `trust-store-trust-policy.md`). A policy names repositories one by one; without any it is for all.
fn notation(
    name: &str,
    host: &str,
    repositories: &[RepositoryName],
    authorities: &[&Signer],
) -> Value {
    let store = format!("atoll-{name}");
    let scopes: Vec<String> =
        repositories.iter().take(SCOPES).map(|one| format!("{host}/{one}")).collect();
    let scopes = if scopes.is_empty() { vec!["*".to_owned()] } else { scopes };
    let mut files = Map::new();
    for authority in authorities {
        if let Anchor::Authority { pem, .. } = &authority.anchor {
            let file = format!("truststore/x509/ca/{store}/{}.pem", authority.name);
            files.insert(file, pem.as_str().into());
        }
    }
    json!({
        "files": files,
        "trustpolicy.json": {
            "version": "1.0",
            "trustPolicies": [{
                "name": store,
                "registryScopes": scopes,
                "signatureVerification": {"level": "strict"},
                "trustStores": [format!("ca:{store}")],
                "trustedIdentities": ["*"],
            }],
        },
    })
}
