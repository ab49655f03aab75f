//! `atoll mirror podman`: writes a file in `registries.conf.d`, for all programs that use
//! containers/image.

use std::io;
use std::path::PathBuf;

use rules::proxies::mirror::{registry, without_colon};

use super::Asking;
use super::files::{put, put_authority, quoted};
use super::nodes::{authority, is_plain};

/// Arguments of `mirror podman`.
#[derive(clap::Args)]
pub(super) struct Podman {
    #[command(flatten)]
    asking: Asking,
    /// Write the file. Without it the file is printed.
    #[arg(long)]
    install: bool,
    /// Only this registry. May be given several times. Without it: every registry that the mesh
    /// mirrors for everyone.
    #[arg(long)]
    registry: Vec<String>,
    /// The folder for the file.
    #[arg(long, default_value = "/etc/containers/registries.conf.d", value_name = "DIR")]
    registries_conf_d: PathBuf,
}

/// Prints or writes the file.
pub(super) fn run(podman: &Podman) -> io::Result<()> {
    let known = podman.asking.ask()?;
    let registries = match podman.registry.is_empty() {
        true => known.registries.clone(),
        false => podman.registry.iter().map(|written| registry(written)).collect(),
    };
    if registries.is_empty() {
        let message = "the mesh mirrors no registry for everyone yet: record one with POST /api/v2.0/registries and make a public project of it, or \
            name one with --registry";
        return Err(io::Error::other(message));
    }
    let nodes = podman.asking.nodes(&known);
    let path = podman.registries_conf_d.join("50-atoll.conf");
    let conf = registries_conf(&registries, &known.plain, &known.gated, &nodes);
    put(&path, &conf, podman.install)?;
    if let Some(ca) = podman.asking.authority()? {
        let beside =
            podman.registries_conf_d.parent().unwrap_or(&podman.registries_conf_d).join("certs.d");
        for node in nodes.iter().filter(|node| !is_plain(node)) {
            put_authority(&beside, authority(node), &ca, podman.install)?;
        }
    }
    eprintln!(
        "podman, buildah and skopeo read this at each pull; CRI-O after `systemctl reload crio`."
    );
    Ok(())
}

/// The content of the file. Registries in `plain` do not use TLS; podman must be told, for its
/// requests to the registry itself. podman does not tell a mirror which registry it means, so the
/// path names it. Of registries in `gated` the mesh refuses some images: podman asks the first node in
/// place of the registry itself, and after the others.
fn registries_conf(
    registries: &[String],
    plain: &[String],
    gated: &[String],
    nodes: &[String],
) -> String {
    let mut out = String::new();
    for name in registries {
        let at = |node: &String| format!("{}/{}", authority(node), without_colon(name));
        let first = nodes.first().filter(|_| gated.contains(name));
        let location = first.map_or_else(|| name.clone(), at);
        out.push_str(&format!("\n[[registry]]\nprefix = {}\n", quoted(name)));
        out.push_str(&format!("location = {}\n", quoted(&location)));
        if first.map_or_else(|| plain.contains(name), |node| is_plain(node)) {
            out.push_str("insecure = true\n");
        }
        for node in nodes {
            let location = at(node);
            out.push_str(&format!("\n[[registry.mirror]]\nlocation = {}\n", quoted(&location)));
            if is_plain(node) {
                out.push_str("insecure = true\n");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_registry() {
        let nodes = ["http://n1:5000".to_owned(), "https://n2".to_owned()];
        let registries = ["docker.io".to_owned(), "r.example:5000".to_owned()];
        let written = registries_conf(&registries, &[], &[], &nodes);
        assert!(
            written.contains("location = \"n1:5000/docker.io\"\ninsecure = true\n"),
            "{written}"
        );
        assert!(written.contains("location = \"n2/r.example_5000\"\n"), "{written}");
        assert_eq!(written.matches("insecure").count(), 2, "{written}");
        let written = registries_conf(&registries, &registries[1..], &[], &nodes);
        assert!(written.contains("location = \"r.example:5000\"\ninsecure = true\n"), "{written}");
        assert!(written.contains("location = \"docker.io\"\n\n"), "{written}");
        let written = registries_conf(&registries[..1], &[], &registries[..1], &nodes);
        assert!(!written.contains("location = \"docker.io\""), "{written}");
        let own = "prefix = \"docker.io\"\nlocation = \"n1:5000/docker.io\"\ninsecure = true\n";
        assert!(written.contains(own), "{written}");
    }
}
