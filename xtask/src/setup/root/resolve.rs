//! What packages need beside themselves.
//!
//! As apt without recommendations: of alternatives the first that there is, unless another is chosen already. There is
//! no going back: a release is made so that this finds a set that fits together, and if not so, it says who clashes
//! with whom.

use super::index::{Index, Package, Relation};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, VecDeque};

/// Packages that a root does without, because only what runs when a package is installed needs them (nothing
/// runs here), or because the kernel comes without a root. Who wants one names it.
const GIVEN: [&str; 12] = [
    "adduser",
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "initramfs-tools",
    "install-info",
    "linux-base",
    "lsb-base",
    "sysvinit-utils",
    "tar",
    "ucf",
];

/// Edits between a name and one that may have been meant.
const NEAR: usize = 2;

/// Packages by their names, and all that they depend on, in the order of names.
///
/// # Errors
/// A package that there is not, or two that can't be together.
pub fn resolve<'a>(index: &'a Index, wanted: &[String]) -> Result<Vec<&'a Package>> {
    let mut chosen: BTreeMap<&str, &Package> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for name in wanted {
        let Some(package) = index.get(name) else { bail!("{}", unknown(index, name)) };
        if chosen.insert(&package.name, package).is_none() {
            queue.push_back(package);
        }
    }
    while let Some(package) = queue.pop_front() {
        for group in &package.depends {
            let is_there = |relation: &Relation| {
                GIVEN.contains(&relation.name.as_str())
                    || chosen.values().any(|one| one.satisfies(relation))
            };
            if group.iter().any(is_there) {
                continue;
            }
            let Some(next) = group.iter().find_map(|relation| index.candidates(relation).next())
            else {
                let group: Vec<_> = group.iter().map(ToString::to_string).collect();
                bail!(
                    "{} needs {}, which the release does not have; ask for another package",
                    package.name,
                    group.join(" or ")
                );
            };
            chosen.insert(&next.name, next);
            queue.push_back(next);
        }
    }
    let chosen: Vec<_> = chosen.into_values().collect();
    for package in &chosen {
        for conflict in &package.conflicts {
            let clash = |other: &&&Package| other.name != package.name && other.satisfies(conflict);
            if let Some(other) = chosen.iter().find(clash) {
                bail!(
                    "{} {} can't be together with {} {}: ask for one of them",
                    package.name,
                    package.version,
                    other.name,
                    other.version
                );
            }
        }
    }
    Ok(chosen)
}

/// What to say of a name that no package has.
fn unknown(index: &Index, name: &str) -> String {
    let relation = Relation { name: name.to_owned(), bound: None };
    let providers: Vec<_> = index.candidates(&relation).map(|one| one.name.as_str()).collect();
    if !providers.is_empty() {
        return format!("{name} is no package but what several are: {}", providers.join(", "));
    }
    // Of equally near ones the one that begins most alike: few people mistype the first letter.
    let alike = |known: &str| known.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let near = index
        .names()
        .map(|known| (strsim::osa_distance(name, known), std::cmp::Reverse(alike(known)), known))
        .filter(|(distance, ..)| *distance <= NEAR)
        .min();
    match near {
        Some((_, _, near)) => format!("there is no package {name}; did you mean {near}?"),
        None => format!(
            "there is no package {name}; `apt-cache search` and packages.debian.org know their names"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::stanza;
    use super::*;

    fn index(packages: &[(&str, &str, &str)]) -> Index {
        let mut index = Index::default();
        let text: String = packages.iter().map(|(n, v, more)| stanza(n, v, more)).collect();
        index.add("bookworm", &text);
        index
    }

    /// What is chosen, in one line; or the error.
    fn chosen(index: &Index, wanted: &[&str]) -> String {
        let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        match resolve(index, &wanted) {
            Ok(found) => found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn dependencies_come_along_once() {
        let index = index(&[
            ("gcc", "12", "Depends: cpp (= 12), libc (>= 2)\n"),
            ("cpp", "12", "Pre-Depends: libc (>= 1)\nDepends: gcc (= 12)\n"),
            ("libc", "2", "Depends: dpkg (>= 99), debconf | debconf-2.0\n"),
            ("other", "1", ""),
        ]);
        assert_eq!(chosen(&index, &["gcc"]), "cpp gcc libc");
        assert_eq!(chosen(&index, &["libc", "other", "libc"]), "libc other");
        assert_eq!(chosen(&index, &[]), "");
    }

    #[test]
    fn of_alternatives_the_first_that_there_is() {
        let packages = [
            ("a", "1", "Depends: x | y\n"),
            ("b", "1", "Depends: gone (>= 1) | y\n"),
            ("c", "1", "Depends: x (>= 2) | v\n"),
            ("x", "1", ""),
            ("y", "1", "Provides: v\n"),
            ("z", "1", "Provides: v\n"),
        ];
        let index = index(&packages);
        assert_eq!(chosen(&index, &["a"]), "a x");
        assert_eq!(chosen(&index, &["a", "y"]), "a y", "one of them is there already");
        assert_eq!(chosen(&index, &["b"]), "b y");
        assert_eq!(chosen(&index, &["c"]), "c y", "the first by name of those that provide it");
        assert_eq!(chosen(&index, &["c", "z"]), "c z");
    }

    #[test]
    fn what_can_not_be_is_said_in_a_line() {
        let index = index(&[
            ("make", "1", "Conflicts: make-guile\n"),
            ("make-guile", "1", "Provides: make\nConflicts: make\n"),
            ("self", "1", "Provides: kind\nConflicts: kind\n"),
            ("hole", "1", "Depends: nothing (>= 3) | nil\n"),
            ("late", "1", "Depends: make (>= 2)\n"),
            ("one", "1", "Provides: virtual\n"),
            ("two", "1", "Provides: virtual\n"),
            ("aake", "1", ""),
        ]);
        assert_eq!(chosen(&index, &["self"]), "self", "a package does not conflict with itself");
        for (wanted, message) in [
            (
                &["make", "make-guile"][..],
                "make 1 can't be together with make-guile 1: ask for one",
            ),
            (&["mkae"], "there is no package mkae; did you mean make?"),
            (&["mmake"], "there is no package mmake; did you mean make?"),
            (&["makee"], "there is no package makee; did you mean make?"),
            (&["frobnicator"], "there is no package frobnicator; `apt-cache search`"),
            (&["virtual"], "virtual is no package but what several are: one, two"),
            (&["hole"], "hole needs nothing (>= 3) or nil, which the release does not have"),
            (&["late"], "late needs make (>= 2), which the release does not have"),
        ] {
            let error = chosen(&index, wanted);
            assert!(error.starts_with(message), "{wanted:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
