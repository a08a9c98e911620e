//! What of a package does not come into a root, and what its maintainer scripts would have done.

/// What no program needs to run: documentation in all forms, translations, character sets other than the C library's
/// own, other tools' notes on a package, and the kernel, which is given to the machine beside the root.
pub const LEFT_OUT: [&str; 11] = [
    "boot",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/gdb",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/lib/*/gconv",
];

/// Whether a pattern stands for a path or for a folder around it. `*` is any part of one name.
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/');
    pattern.split('/').all(|wanted| names.next().is_some_and(|name| matches_name(wanted, name)))
}

fn matches_name(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    (0..=name.len())
        .filter(|&at| name.is_char_boundary(at))
        .any(|at| matches_name(rest, &name[at..]))
}

/// A link that `update-alternatives` would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Where the link is, without the first slash.
    pub link: String,
    /// Where it leads to: an absolute path.
    pub target: String,
    /// Of several, that with the highest counts.
    pub priority: i64,
}

/// The links that a maintainer script registers by `update-alternatives --install LINK NAME TARGET PRIORITY`, with
/// those that go along by `--slave LINK NAME TARGET`, as far as they are written down word by word: the script is
/// read, not run.
pub fn alternatives(script: &str) -> Vec<Alternative> {
    let mut found = Vec::new();
    for line in script.replace("\\\n", " ").lines() {
        let Some((_, words)) = line.split_once("update-alternatives ") else { continue };
        let words: Vec<_> = words.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "--install") else { continue };
        let Some([link, _, target, priority]) = words.get(at + 1..at + 5) else { continue };
        let Ok(priority) = priority.parse() else { continue };
        let mut add = |link: &str, target: &str| {
            let is_path =
                |text: &str| text.starts_with('/') && !text.contains(['$', '`', '"', '\'']);
            if is_path(link) && is_path(target) {
                let link = link.trim_start_matches('/').to_owned();
                found.push(Alternative { link, target: target.to_owned(), priority });
            }
        };
        add(link, target);
        for slave in words[at + 5..].windows(4).filter(|words| words[0] == "--slave") {
            add(slave[1], slave[3]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_folders_and_names() {
        for (pattern, path) in [
            ("usr/share/doc", "usr/share/doc"),
            ("usr/share/doc", "usr/share/doc/a/b"),
            ("usr/lib/*/gconv", "usr/lib/mips64el-linux-gnuabi64/gconv/X.so"),
            ("usr/bin/*lto*", "usr/bin/gcc-lto-dump-12"),
            ("*", "boot/vmlinuz"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("usr/share/doc", "usr/share/doc-base"),
            ("usr/share/doc", "usr/share"),
            ("usr/lib/*/gconv", "usr/lib/a/b/gconv"),
            ("usr/bin/*lto", "usr/bin/lto1"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn alternatives_are_read_where_they_are_written_out() {
        let script = "#!/bin/sh\nset -e\nif [ \"$1\" = configure ]; then\n\
                      update-alternatives --quiet \\\n  --install /usr/bin/cc cc /usr/bin/gcc 20 \\\n  \
                      --slave /usr/share/man/man1/cc.1.gz cc.1.gz /usr/share/man/man1/gcc.1.gz\n\
                      update-alternatives --install /usr/bin/$i $i /usr/bin/x 5\n\
                      update-alternatives --install \"/usr/bin/a\" a /usr/bin/x 5\n\
                      update-alternatives --remove cc /usr/bin/gcc\n\
                      update-alternatives --install /usr/bin/awk awk /usr/bin/mawk ${N}\nfi\n";
        let found: Vec<_> = alternatives(script);
        let link = |link: &str, target: &str| Alternative {
            link: link.into(),
            target: target.into(),
            priority: 20,
        };
        assert_eq!(
            found,
            [
                link("usr/bin/cc", "/usr/bin/gcc"),
                link("usr/share/man/man1/cc.1.gz", "/usr/share/man/man1/gcc.1.gz"),
            ]
        );
    }
}
