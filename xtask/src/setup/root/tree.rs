//! A file system in memory, filled from packages and folders, and written as an archive.
//!
//! As Debian 12 wants it, `/bin`, `/sbin`, `/lib…` are links to their namesakes in `/usr`, and what packages have
//! in them lies there.

use super::super::guest::cpio::Archive;
use super::rules;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tar::EntryType;

/// The folders of the top that are links into `usr`.
const MERGED: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];

/// How many links a path may lead through.
const LINKS_MAX: usize = 40;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory {
        permissions: u32,
    },
    /// Several paths may have the same contents, which is a number in [`Tree::contents`].
    File {
        permissions: u32,
        contents: usize,
    },
    Link {
        target: String,
    },
    Device {
        permissions: u32,
        number: (u32, u32),
    },
}

/// A file system that is being filled.
#[derive(Debug, Default)]
pub struct Tree {
    /// By path, without a slash at its start: so folders come before what is in them.
    nodes: BTreeMap<String, (Node, String)>,
    contents: Vec<Vec<u8>>,
    /// What is left out, and whether there was anything to leave out.
    without: Vec<(String, bool)>,
}

impl Tree {
    /// An empty one, into which nothing comes that these patterns stand for.
    pub fn new(without: impl IntoIterator<Item = String>) -> Self {
        let without = without.into_iter().map(|pattern| (pattern, false)).collect();
        Self { without, ..Self::default() }
    }

    /// The patterns that have left out nothing.
    pub fn useless(&self) -> impl Iterator<Item = &str> {
        self.without.iter().filter(|(_, used)| !used).map(|(pattern, _)| pattern.as_str())
    }

    /// Puts a folder in, and those around it.
    pub fn directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.put(path, Node::Directory { permissions }, "")
    }

    /// Puts a file in.
    pub fn file(&mut self, path: &str, permissions: u32, contents: Vec<u8>) -> Result<()> {
        self.contents.push(contents);
        self.put(path, Node::File { permissions, contents: self.contents.len() - 1 }, "")
    }

    /// Puts a symbolic link in.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.put(path, Node::Link { target: target.to_owned() }, "")
    }

    /// Puts a character device in.
    pub fn device(&mut self, path: &str, permissions: u32, number: (u32, u32)) -> Result<()> {
        self.put(path, Node::Device { permissions, number }, "")
    }

    /// Whether there is something at a path, links followed but for the last.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).is_ok_and(|place| self.nodes.contains_key(&place))
    }

    /// Puts in what a package's tar stream holds.
    pub fn package(&mut self, name: &str, stream: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let text = |bytes: &[u8]| {
                String::from_utf8(bytes.to_vec()).context("a name that is not UTF-8")
            };
            let path = text(&entry.path_bytes())?;
            let permissions = entry.header().mode()? & 0o7777;
            let target = entry.link_name_bytes().map(|bytes| text(&bytes)).transpose()?;
            let target = || target.context("a link without a target");
            let node = match entry.header().entry_type() {
                EntryType::Directory => Node::Directory { permissions },
                EntryType::Symlink => Node::Link { target: target()? },
                EntryType::Link => {
                    let target = self.place(&target()?)?;
                    match self.nodes.get(&target) {
                        Some((node @ Node::File { .. }, _)) => node.clone(),
                        // What it is another name of has been left out.
                        _ => continue,
                    }
                }
                EntryType::Regular | EntryType::Continuous => {
                    let mut contents = Vec::new();
                    entry.read_to_end(&mut contents)?;
                    self.contents.push(contents);
                    Node::File { permissions, contents: self.contents.len() - 1 }
                }
                kind => bail!("{path} is of a kind that a root can't have ({kind:?})"),
            };
            self.put(&path, node, name)?;
        }
        Ok(())
    }

    /// Puts in what is in a folder of the host's; it replaces what is there already.
    pub fn folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let blame = || format!("cannot read {}", folder.display());
        let mut entries: Vec<_> =
            fs::read_dir(folder).and_then(Iterator::collect).with_context(blame)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let blame = || format!("cannot read {}", path.display());
            let name = entry.file_name();
            let name =
                name.to_str().with_context(|| format!("{}: a strange name", path.display()))?;
            let inside = format!("{prefix}{name}");
            let kind = entry.file_type().with_context(blame)?;
            if kind.is_dir() {
                if !self.is_directory(&inside)? {
                    self.directory(&inside, 0o755)?;
                }
                self.folder(&path, &format!("{inside}/"))?;
                continue;
            }
            self.remove(&inside)?;
            if kind.is_symlink() {
                let target = fs::read_link(&path).with_context(blame)?;
                let target = target
                    .to_str()
                    .with_context(|| format!("{}: a strange link", path.display()))?;
                self.link(&inside, target)?;
            } else {
                ensure!(kind.is_file(), "{} is neither file nor folder nor link", path.display());
                let mode = entry.metadata().with_context(blame)?.permissions().mode();
                let permissions = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
                self.file(&inside, permissions, fs::read(&path).with_context(blame)?)?;
            }
        }
        Ok(())
    }

    /// Takes away a file or link.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let place = self.place(path)?;
        if let Some((Node::Directory { .. }, _)) = self.nodes.get(&place) {
            bail!("{path} is a folder in the root already");
        }
        self.nodes.remove(&place);
        Ok(())
    }

    fn is_directory(&self, path: &str) -> Result<bool> {
        let place = self.resolve(&self.place(path)?, LINKS_MAX)?;
        Ok(matches!(self.nodes.get(&place), Some((Node::Directory { .. }, _))))
    }

    /// Where a path really lies: the folders around it followed through links.
    fn place(&self, path: &str) -> Result<String> {
        self.place_within(path, LINKS_MAX)
    }

    fn place_within(&self, path: &str, links: usize) -> Result<String> {
        let mut names: Vec<_> =
            path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        ensure!(!names.contains(&".."), "{path} leads out of its folder");
        if names.first().is_some_and(|first| MERGED.contains(first)) && path != "usr" {
            names.insert(0, "usr");
        }
        let Some((last, around)) = names.split_last() else { return Ok(String::new()) };
        let mut place = String::new();
        for name in around {
            let inside =
                if place.is_empty() { (*name).to_owned() } else { format!("{place}/{name}") };
            place = self.resolve(&inside, links)?;
        }
        Ok(if place.is_empty() { (*last).to_owned() } else { format!("{place}/{last}") })
    }

    /// Where a place leads to, if it is a link.
    fn resolve(&self, place: &str, links: usize) -> Result<String> {
        let Some((Node::Link { target }, _)) = self.nodes.get(place) else {
            return Ok(place.to_owned());
        };
        ensure!(links > 0, "{place} leads through too many links");
        let mut names: Vec<_> = if target.starts_with('/') {
            Vec::new()
        } else {
            place.rsplit_once('/').map_or_else(Vec::new, |(folder, _)| folder.split('/').collect())
        };
        for name in target.split('/').filter(|name| !name.is_empty() && *name != ".") {
            if name == ".." {
                names.pop();
            } else {
                names.push(name);
            }
        }
        let place = self.place_within(&names.join("/"), links - 1)?;
        self.resolve(&place, links - 1)
    }

    /// Puts a node in; `owner` is the package it is of.
    fn put(&mut self, path: &str, node: Node, owner: &str) -> Result<()> {
        let place = self.place(path)?;
        if place.is_empty() {
            return Ok(());
        }
        for (pattern, used) in &mut self.without {
            if rules::matches(pattern, &place) {
                *used = true;
                return Ok(());
            }
        }
        if let Some((parent, _)) = place.rsplit_once('/')
            && !self.is_directory(parent)?
        {
            ensure!(
                !self.nodes.contains_key(parent),
                "{path} is below {parent}, which is no folder"
            );
            self.put(parent, Node::Directory { permissions: 0o755 }, owner)?;
        }
        let Some((old, other)) = self.nodes.get(&place) else {
            self.nodes.insert(place, (node, owner.to_owned()));
            return Ok(());
        };
        let is_same = match (old, &node) {
            // What the package says of a folder counts more than that it has to be there, and a link to a folder is one.
            (Node::Directory { .. }, Node::Directory { .. }) => {
                self.nodes.insert(place, (node, owner.to_owned()));
                return Ok(());
            }
            (Node::Directory { .. }, Node::Link { .. }) => true,
            (Node::Link { .. }, Node::Directory { .. }) => self.is_directory(&place)?,
            (
                Node::File { permissions, contents },
                Node::File { permissions: mode, contents: bytes },
            ) => permissions == mode && self.contents[*contents] == self.contents[*bytes],
            (old, node) => old == node,
        };
        if !is_same {
            let name = |owner: &str| if owner.is_empty() { "the root" } else { owner }.to_owned();
            bail!("{} and {} both have a {path}: leave one of them out", name(other), name(owner));
        }
        Ok(())
    }

    /// The archive, and how many bytes of memory it takes once it is unpacked, in pages of 4 KB.
    pub fn archive(&self) -> Result<(Vec<u8>, u64)> {
        let mut archive = Archive::default();
        let mut names = vec![0_u32; self.contents.len()];
        for (node, _) in self.nodes.values() {
            if let Node::File { contents, .. } = node {
                names[*contents] += 1;
            }
        }
        let mut left = names.clone();
        let mut inodes = vec![None; names.len()];
        let mut unpacked = 0;
        for (path, (node, _)) in &self.nodes {
            match node {
                Node::Directory { permissions } => archive.directory(path, *permissions),
                Node::Link { target } => archive.link(path, target),
                Node::Device { permissions, number } => {
                    archive.character_device(path, *permissions, *number);
                }
                Node::File { permissions, contents } => {
                    let (bytes, links) = (&self.contents[*contents], names[*contents]);
                    left[*contents] -= 1;
                    let is_last = left[*contents] == 0;
                    if is_last {
                        unpacked += (bytes.len() as u64).next_multiple_of(4096);
                    }
                    if links == 1 {
                        archive.file(path, *permissions, bytes);
                    } else {
                        // The last of its names carries the contents, as cpio has it.
                        let inode = *inodes[*contents].get_or_insert_with(|| archive.inode());
                        let bytes = if is_last { &bytes[..] } else { &[] };
                        archive.one_of(path, *permissions, inode, links, bytes);
                    }
                }
            }
        }
        for name in MERGED {
            if self.nodes.contains_key(&format!("usr/{name}")) {
                archive.link(name, &format!("usr/{name}"));
            }
        }
        Ok((archive.finish(), unpacked))
    }
}
