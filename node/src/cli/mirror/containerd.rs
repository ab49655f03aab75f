//! `atoll mirror containerd`: writes `certs.d/_default/hosts.toml`, or one file for each registry.

use std::io;
use std::path::{Path, PathBuf};

use rules::proxies::mirror::{DOCKER_HUB, registry};

use super::Asking;
use super::files::{put, quoted};

/// Arguments of `mirror containerd`.
#[derive(clap::Args)]
pub(super) struct Containerd {
    #[command(flatten)]
    asking: Asking,
    /// Write the files. Without it they are printed.
    #[arg(long)]
    install: bool,
    /// Only this registry (docker.io), in a file of its own, which names the registry itself as the
    /// last resort. May be given several times. Without it: one file for all registries that have
    /// no file of their own.
    #[arg(long)]
    registry: Vec<String>,
    /// The folder where containerd looks for hosts.toml files.
    #[arg(long, default_value = "/etc/containerd/certs.d", value_name = "DIR")]
    certs_dir: PathBuf,
}

/// How long containerd may take to connect to a node. Without this, a node that drops all packets
/// costs 15 s or more in each step.
const DIAL: &str = "1s";

/// Prints or writes the files.
pub(super) fn run(containerd: &Containerd) -> io::Result<()> {
    let known = containerd.asking.ask()?;
    let nodes = containerd.asking.nodes(&known);
    let authority = containerd.asking.authority()?;
    if containerd.registry.is_empty() {
        let path = containerd.certs_dir.join("_default/hosts.toml");
        put(&path, &hosts(None, &nodes, authority.as_deref()), containerd.install)?;
    }
    // the file for all registries lets containerd ask the registry itself
    let own = match containerd.registry.is_empty() {
        true => known.gated.clone(),
        false => containerd.registry.iter().map(|written| registry(written)).collect(),
    };
    for name in own {
        if !known.registries.contains(&name) {
            eprintln!(
                "{name} is not among what the mesh mirrors for everyone ({}): it will answer 404, and containerd will ask {name} itself",
                known.named()
            );
        }
        let path = containerd.certs_dir.join(&name).join("hosts.toml");
        let last = Last::of(&name, &known.gated, &nodes);
        put(&path, &hosts(Some(last), &nodes, authority.as_deref()), containerd.install)?;
    }
    eprintln!(
        "containerd reads these files at each pull. Its CRI plugin looks for them only if /etc/containerd/config.toml says config_path = \"{dir}\", one path, under \
         [plugins.\"io.containerd.grpc.v1.cri\".registry] (containerd 1.x) or [plugins.\"io.containerd.cri.v1.images\".registry] (2.x), and nothing under registry.mirrors, \
         beside which it would not start; restart containerd after changing that. ctr needs --hosts-dir {dir}. A node that does not answer at all costs containerd 2.x one \
         second for each connection, but up to 5 s a pull (dial_timeout); 1.x does not know that setting and waits 30 s for each step of a pull.",
        dir = containerd.certs_dir.display()
    );
    Ok(())
}

/// Whom containerd asks last.
enum Last<'a> {
    /// The registry itself.
    Itself(String),
    /// A node: what the mesh refuses must not come from the registry.
    Node(&'a str),
}

impl<'a> Last<'a> {
    fn of(name: &str, gated: &[String], nodes: &'a [String]) -> Self {
        match nodes.first().filter(|_| gated.iter().any(|one| one == name)) {
            Some(node) => Last::Node(node),
            None if name == DOCKER_HUB => Last::Itself("https://registry-1.docker.io".to_owned()),
            None => Last::Itself(format!("https://{name}")),
        }
    }
}

/// The content of the file. The file for all registries names no server: then containerd asks the
/// image's own registry last.
fn hosts(last: Option<Last<'_>>, nodes: &[String], authority: Option<&Path>) -> String {
    let mut out = String::new();
    match last {
        None => {}
        Some(Last::Itself(server)) => {
            let said = "asked last, and where pushes go";
            out.push_str(&format!("\n# {said}\nserver = {}\n", quoted(&server)));
        }
        Some(Last::Node(node)) => {
            let said = "the mesh refuses some images of this registry, so nobody else is asked";
            out.push_str(&format!("\n# {said}\nserver = {}\n", quoted(node)));
            if let Some(ca) = authority.filter(|_| !super::nodes::is_plain(node)) {
                out.push_str(&format!("ca = [{}]\n", quoted(&ca.to_string_lossy())));
            }
        }
    }
    for node in nodes {
        out.push_str(&format!(
            "\n[host.{}]\n  capabilities = [\"pull\", \"resolve\"]\n",
            quoted(node)
        ));
        out.push_str(&format!("  dial_timeout = {}\n", quoted(DIAL)));
        if let Some(ca) = authority.filter(|_| !super::nodes::is_plain(node)) {
            out.push_str(&format!("  ca = [{}]\n", quoted(&ca.to_string_lossy())));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_own_file_ends_at_the_registry_and_the_catch_all_names_none() {
        let nodes = ["http://n1:5000".to_owned(), "https://n2".to_owned()];
        let all = hosts(None, &nodes, Some(Path::new("/etc/ca.pem")));
        assert!(!all.contains("server"), "{all}");
        assert!(all.find("n1").unwrap() < all.find("n2").unwrap());
        assert_eq!(all.matches("ca = [\"/etc/ca.pem\"]").count(), 1, "for https only: {all}");
        assert!(!all.contains("push"));
        assert_eq!(all.matches("dial_timeout = \"1s\"").count(), nodes.len(), "{all}");
        let gated = ["quay.io".to_owned()];
        let of = |name: &str, gated: &[String], authority: Option<&Path>| {
            hosts(Some(Last::of(name, gated, &nodes)), &nodes, authority)
        };
        let hub = of("docker.io", &gated, None);
        assert!(hub.contains("server = \"https://registry-1.docker.io\""), "{hub}");
        assert!(of("quay.io", &[], None).contains("server = \"https://quay.io\""));
        let refusing = of("quay.io", &gated, Some(Path::new("/etc/ca.pem")));
        assert!(refusing.contains("server = \"http://n1:5000\"\n\n[host"), "{refusing}");
        assert!(!refusing.contains("https://quay.io"), "{refusing}");
    }
}
