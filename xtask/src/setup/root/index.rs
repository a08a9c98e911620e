//! What a suite has: its `Packages` index (deb-control(5)), as far as dependencies need it.

use super::version;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A relation to another package: `name (>= version)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The package's name, or that of a virtual one.
    pub name: String,
    /// The comparison and the version that it is with.
    pub bound: Option<(Bound, String)>,
}

/// How a version has to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `<<`
    Less,
    /// `<=`
    AtMost,
    /// `=`
    Exactly,
    /// `>=`
    AtLeast,
    /// `>>`
    More,
}

impl Relation {
    /// Reads `name:qualifier (>= version)`. What qualifies the name is of no use where all is of one architecture.
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.trim().split_once([' ', '(']).unwrap_or((text.trim(), ""));
        let name = name.split_once(':').map_or(name, |(name, _)| name).trim();
        if name.is_empty() {
            return None;
        }
        let inside = rest.trim().trim_start_matches('(').split(')').next().unwrap_or("").trim();
        let bound = if inside.is_empty() {
            None
        } else {
            let (sign, version) = inside.split_at(inside.find(|c| !"<>=".contains(c))?);
            let bound = match sign {
                "<<" => Bound::Less,
                // An obsolete form of it.
                "<=" | "<" => Bound::AtMost,
                "=" => Bound::Exactly,
                ">=" | ">" => Bound::AtLeast,
                ">>" => Bound::More,
                _ => return None,
            };
            Some((bound, version.trim().to_owned()))
        };
        Some(Self { name: name.to_owned(), bound })
    }

    /// Reads a list of relations, separated by commas. What can't be read is left out.
    fn list(text: &str) -> Vec<Self> {
        text.split(',').filter_map(Self::parse).collect()
    }

    /// Whether a version will do.
    pub fn admits(&self, version: &str) -> bool {
        let Some((bound, wanted)) = &self.bound else { return true };
        let order = version::compare(version, wanted);
        match bound {
            Bound::Less => order == Ordering::Less,
            Bound::AtMost => order != Ordering::Greater,
            Bound::Exactly => order == Ordering::Equal,
            Bound::AtLeast => order != Ordering::Less,
            Bound::More => order == Ordering::Greater,
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((bound, version)) = &self.bound else { return f.write_str(&self.name) };
        let sign = match bound {
            Bound::Less => "<<",
            Bound::AtMost => "<=",
            Bound::Exactly => "=",
            Bound::AtLeast => ">=",
            Bound::More => ">>",
        };
        write!(f, "{} ({sign} {version})", self.name)
    }
}

/// A package of a suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture; `all`: any.
    pub arch: String,
    /// The suite that has it.
    pub suite: String,
    /// Its file below the mirror's top.
    pub path: String,
    /// Bytes of that file.
    pub size: u64,
    /// Bytes that it says it takes when it is installed.
    pub installed: u64,
    /// The file's SHA-256.
    pub sha256: String,
    /// What it can't be without: one of each group.
    pub depends: Vec<Vec<Relation>>,
    /// What it can't be with.
    pub conflicts: Vec<Relation>,
    /// Names that it stands for beside its own; a version after `=` if it says which.
    pub provides: Vec<Relation>,
}

impl Package {
    /// Whether it does what a relation asks for, under its own name or another.
    pub fn satisfies(&self, relation: &Relation) -> bool {
        (self.name == relation.name && relation.admits(&self.version))
            || self.provides.iter().any(|provided| {
                provided.name == relation.name
                    && match (&provided.bound, &relation.bound) {
                        (_, None) => true,
                        (Some((_, version)), Some(_)) => relation.admits(version),
                        // Policy 7.5: a name without a version does for no bound.
                        (None, Some(_)) => false,
                    }
            })
    }
}

/// The packages of some suites: of each name the newest version.
#[derive(Clone, Debug, Default)]
pub struct Index {
    packages: BTreeMap<String, Package>,
    /// Who provides a name.
    providers: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Takes in a suite's index.
    pub fn add(&mut self, suite: &str, text: &str) {
        for stanza in text.split("\n\n") {
            let Some(package) = package(suite, stanza) else { continue };
            let older = self.packages.get(&package.name).is_none_or(|known| {
                version::compare(&known.version, &package.version) == Ordering::Less
            });
            if older {
                self.packages.insert(package.name.clone(), package);
            }
        }
        self.providers.clear();
        for package in self.packages.values() {
            for provided in &package.provides {
                let names = self.providers.entry(provided.name.clone()).or_default();
                if !names.contains(&package.name) {
                    names.push(package.name.clone());
                }
            }
        }
    }

    /// A package by its name.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.packages.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str)
    }

    /// The packages that do what a relation asks for: first the one of that name, then the others by their names.
    pub fn candidates<'a>(&'a self, relation: &'a Relation) -> impl Iterator<Item = &'a Package> {
        let own = self.get(&relation.name);
        let others = self.providers.get(&relation.name).into_iter().flatten();
        let others =
            others.filter(|name| **name != relation.name).filter_map(|name| self.get(name));
        own.into_iter().chain(others).filter(|package| package.satisfies(relation))
    }
}

/// Reads one stanza; none if it describes no package file.
fn package(suite: &str, stanza: &str) -> Option<Package> {
    let mut package = Package { suite: suite.to_owned(), ..Package::default() };
    for line in stanza.lines() {
        // A line that goes on with a field is never one of those that are wanted here.
        let Some((field, value)) = line.split_once(": ") else { continue };
        match field {
            "Package" => package.name = value.to_owned(),
            "Version" => package.version = value.to_owned(),
            "Architecture" => package.arch = value.to_owned(),
            "Filename" => package.path = value.to_owned(),
            "Size" => package.size = value.parse().ok()?,
            "Installed-Size" => package.installed = value.parse::<u64>().ok()?.saturating_mul(1024),
            "SHA256" => package.sha256 = value.to_owned(),
            "Provides" => package.provides = Relation::list(value),
            "Depends" | "Pre-Depends" => package.depends.extend(
                value
                    .split(',')
                    .map(|group| group.split('|').filter_map(Relation::parse).collect())
                    .filter(|group: &Vec<_>| !group.is_empty()),
            ),
            "Conflicts" | "Breaks" => package.conflicts.extend(Relation::list(value)),
            _ => {}
        }
    }
    let whole = [&package.name, &package.version, &package.path, &package.sha256];
    whole.iter().all(|value| !value.is_empty()).then_some(package)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A stanza as an index has it, with more fields.
    pub fn stanza(name: &str, version: &str, more: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: mips64el\nInstalled-Size: 3\n\
             Filename: pool/main/x/{name}_{version}_mips64el.deb\nSize: 1000\n\
             SHA256: {}\n{more}Description: a test\n of more lines: two\n\n",
            "1".repeat(64)
        )
    }

    #[test]
    fn a_stanza_is_read() {
        let more = "Pre-Depends: base (>= 1)\nDepends: a | b (<< 2~), c:any (= 1:2-3)\nBreaks: d\n\
                    Conflicts: e (<= 4)\nProvides: f, g (= 5)\n";
        let mut index = Index::default();
        index.add("bookworm", &stanza("one", "1.0-1", more));
        let one = index.get("one").unwrap();
        assert_eq!((one.size, one.installed, one.suite.as_str()), (1000, 3072, "bookworm"));
        let text = |relations: &[Relation]| {
            relations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
        };
        let depends: Vec<_> = one.depends.iter().map(|group| text(group)).collect();
        assert_eq!(depends, ["base (>= 1)", "a | b (<< 2~)", "c (= 1:2-3)"]);
        assert_eq!(text(&one.conflicts), "d | e (<= 4)");
        assert_eq!(text(&one.provides), "f | g (= 5)");
    }

    #[test]
    fn the_newest_version_counts_whatever_the_order() {
        let old = stanza("one", "1.9", "Provides: gone\n");
        let new = stanza("one", "1.10", "");
        for (first, second) in [(&old, &new), (&new, &old)] {
            let mut index = Index::default();
            index.add("bookworm", first);
            index.add("bookworm-security", second);
            assert_eq!(index.get("one").unwrap().version, "1.10");
            let gone = Relation { name: "gone".into(), bound: None };
            assert_eq!(index.candidates(&gone).count(), 0);
        }
    }

    #[test]
    fn bounds_are_those_of_debian() {
        let admits = |text: &str, version: &str| Relation::parse(text).unwrap().admits(version);
        for (text, yes, no) in [
            ("a (<< 2)", "2~", "2"),
            ("a (<= 2)", "2", "2.1"),
            ("a (= 2-1)", "2-1", "2-1+b1"),
            ("a (>= 2)", "2", "2~"),
            ("a(>>2)", "2.1", "2"),
        ] {
            assert!(admits(text, yes) && !admits(text, no), "{text}");
        }
        assert!(admits("a", "0"));
        assert_eq!(Relation::parse("a (~ 2)"), None);
    }

    #[test]
    fn what_is_provided_satisfies_what_it_says() {
        let mut index = Index::default();
        index.add(
            "s",
            &(stanza("b", "1", "Provides: v\n") + &stanza("c", "1", "Provides: v (= 3)\n")),
        );
        let names = |text: &str| {
            let relation = Relation::parse(text).unwrap();
            index.candidates(&relation).map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("v"), ["b", "c"]);
        assert_eq!(names("v (>= 3)"), ["c"]);
        assert_eq!(names("v (>= 4)"), [""; 0]);
        assert_eq!(names("b (>= 2)"), [""; 0]);
    }

    #[test]
    fn what_is_no_package_is_left_out() {
        let mut index = Index::default();
        index.add("s", &format!("\n\nPackage: half\n\nrubbish\n\n{}", stanza("one", "1", "")));
        assert_eq!(index.names().collect::<Vec<_>>(), ["one"]);
    }
}
