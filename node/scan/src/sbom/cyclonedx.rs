//! CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

use serde_json::{Value, json};

use crate::layer::Inventory;

use super::{Subject, components, purl};

/// The inventory as CycloneDX 1.6. The same inventory and subject make the same bytes.
pub fn cyclonedx(inventory: &Inventory, about: &Subject) -> Value {
    let root = about.purl();
    let family = inventory.system.as_ref().map_or("", |system| system.family.as_str());
    let mut listed = Vec::new();
    let mut references = Vec::new();
    if let Some(system) = &inventory.system {
        let reference = format!("os:{}:{}", system.family, system.release);
        listed.push(json!({
            "bom-ref": reference,
            "type": "operating-system",
            "name": system.family,
            "version": system.release,
        }));
        references.push(reference);
    }
    for (url, (package, places)) in components(inventory) {
        let (_, group, name) = purl::parts(package, family);
        let occurrences: Vec<_> = places.iter().map(|path| json!({ "location": path })).collect();
        let mut one = json!({
            "bom-ref": url,
            "type": "library",
            "name": name,
            "version": package.version,
            "purl": url,
            "evidence": { "occurrences": occurrences },
        });
        if !package.kind.is_system() && !group.is_empty() {
            one["group"] = json!(group);
        }
        if !package.licenses.is_empty() {
            let licences =
                package.licenses.iter().map(|name| json!({ "license": { "name": name } }));
            one["licenses"] = licences.collect();
        }
        if !package.vendor.is_empty() {
            one["supplier"] = json!({ "name": package.vendor });
        }
        listed.push(one);
        references.push(url);
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", about.uuid()),
        "version": 1,
        "metadata": {
            "timestamp": about.at.to_string(),
            "tools": {
                "components": [
                    { "type": "application", "name": "atoll", "version": about.tool_version },
                ],
            },
            "component": {
                "bom-ref": root,
                "type": "container",
                "name": about.repository,
                "version": about.digest.to_string(),
                "purl": root,
            },
        },
        "components": listed,
        "dependencies": [{ "ref": root, "dependsOn": references }],
    })
}
