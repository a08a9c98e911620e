//! Which mirror to fetch from: the one that the system's own apt is set up with.
//!
//! Both of apt's formats are read (sources.list(5)): one-line `.list` files and deb822 `.sources`
//! files. No host name stands in this project.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The variable that names a mirror where the system's apt names none.
pub const VARIABLE: &str = "HONEYCOMB_DEBIAN_MIRROR";

/// A place that holds Debian packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The archive's top, without a slash at the end.
    pub main: String,
    /// The top of the security archive.
    pub security: String,
    /// Keyrings that the system's sources name for it.
    pub keyrings: Vec<PathBuf>,
    /// Where that was said, for messages.
    pub said_by: String,
}

impl Mirror {
    /// The archive that a suite lies in.
    pub fn top(&self, suite: &str) -> &str {
        if suite.ends_with("-security") { &self.security } else { &self.main }
    }
}

/// One enabled binary source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Vec<PathBuf>,
}

/// The mirrors to try, best first.
///
/// # Errors
/// Neither the variable nor the system's apt names one.
pub fn mirrors() -> Result<Vec<Mirror>> {
    if let Ok(value) = std::env::var(VARIABLE)
        && !value.trim().is_empty()
    {
        return Ok(vec![from_variable(&value)?]);
    }
    let found = from_system(Path::new("/etc/apt"));
    if found.is_empty() {
        bail!(
            "this system's apt names no Debian mirror: set {VARIABLE} to one (the address of its \
             folder that holds pool/ and dists/), or bring tools of your own: docs/setup.md"
        );
    }
    Ok(found)
}

/// The mirror that the variable names: its archive, and after a blank its security archive, which
/// otherwise is its sibling `…-security`.
fn from_variable(value: &str) -> Result<Mirror> {
    let mut words = value.split_whitespace().map(|uri| uri.trim_end_matches('/').to_owned());
    let main = words.next().unwrap_or_default();
    let security = words.next().unwrap_or_else(|| format!("{main}-security"));
    if words.next().is_some() || !is_fetchable(&main) || !is_fetchable(&security) {
        bail!(
            "{VARIABLE}={value:?}: expected the address of a Debian mirror (http:, https: or file:), \
             and perhaps that of its security archive after a blank"
        );
    }
    Ok(Mirror { main, security, keyrings: Vec::new(), said_by: VARIABLE.into() })
}

/// Whether the address is of a kind that single files can be fetched from.
fn is_fetchable(uri: &str) -> bool {
    ["http://", "https://", "file:/"].iter().any(|scheme| uri.starts_with(scheme))
}

/// The Debian mirrors of an apt configuration folder.
fn from_system(etc_apt: &Path) -> Vec<Mirror> {
    let mut sources = Vec::new();
    for (file, text) in source_files(etc_apt) {
        let parsed = if file.extension().is_some_and(|extension| extension == "sources") {
            parse_deb822(&text)
        } else {
            parse_one_line(&text)
        };
        sources.extend(parsed);
    }
    for source in &mut sources {
        source.uris = source.uris.iter().flat_map(|uri| resolve_mirror_list(uri)).collect();
    }
    choose(&sources)
}

/// The files apt reads, in its order: `sources.list`, then what lies in `sources.list.d`.
fn source_files(etc_apt: &Path) -> Vec<(PathBuf, String)> {
    let mut parts: Vec<_> = std::fs::read_dir(etc_apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "list" || e == "sources"))
        .collect();
    parts.sort();
    parts.insert(0, etc_apt.join("sources.list"));
    parts
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(&path).ok().map(|text| (path, text)))
        .collect()
}

/// `mirror+file:` names a local list of mirrors (as Debian's cloud images do): its entries.
fn resolve_mirror_list(uri: &str) -> Vec<String> {
    let Some(file) = uri.strip_prefix("mirror+file:") else { return vec![uri.to_owned()] };
    let file = format!("/{}", file.trim_start_matches('/'));
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| !word.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// Parses the one-line format: `deb [option=value …] URI SUITE COMPONENT…`.
fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

/// Parses one line of the one-line format; none if it is no binary source.
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest =
        line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim();
    let mut source = Source::default();
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        let signed =
            options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        source.signed_by =
            signed.into_iter().flat_map(|v| v.split(',')).map(PathBuf::from).collect();
        rest = after.trim();
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris.push(words.next()?);
    source.suites.push(words.next()?);
    source.components = words.collect();
    Some(source)
}

/// Parses the deb822 format: stanzas of `Field: value`, continued by indented lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let stanza = stanzas.last_mut().expect("there is always one");
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas.iter().filter_map(|stanza| source_of_stanza(stanza)).collect()
}

/// The source a stanza describes; none if it is disabled or for source packages only.
fn source_of_stanza(stanza: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| {
        stanza.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str())
    };
    let words = |name| field(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let off = ["no", "false", "off", "0", "without", "disable"];
    if off.contains(&field("enabled").to_ascii_lowercase().as_str()) {
        return None;
    }
    if !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    // A key may stand in the file itself instead of a keyring's path: such a value is no path.
    let signed_by = words("signed-by").into_iter().map(PathBuf::from);
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: signed_by.filter(|path| path.is_absolute()).collect(),
    })
}

/// Debian's releases by the names that sources give them.
const RELEASES: [&str; 10] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
];

/// Whether a source is of Debian's own archive, as far as its suite and component can tell.
fn is_debian(source: &Source, suffixes: &[&str]) -> bool {
    let is_release = |suite: &String| {
        RELEASES.iter().any(|release| {
            suite.strip_prefix(release).is_some_and(|suffix| suffixes.contains(&suffix))
        })
    };
    source.suites.iter().any(is_release) && source.components.iter().any(|c| c == "main")
}

/// Picks Debian's archive and its security archive out of all sources. Other vendors use the same
/// suite names, so those whose address or keyring says Debian come first; that the right one is
/// found is ensured by hash, not by this order.
fn choose(sources: &[Source]) -> Vec<Mirror> {
    let says_debian = |source: &Source, uri: &str| {
        let by_key = source.signed_by.iter().any(|path| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("debian-archive"))
        });
        by_key || uri.split('/').skip(3).any(|part| part.starts_with("debian"))
    };
    let pick = |suffixes: &[&str]| {
        let mut found: Vec<(bool, String, &Source)> = sources
            .iter()
            .filter(|source| is_debian(source, suffixes))
            .flat_map(|source| source.uris.iter().map(move |uri| (uri, source)))
            .filter(|(uri, _)| is_fetchable(uri))
            .map(|(uri, source)| {
                (!says_debian(source, uri), uri.trim_end_matches('/').to_owned(), source)
            })
            .collect();
        found.sort_by_key(|(other, _, _)| *other);
        found
    };
    let security = pick(&["-security", "/updates"]);
    let mut mirrors: Vec<Mirror> = Vec::new();
    for (_, main, source) in pick(&["", "-updates", "-backports"]) {
        if mirrors.iter().any(|mirror| mirror.main == main) {
            continue;
        }
        let sibling = (false, format!("{main}-security"), source);
        let (_, security, other) = security.first().unwrap_or(&sibling);
        let mut keyrings = source.signed_by.clone();
        keyrings.extend(other.signed_by.iter().filter(|k| !source.signed_by.contains(k)).cloned());
        let said_by = "this system's apt".into();
        mirrors.push(Mirror { main, security: security.clone(), keyrings, said_by });
    }
    mirrors
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# http://snapshot.example/
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites:
 bookworm-security
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdA
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
";

    const ONE_LINE: &str = "\
# deb http://comment.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://a.example/debian bookworm main contrib # the archive
deb\thttps://a.example/debian-security bookworm-security main
deb cdrom:[Debian]/ bookworm main
deb https://vendor.example/linux bookworm stable
deb https://tools.example/ cloud-sdk-bookworm main
";

    #[test]
    fn deb822_is_read_with_comments_continuations_inline_keys_and_disabled_stanzas() {
        let mirrors = choose(&parse_deb822(DEB822));
        assert_eq!(mirrors.len(), 1, "{mirrors:?}");
        assert_eq!(mirrors[0].main, "http://mirror.example/debian");
        assert_eq!(mirrors[0].security, "http://mirror.example/debian-security");
        assert_eq!(
            mirrors[0].keyrings,
            [Path::new("/usr/share/keyrings/debian-archive-keyring.gpg")]
        );
        assert_eq!(mirrors[0].top("bookworm-backports"), mirrors[0].main);
        assert_eq!(mirrors[0].top("bookworm-security"), mirrors[0].security);
    }

    #[test]
    fn one_line_sources_are_read_with_options_and_comments() {
        let mirrors = choose(&parse_one_line(ONE_LINE));
        assert_eq!(mirrors.len(), 1, "{mirrors:?}");
        assert_eq!(mirrors[0].main, "https://a.example/debian");
        assert_eq!(mirrors[0].security, "https://a.example/debian-security");
        assert_eq!(mirrors[0].keyrings.len(), 1);
    }

    #[test]
    fn debian_itself_comes_before_a_vendor_with_the_same_suite() {
        let text = "deb https://apt.vendor.example bookworm main\n\
                    deb http://ftp.example/debian trixie main\n";
        let mains: Vec<_> = choose(&parse_one_line(text)).into_iter().map(|m| m.main).collect();
        assert_eq!(mains, ["http://ftp.example/debian", "https://apt.vendor.example"]);
    }

    #[test]
    fn a_security_archive_that_is_not_named_is_the_siblings() {
        let mirrors = choose(&parse_one_line("deb http://ftp.example/debian stable main"));
        assert_eq!(mirrors[0].security, "http://ftp.example/debian-security");
    }

    #[test]
    fn other_distributions_name_no_mirror() {
        let ubuntu = "deb http://archive.example/ubuntu noble main universe\n";
        assert_eq!(choose(&parse_one_line(ubuntu)), []);
        assert_eq!(choose(&parse_deb822("")), []);
    }

    #[test]
    fn a_whole_configuration_folder_is_read() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::create_dir(etc.path().join("sources.list.d")).unwrap();
        let list = etc.path().join("mirrors.list");
        std::fs::write(&list, "# ours\nhttp://cloud.example/debian\tpriority:1\n").unwrap();
        let text = format!(
            "Types: deb\nURIs: mirror+file:{}\nSuites: bookworm\nComponents: main\n",
            list.display()
        );
        std::fs::write(etc.path().join("sources.list.d/debian.sources"), text).unwrap();
        std::fs::write(etc.path().join("sources.list.d/old.list.save"), ONE_LINE).unwrap();
        let mirrors = from_system(etc.path());
        assert_eq!(mirrors.len(), 1, "{mirrors:?}");
        assert_eq!(mirrors[0].main, "http://cloud.example/debian");
    }

    #[test]
    fn the_variable_takes_one_address_or_two() {
        let one = from_variable(" http://m.example/debian/ ").unwrap();
        assert_eq!(one.security, "http://m.example/debian-security");
        let two = from_variable("file:/srv/debian http://s.example/sec/").unwrap();
        assert_eq!(
            (two.main.as_str(), two.security.as_str()),
            ("file:/srv/debian", "http://s.example/sec")
        );
        for bad in ["m.example/debian", "http://a http://b http://c", "ftp://x/y"] {
            let error = from_variable(bad).unwrap_err().to_string();
            assert!(error.contains(VARIABLE) && error.contains(bad), "{error}");
        }
    }
}
