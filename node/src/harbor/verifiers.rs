//! What clients elsewhere write into their files to verify what a project's keys have signed. Not in
//! Harbor.

use rules::ledger::sign_log::MeshKey;
use rules::policies::signatures::{Anchor, Signer};
use rules::words::names::{ProjectName, RepositoryName};
use serde_json::{Map, Value, json};

/// The maximum number of repositories in a trust policy of notation: it takes no patterns.
const SCOPES: usize = 500;

/// All of it. `keys` and `authorities` are those that count.
pub(super) fn all(
    host: Option<&str>,
    name: &ProjectName,
    repositories: &[RepositoryName],
    keys: &[&MeshKey],
    authorities: &[&Signer],
) -> Value {
    let host = host.unwrap_or("HOST");
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
            "metadata": {"name": in_kubernetes(name.as_str())},
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

/// The name of an object in Kubernetes, in which there is no `_`.
fn in_kubernetes(project: &str) -> String {
    format!("atoll-{}", project.replace('_', "-"))
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
        "metadata": {"name": in_kubernetes(name)},
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

#[cfg(test)]
mod tests {
    use rules::policies::signatures::AnchorId;
    use rules::words::moment::Timestamp;

    use super::*;

    /// What is wrong with a value, if a schema of Kubernetes is as strict as `kubectl --validate=strict`:
    /// an object has no other fields, and those that end in `!`.
    fn faults(schema: &Value, value: &Value, at: &str, all: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                let Some(object) = value.as_object() else {
                    return all.push(format!("{at} is no object"));
                };
                for (field, of_it) in object {
                    let required = format!("{field}!");
                    match fields.get(field).or_else(|| fields.get(&required)) {
                        Some(schema) => faults(schema, of_it, &format!("{at}.{field}"), all),
                        None => all.push(format!("{at}.{field} is unknown")),
                    }
                }
                let required = fields.keys().filter_map(|field| field.strip_suffix('!'));
                let missing = required.filter(|field| !object.contains_key(*field));
                all.extend(missing.map(|field| format!("{at}.{field} is missing")));
            }
            Value::Array(of_one) => match value.as_array().map(Vec::as_slice) {
                None | Some([]) => all.push(format!("{at} is no list with something in it")),
                Some(list) => list.iter().for_each(|one| faults(&of_one[0], one, at, all)),
            },
            Value::String(kind) => {
                let fits = match kind.as_str() {
                    "string" => value.as_str().is_some_and(|text| !text.is_empty()),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64(),
                    constant => value.as_str() == Some(constant),
                };
                if !fits {
                    all.push(format!("{at} is {value}, and not {kind}"));
                }
            }
            other => panic!("no schema: {other}"),
        }
    }

    fn written(project: &str) -> Value {
        let key = |version: u32| MeshKey {
            id: AnchorId([version as u8; 32]),
            pem: "-----BEGIN PUBLIC KEY-----\n".into(),
            version,
            created: Timestamp(0),
            sealed: Vec::new().into(),
        };
        let name = project.parse().expect("a name");
        let keys = [key(1), key(2)];
        all(Some("registry.example"), &name, &[], &keys.iter().collect::<Vec<_>>(), &[])
    }

    fn check(schema: &Value, written: &Value) {
        let mut wrong = Vec::new();
        faults(schema, written, "", &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?} in {written:#}");
    }

    #[test]
    fn the_manifest_for_policy_controller_is_one_of_its_kind() {
        // policy.sigstore.dev/v1beta1 as its definition has it
        let key = json!({
            "data": "string", "kms": "string", "hashAlgorithm": "string",
            "secretRef": {"name": "string", "namespace": "string"},
        });
        let schema = json!({
            "apiVersion!": "policy.sigstore.dev/v1beta1",
            "kind!": "ClusterImagePolicy",
            "metadata!": {"name!": "string"},
            "spec!": {
                "images!": [{"glob!": "string"}],
                "authorities!": [{"name": "string", "key!": key, "ctlog": {"url": "string"}}],
                "mode": "string",
            },
        });
        let made = written("team")["policy-controller"].clone();
        check(&schema, &made);
        assert_eq!(made["spec"]["images"][0]["glob"], "registry.example/team/**");
        let authorities = made["spec"]["authorities"].as_array().expect("a list");
        assert_eq!(authorities.len(), 2, "one of these is enough");
        for field in ["/spec/images", "/metadata/name", "/spec/authorities/0/key"] {
            let mut broken = made.clone();
            *broken.pointer_mut(field).expect("a field") = json!(7);
            let mut wrong = Vec::new();
            faults(&schema, &broken, "", &mut wrong);
            assert!(!wrong.is_empty(), "{field}");
        }
    }

    #[test]
    fn the_manifest_for_kyverno_is_one_of_its_kind() {
        let keys = json!({
            "publicKeys!": "string",
            "rekor": {"ignoreTlog": "boolean", "url": "string"},
            "ctlog": {"ignoreSCT": "boolean"},
        });
        let verifies = json!({
            "imageReferences!": ["string"],
            "mutateDigest": "boolean",
            "attestors!": [{"count": "integer", "entries!": [{"keys!": keys}]}],
        });
        let schema = json!({
            "apiVersion!": "kyverno.io/v1",
            "kind!": "ClusterPolicy",
            "metadata!": {"name!": "string"},
            "spec!": {
                "background": "boolean",
                "validationFailureAction": "Enforce",
                "webhookTimeoutSeconds": "integer",
                "rules!": [{
                    "name!": "string",
                    "match!": {"any!": [{"resources!": {"kinds!": ["string"]}}]},
                    "verifyImages!": [verifies],
                }],
            },
        });
        let made = written("my_team.2")["kyverno"].clone();
        check(&schema, &made);
        assert_eq!(made["metadata"]["name"], "atoll-my-team.2", "as Kubernetes has names");
    }
}
