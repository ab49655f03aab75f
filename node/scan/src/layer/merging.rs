//! Layers over each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::package::{Build, Kind, Package, System};
use crate::packages::release::{RELEASES, Says};
use crate::packages::{What, dpkg};

use super::{Contents, Inventory, Layer};

/// Files of Python that distroless images have without saying so (trivy's list,
/// `pkg/fanal/handler/sysfile`).
const OWNED: [&str; 3] = [
    "usr/lib/python2.7/argparse.egg-info",
    "usr/lib/python2.7/lib-dynload/Python-2.7.egg-info",
    "usr/lib/python2.7/wsgiref.egg-info",
];

/// The most packages of an image. Each layer has a limit of its own, and an image may have many.
const MOST: usize = 200_000;

/// A file that shows, and the layer that it is in.
struct Shown<'a> {
    layer: usize,
    contents: &'a Contents,
}

/// Lays layers over each other, the lowest first, and lists what is left.
///
/// Deleted files do not count, nor do those that an upper layer replaces. Files of languages that a
/// distribution's package has installed do not count either: the distribution mends them by its own
/// versions, and its advisories name its packages.
pub fn merge(layers: &[Layer]) -> Inventory {
    let mut files: BTreeMap<&str, Shown<'_>> = BTreeMap::new();
    let mut gaps: BTreeMap<&str, &str> = BTreeMap::new();
    for (at, layer) in layers.iter().enumerate() {
        for folder in &layer.opaque {
            hide_below(&mut files, folder);
            hide_below(&mut gaps, folder);
        }
        for path in layer.whiteouts.iter().chain(&layer.replaced) {
            files.remove(path.as_str());
            gaps.remove(path.as_str());
            hide_below(&mut files, path);
            hide_below(&mut gaps, path);
        }
        for (path, contents) in &layer.files {
            gaps.remove(path.as_str());
            files.insert(path, Shown { layer: at, contents });
        }
        for (path, why) in &layer.gaps {
            files.remove(path.as_str());
            gaps.insert(path, why);
        }
    }
    let builds: Vec<_> = (0..layers.len()).map(|at| build_of(layers, at)).collect();
    let mut inventory = Inventory {
        format: Inventory::FORMAT,
        system: system(&files),
        repository: repository(&files),
        packages: Vec::new(),
        builds: Vec::new(),
        gaps: gaps.iter().map(|(path, why)| format!("{path}: {why}")).collect(),
    };
    let mut found = packages(layers, &files);
    if found.len() > MOST {
        found.truncate(MOST);
        inventory.gaps.push(format!("it has more than {MOST} packages: the others are left out"));
    }
    for package in found {
        let build = builds.get(package.layer as usize).and_then(Option::as_ref);
        let build = build.map(|build| number(&mut inventory.builds, build));
        inventory.packages.push(Package { build, ..package });
    }
    inventory.packages.sort();
    inventory
}

/// Takes all that is below a folder. An empty name stands for the root.
fn hide_below<T>(files: &mut BTreeMap<&str, T>, folder: &str) {
    if folder.is_empty() {
        files.clear();
        return;
    }
    // all paths that begin with `folder/`: `0` is the character after `/`
    let (from, to) = (format!("{folder}/"), format!("{folder}0"));
    let range = files.range::<str, _>((
        std::ops::Bound::Included(from.as_str()),
        std::ops::Bound::Excluded(to.as_str()),
    ));
    let below: Vec<&str> = range.map(|(path, _)| *path).collect();
    for path in below {
        files.remove(path);
    }
}

fn packages(layers: &[Layer], files: &BTreeMap<&str, Shown<'_>>) -> Vec<Package> {
    let owned = owned(files);
    let mut packages: Vec<Package> = Vec::new();
    let mut known: HashSet<(Kind, &str, &str, &str)> = HashSet::new();
    for (path, shown) in files {
        let listed = &shown.contents.listing.packages;
        let Some(first) = listed.first() else { continue };
        if !first.kind.is_system() && owned.contains(without_usr(path)) {
            continue;
        }
        let brought = brought(layers, path, shown.layer);
        for package in listed {
            // one package of a distribution may be listed twice; of two architectures with one
            // version the first counts, but for RPM, as with trivy
            let arch = if package.kind == Kind::Rpm { package.arch.as_str() } else { "" };
            let key = (package.kind, package.name.as_str(), package.version.as_str(), arch);
            if package.kind.is_system() && !known.insert(key) {
                continue;
            }
            let key = (package.name.as_str(), package.version.as_str(), package.path.as_str());
            let layer = brought.get(&key).copied().unwrap_or(shown.layer);
            packages.push(Package { layer: layer as u32, ..package.clone() });
        }
    }
    packages
}

/// For each package of a file the lowest layer that has it there in this version.
fn brought<'a>(
    layers: &'a [Layer],
    path: &str,
    top: usize,
) -> HashMap<(&'a str, &'a str, &'a str), usize> {
    let mut brought = HashMap::new();
    for (at, layer) in layers.iter().enumerate().take(top + 1) {
        let Some(contents) = layer.files.get(path) else { continue };
        for package in &contents.listing.packages {
            let key = (package.name.as_str(), package.version.as_str(), package.path.as_str());
            brought.entry(key).or_insert(at);
        }
    }
    brought
}

/// The files that distributions' own packages have installed, of those that are read here.
fn owned<'a>(files: &BTreeMap<&'a str, Shown<'a>>) -> HashSet<&'a str> {
    let listed = files.values().flat_map(|shown| &shown.contents.listing.packages);
    let strangers: BTreeSet<&str> = listed
        .filter(|package| package.kind == Kind::Deb && package.third_party)
        .map(|package| package.name.as_str())
        .collect();
    let mut owned: HashSet<&str> = OWNED.iter().map(|path| without_usr(path)).collect();
    for (path, shown) in files {
        let stranger =
            What::of(path) == Some(What::DpkgFiles) && strangers.contains(dpkg::package_of(path));
        if !stranger {
            let paths = &shown.contents.listing.owned;
            owned.extend(paths.iter().map(|path| without_usr(path)));
        }
    }
    owned
}

/// `/bin` is `/usr/bin` in most distributions, and packages say either.
fn without_usr(path: &str) -> &str {
    path.strip_prefix("usr/").unwrap_or(path)
}

fn system(files: &BTreeMap<&str, Shown<'_>>) -> Option<System> {
    let said = |path: &str| match &files.get(path)?.contents.says {
        Some(Says::Release { id, version, name }) => Some((id, version, name)),
        _ => None,
    };
    let (id, version, name) = RELEASES.iter().find_map(|path| said(path))?;
    let mut system = System { family: id.clone(), release: version.clone() };
    if id == "centos" && name.eq_ignore_ascii_case("centos stream") {
        "centos-stream".clone_into(&mut system.family);
    }
    // these say more than os-release, which has no point release, or none at all
    let more = match id.as_str() {
        "debian" => said("etc/debian_version"),
        "centos" => said("etc/centos-release"),
        _ => None,
    };
    if let Some((other, version, _)) = more
        && other == id
        && (system.release.is_empty() || version.starts_with(|c: char| c.is_ascii_digit()))
    {
        version.clone_into(&mut system.release);
    }
    let extended = |shown: &Shown<'_>| shown.contents.says == Some(Says::Extended);
    if system.family == "ubuntu" && files.values().any(extended) {
        system.release.push_str("-ESM");
    }
    Some(system)
}

fn repository(files: &BTreeMap<&str, Shown<'_>>) -> Option<String> {
    files.values().find_map(|shown| match &shown.contents.says {
        Some(Says::Repository(release)) => Some(release.clone()),
        _ => None,
    })
}

/// What one layer says about its build.
fn told(layer: &Layer) -> Option<Build> {
    let mut build = Build::default();
    for contents in layer.files.values() {
        match &contents.says {
            Some(Says::ContentSets(sets)) => build.content_sets.clone_from(sets),
            Some(Says::Nvr(nvr)) => nvr.clone_into(&mut build.nvr),
            _ => {}
        }
    }
    (build != Build::default()).then_some(build)
}

/// The build that a layer belongs to. The lowest of Red Hat's layers says nothing, and the next one
/// speaks for it; layers of others stand on the last one that said something.
fn build_of(layers: &[Layer], at: usize) -> Option<Build> {
    let own = told(&layers[at]);
    match (own, at) {
        (Some(build), _) => Some(build),
        (None, 0) => told(layers.get(1)?),
        (None, at) => layers[..at].iter().rev().find_map(told),
    }
}

/// The number of a build among those that were met.
fn number(builds: &mut Vec<Build>, build: &Build) -> u32 {
    let at = builds.iter().position(|known| known == build).unwrap_or_else(|| {
        builds.push(build.clone());
        builds.len() - 1
    });
    at as u32
}
