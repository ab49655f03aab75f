//! Certificates of a CA that only those who are told of it trust.

use std::path::Path;

use crate::{process, tools};

/// Makes in `folder` a CA (`ca.crt`) and a node's certificate for `address` (`node.crt`,
/// `node.key`).
///
/// # Panics
/// When openssl is missing or does not make them.
pub fn certify(folder: &Path, address: &str) {
    let openssl = |arguments: &str| {
        process::succeed(
            tools::packaged("openssl", "openssl").args(arguments.split(' ')).current_dir(folder),
        );
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.join("names"), format!("subjectAltName=IP:{address}\n")).expect("a file");
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=shore"));
    openssl(&format!("req {key} -keyout node.key -out node.csr -subj /CN=node"));
    openssl(
        "x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out node.crt",
    );
}
