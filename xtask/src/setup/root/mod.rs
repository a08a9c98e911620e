//! `cargo xtask root`: an initramfs for the stock guest with any of Debian's programs.
//!
//! Packages are fetched as all others are ([`super::fetch`]) and unpacked into an archive in memory. Nothing of theirs is
//! run: no program, no maintainer script. What these would have done and a program needs is done here ([`rules`]).

mod index;
mod recipe;
mod resolve;
mod rules;
mod tree;
mod version;

use super::apt::Apt;
use super::cache::{self, Store};
use super::fetch::{self, Failure, Plan, sha256_of, size_text};
use super::guest::initramfs;
use super::lock::{Artefact, Group, hex};
use super::{sources, unpack};
use anyhow::{Context, Result, bail};
use index::Index;
pub use recipe::Recipe;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tree::Tree;

/// Makes an initramfs for the stock guest from Debian packages, by their names.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask root compiler.cpio gcc make libc6-dev         with all that these depend on
  cargo xtask run --kernel vmlinux --initrd compiler.cpio   (in a configuration: kernel = \"linux\", initrd = …)
  cargo xtask root compiler.cpio                            the same again, from compiler.lock
  cargo xtask root compiler.cpio --renew                    of the versions that the mirror has now
  cargo xtask root work.cpio gcc --add files --without 'usr/lib/gcc/*/12/lto1'

Exit status: 0 it is there; 2 not, and why.")]
pub struct Args {
    /// The archive to make, NAME.cpio. What is in it is written to NAME.lock.
    file: PathBuf,
    /// Packages of Debian 12 for mips64el. None: those in NAME.lock.
    packages: Vec<String>,
    /// Lay the files of a folder over it.
    #[arg(long, value_name = "FOLDER")]
    add: Vec<PathBuf>,
    /// Leave out what is there; `*` stands for any part of a name.
    #[arg(long, value_name = "PATH")]
    without: Vec<String>,
    /// Take the mirror's current versions instead of those in NAME.lock.
    #[arg(long)]
    renew: bool,
}

/// Changes whenever this code would make another archive from the same files.
const LAYOUT: &str = "2";

/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/usr/sbin";

/// What `/init` does with words that the kernel passes on to it: they are a command, with whose end the system ends.
/// One word for the kernel comes along, too.
const COMMANDS: &str = "\
[ \"$1\" != nokaslr ] || shift
if [ $# -gt 0 ]; then
    \"$@\"
    reboot -f
fi
";

const INITRD: &str = "initramfs.cpio";
/// Beside the archive: its SHA-256, and what it takes when it is unpacked.
const SUMS: &str = "SHA256SUMS";

/// An initramfs that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The archive, in the cache.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// Bytes of a guest's memory that its files take.
    pub unpacked: u64,
}

impl Root {
    /// Memory that a VM needs for it, in bytes. Linux gives its first file system at most half of what is left beside the
    /// kernel and the archive.
    pub fn memory(&self) -> u64 {
        let kernel = 64 << 20;
        (2 * self.unpacked + self.size + kernel).next_multiple_of(32 << 20)
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be had or written, with the remedy.
pub fn main(args: &Args) -> Result<ExitCode> {
    if args.file.extension().is_none_or(|extension| extension != "cpio") {
        bail!("{}: first name the file to make, for example root.cpio", args.file.display());
    }
    for folder in &args.add {
        if !folder.is_dir() {
            bail!("--add {}: there is no such folder", folder.display());
        }
    }
    let lock = args.file.with_extension("lock");
    let folder = lock.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let known = Recipe::read(&lock)?;
    let asked = Recipe::new(&args.packages, relative_to(&args.add, folder)?, &args.without);
    let is_silent = asked.asks_the_same(&Recipe::new(&[], Vec::new(), &[]));
    let recipe = match known {
        Some(known) if (is_silent || known.asks_the_same(&asked)) && !args.renew => known,
        Some(known) if is_silent => resolve(known)?,
        None if is_silent => bail!("{} is not there: name packages", lock.display()),
        _ => resolve(asked)?,
    };
    let root = provide(&recipe, folder, &[])?;
    cache::write_atomically(&lock, recipe.text().as_bytes())?;
    place(&root.path, &args.file)?;
    println!(
        "{}: {} packages, {}, SHA-256 {}",
        args.file.display(),
        recipe.resolved.len(),
        size_text(root.size),
        root.sha256
    );
    println!("a VM with it needs memory = \"{}M\"", root.memory() >> 20);
    if root.size > abi::map::IMAGES_MAX {
        println!(
            "it is larger than all images of a machine may be together, {} MB: leave something out (--without)",
            abi::map::IMAGES_MAX >> 20
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Folders as they are written into a file in another: relative to it if they lie below it.
fn relative_to(paths: &[PathBuf], folder: &Path) -> Result<Vec<String>> {
    let top = std::path::absolute(folder)?;
    let relative = |path: &PathBuf| {
        let path = std::path::absolute(path)?;
        let path = path.strip_prefix(&top).unwrap_or(&path);
        Ok(path.to_str().with_context(|| format!("{}: a strange name", path.display()))?.to_owned())
    };
    paths.iter().map(relative).collect()
}

/// Puts an archive of the cache where it was asked for: as another name of the file where that is possible.
fn place(from: &Path, to: &Path) -> Result<()> {
    let blame = || format!("cannot write {}", to.display());
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(blame);
        }
        _ => {}
    }
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(blame)?;
    }
    Ok(())
}

/// Finds the packages that a recipe asks for, and all they depend on, in what the mirror has now.
///
/// # Errors
/// There is no mirror or no such package.
fn resolve(mut recipe: Recipe) -> Result<Recipe> {
    super::can_use_packages()?;
    let mirrors = sources::mirrors()?;
    let store = Store::open()?;
    let _guard = store.change()?;
    eprintln!("reading what {} ({}) has", mirrors[0].main, mirrors[0].said_by);
    let apt = Apt::new(&store, "mips64el", &mirrors[0])?;
    let mut index = Index::default();
    for (suite, text) in apt.indices()? {
        // Backports are other versions of what the release has: nobody asked for them.
        if !suite.ends_with("-backports") {
            index.add(&suite, &text);
        }
    }
    let found = resolve::resolve(&index, &recipe.packages)?;
    recipe.resolved = found
        .into_iter()
        .map(|package| Artefact {
            name: package.name.clone(),
            version: package.version.clone(),
            arch: package.arch.clone(),
            suite: package.suite.clone(),
            path: package.path.clone(),
            size: package.size,
            unpacked: package.installed,
            sha256: package.sha256.clone(),
            sonames: Vec::new(),
        })
        .collect();
    for artefact in &recipe.resolved {
        artefact.check().with_context(|| format!("the mirror's index, {}", artefact.name))?;
    }
    Ok(recipe)
}

/// A file that is put into a root beside its packages: path, permission bits, contents.
pub type Extra<'a> = (&'a str, u32, &'a [u8]);

/// The root of a recipe, fetched and made if need be. `folder` is where the recipe's own folders are; `extra` files
/// replace what there is.
///
/// # Errors
/// A package can't be had or is damaged, files clash, or there is no room.
pub fn provide(recipe: &Recipe, folder: &Path, extra: &[Extra<'_>]) -> Result<Root> {
    let store = super::provide(&[Group::Busybox])?;
    let folders: Vec<_> = recipe.add.iter().map(|path| folder.join(path)).collect();
    let place =
        store.dir().join(format!("root-{}.{LAYOUT}", identity(&store, recipe, &folders, extra)?));
    if let Some(root) = look(&place)? {
        return Ok(root);
    }
    let guard = store.change()?;
    // Somebody else may have been faster.
    if let Some(root) = look(&place)? {
        return Ok(root);
    }
    if !recipe.resolved.is_empty() {
        fetch_all(&store, recipe)?;
    }
    let busybox = store.folder(Group::Busybox).join("bin/busybox");
    let busybox = fs::read(&busybox).with_context(|| busybox.display().to_string())?;
    let tree = fill(&store, recipe, &busybox, &folders, extra)?;
    if let Some(pattern) =
        tree.useless().find(|pattern| recipe.without.iter().any(|p| p == pattern))
    {
        bail!("--without {pattern}: no package has such a path");
    }
    let (bytes, unpacked) = tree.archive()?;
    let temporary = store.temporary().join("root");
    let blame = || format!("cannot write {}", place.display());
    fs::create_dir_all(&temporary).with_context(blame)?;
    cache::write_atomically(&temporary.join(INITRD), &bytes)?;
    let sums = format!("# unpacked {unpacked}\n{}  {INITRD}\n", hex(&Sha256::digest(&bytes)));
    cache::write_atomically(&temporary.join(SUMS), sums.as_bytes())?;
    if place.exists() {
        fs::remove_dir_all(&place).with_context(blame)?;
    }
    fs::rename(&temporary, &place).with_context(blame)?;
    drop(guard);
    look(&place)?.context("the root that was just made is not there")
}

/// What decides the bytes of a root: 12 hexadecimal digits.
fn identity(
    store: &Store,
    recipe: &Recipe,
    folders: &[PathBuf],
    extra: &[Extra<'_>],
) -> Result<String> {
    let mut own = Tree::default();
    lay_over(&mut own, folders, extra)?;
    let mut hash = Sha256::new();
    let busybox = store.folder(Group::Busybox);
    hash.update(busybox.file_name().unwrap_or_default().as_encoded_bytes());
    for artefact in &recipe.resolved {
        hash.update(artefact.sha256.as_bytes());
    }
    for pattern in &recipe.without {
        hash.update([0]);
        hash.update(pattern);
    }
    hash.update([0]);
    hash.update(own.archive()?.0);
    Ok(hex(&hash.finalize())[..12].to_owned())
}

/// The root in a folder of the cache, if it is there as it was made.
fn look(folder: &Path) -> Result<Option<Root>> {
    let Ok(sums) = fs::read_to_string(folder.join(SUMS)) else { return Ok(None) };
    let path = folder.join(INITRD);
    let unpacked = sums.lines().find_map(|line| line.strip_prefix("# unpacked ")?.parse().ok());
    let sum = sums.lines().find_map(|line| line.strip_suffix(&format!("  {INITRD}")));
    let (Some(unpacked), Some(sum), Ok(meta)) = (unpacked, sum, path.metadata()) else {
        return Ok(None);
    };
    if sha256_of(&path)? != sum {
        eprintln!("{} is damaged (its SHA-256 is another): making it again", path.display());
        return Ok(None);
    }
    Ok(Some(Root { path, sha256: sum.to_owned(), size: meta.len(), unpacked }))
}

/// Downloads the packages of a recipe. The caller holds the cache.
fn fetch_all(store: &Store, recipe: &Recipe) -> Result<()> {
    super::can_use_packages()?;
    let items = recipe.resolved.iter().map(|one| (Group::Debian, one)).collect();
    // The archive holds what packages say they take, at most.
    let plan = Plan::new(store, items, 0)?;
    let free = fetch::free_space(store.dir())?;
    if plan.downloads.is_empty() {
        return plan.check_room(store.dir(), free);
    }
    let mirrors = sources::mirrors()?;
    let from = format!("{} ({})", mirrors[0].main, mirrors[0].said_by);
    eprintln!("{}", plan.announcement(store.dir(), free, &from));
    plan.check_room(store.dir(), free)?;
    match fetch::download(store, &mirrors, &plan) {
        Ok(()) => Ok(()),
        Err(Failure::Other(error)) => Err(error),
        Err(Failure::Dropped(_, uri)) => {
            bail!("{uri} has gone from the mirror: --renew takes the versions that it has now")
        }
    }
}

/// Fills a tree: packages, then busybox where they have nothing, then what is laid over them.
fn fill(
    store: &Store,
    recipe: &Recipe,
    busybox: &[u8],
    folders: &[PathBuf],
    extra: &[Extra<'_>],
) -> Result<Tree> {
    let left_out = rules::LEFT_OUT.into_iter().map(str::to_owned);
    let mut tree = Tree::new(left_out.chain(recipe.without.iter().cloned()));
    let mut alternatives = BTreeMap::<String, rules::Alternative>::new();
    for artefact in &recipe.resolved {
        let file = store.download(artefact);
        let stream = unpack::stream(&file, "--fsys-tarfile")?;
        tree.package(&artefact.name, &stream[..])
            .with_context(|| format!("cannot unpack {}", file.display()))?;
        for found in rules::alternatives(&postinst(&file)?) {
            let known = alternatives.get(&found.link);
            if known.is_none_or(|known| known.priority < found.priority) {
                alternatives.insert(found.link.clone(), found);
            }
        }
    }
    for (link, alternative) in alternatives {
        if !tree.has(&link) && tree.has(&alternative.target) {
            tree.link(&link, &alternative.target)?;
        }
    }
    system(&mut tree, busybox)?;
    lay_over(&mut tree, folders, extra)?;
    Ok(tree)
}

/// The script that a package would have run after it is unpacked; empty if it has none.
fn postinst(file: &Path) -> Result<String> {
    let stream = unpack::stream(file, "--ctrl-tarfile")?;
    let blame = || format!("cannot read what {} says of itself", file.display());
    for entry in tar::Archive::new(&stream[..]).entries().with_context(blame)? {
        let mut entry = entry.with_context(blame)?;
        if entry.path_bytes().ends_with(b"postinst") {
            let mut script = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut script).with_context(blame)?;
            return Ok(String::from_utf8_lossy(&script).into_owned());
        }
    }
    Ok(String::new())
}

/// What makes a system of the packages: busybox in the place of all that Debian takes for granted, `/init`, devices.
fn system(tree: &mut Tree, busybox: &[u8]) -> Result<()> {
    for path in ["dev", "etc", "proc", "sys", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var"]
    {
        tree.directory(path, 0o755)?;
    }
    tree.directory("root", 0o700)?;
    tree.directory("tmp", 0o1777)?;
    tree.device("dev/console", 0o600, (5, 1))?;
    tree.device("dev/null", 0o666, (1, 3))?;
    if !tree.has("usr/bin/busybox") {
        tree.file("usr/bin/busybox", 0o755, busybox.to_vec())?;
    }
    for applet in initramfs::applets(busybox)? {
        let places = ["usr/bin", "usr/sbin"].map(|folder| format!("{folder}/{applet}"));
        if !places.iter().any(|place| tree.has(place)) {
            tree.link(&places[0], "busybox")?;
        }
    }
    for (path, permissions, text) in initramfs::texts(PATH, COMMANDS) {
        if !tree.has(path) {
            tree.file(path, permissions, text.into_bytes())?;
        }
    }
    Ok(())
}

/// What comes from the host: folders in their order, then single files.
fn lay_over(tree: &mut Tree, folders: &[PathBuf], extra: &[Extra<'_>]) -> Result<()> {
    for folder in folders {
        tree.folder(folder, "")?;
    }
    for (path, permissions, contents) in extra {
        tree.remove(path)?;
        tree.file(path, *permissions, contents.to_vec())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
