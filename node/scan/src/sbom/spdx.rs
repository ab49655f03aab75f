//! SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/).

use rules::words::digest::Digest;
use serde_json::{Value, json};

use crate::layer::Inventory;

use super::{Subject, components};

const NOTHING: &str = "NOASSERTION";

/// The inventory as SPDX 2.3. The same inventory and subject make the same bytes.
pub fn spdx(inventory: &Inventory, about: &Subject) -> Value {
    let root = id("Image", &about.purl());
    let mut packages = vec![json!({
        "SPDXID": root,
        "name": about.repository,
        "versionInfo": about.digest.to_string(),
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "primaryPackagePurpose": "CONTAINER",
        "externalRefs": [reference(&about.purl())],
    })];
    if let Some(system) = &inventory.system {
        let name = format!("{}:{}", system.family, system.release);
        packages.push(json!({
            "SPDXID": id("System", &name),
            "name": system.family,
            "versionInfo": system.release,
            "downloadLocation": NOTHING,
            "filesAnalyzed": false,
            "licenseConcluded": NOTHING,
            "licenseDeclared": NOTHING,
            "copyrightText": NOTHING,
            "primaryPackagePurpose": "OPERATING-SYSTEM",
        }));
    }
    for (url, (package, places)) in components(inventory) {
        let mut one = json!({
            "SPDXID": id("Package", &url),
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": NOTHING,
            "filesAnalyzed": false,
            "licenseConcluded": NOTHING,
            "licenseDeclared": NOTHING,
            "copyrightText": NOTHING,
            "primaryPackagePurpose": "LIBRARY",
            "sourceInfo": format!("found in {}", places.join(", ")),
            "externalRefs": [reference(&url)],
        });
        // what packages write are seldom SPDX's expressions
        if !package.licenses.is_empty() {
            one["licenseComments"] = json!(package.licenses.join("; "));
        }
        if !package.vendor.is_empty() {
            one["supplier"] = json!(format!("Organization: {}", package.vendor));
        }
        packages.push(one);
    }
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": root,
    })];
    relationships.extend(packages[1..].iter().map(|package| {
        json!({
            "spdxElementId": root,
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": package["SPDXID"],
        })
    }));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}@{}", about.repository, about.digest),
        "documentNamespace": format!("urn:uuid:{}", about.uuid()),
        "creationInfo": {
            "created": about.at.to_string(),
            "creators": [format!("Tool: atoll-{}", about.tool_version)],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn reference(url: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": url,
    })
}

/// An id of an element: letters, digits, `.` and `-` only, and another for another text.
fn id(kind: &str, text: &str) -> String {
    let hex = Digest::sha256(text.as_bytes()).to_string();
    let hex = hex.rsplit(':').next().unwrap_or_default().to_owned();
    format!("SPDXRef-{kind}-{}", &hex[..24])
}
