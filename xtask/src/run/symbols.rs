//! Names for the addresses in the monitor's last words.

use addr2line::Loader;
use std::path::Path;

/// The symbols of a monitor.
pub struct Symbols {
    loader: Option<Loader>,
}

impl Symbols {
    /// The symbols in the monitor's ELF file; without any if it can't be read, for a report without
    /// names is better than none.
    pub fn new(kernel_elf: &Path) -> Self {
        Self { loader: Loader::new(kernel_elf).ok() }
    }

    /// The line with the place of the address that follows its first `at 0x`, if it has one.
    pub fn annotate(&self, line: &str) -> String {
        let place = address(line).and_then(|pc| self.place(pc));
        place.map_or_else(|| line.to_string(), |place| format!("{line}  {place}"))
    }

    /// Function, file and line of an address; of inlined calls all, innermost first.
    fn place(&self, pc: u64) -> Option<String> {
        let loader = self.loader.as_ref()?;
        let mut calls = Vec::new();
        if let Ok(mut frames) = loader.find_frames(pc) {
            while let Ok(Some(frame)) = frames.next() {
                let name =
                    frame.function.as_ref().and_then(|f| Some(f.demangle().ok()?.into_owned()));
                let name = name.map_or_else(|| "?".into(), |name| plain(&name).to_string());
                let place =
                    frame.location.and_then(|l| Some((shorten(l.file?).to_string(), l.line)));
                calls.push(match place {
                    Some((file, Some(line))) => format!("{name} ({file}:{line})"),
                    Some((file, None)) => format!("{name} ({file})"),
                    None => name,
                });
            }
        }
        if calls.is_empty() || calls == ["?"] {
            return loader.find_symbol(pc).map(str::to_string);
        }
        Some(calls.join(" in "))
    }
}

/// A function's name without its type parameters: they can fill a page.
fn plain(name: &str) -> &str {
    match name.find('<') {
        Some(end) if end > 0 => &name[..end],
        _ => name,
    }
}

/// A source path without what is the same for all: `kernel/src/main.rs`, `core/src/fmt/mod.rs`.
fn shorten(file: &str) -> &str {
    let start = file.rfind("/src/").and_then(|src| file[..src].rfind('/'));
    start.map_or(file, |start| &file[start + 1..])
}

/// The address after `at 0x`.
fn address(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("at 0x")?;
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    u64::from_str_radix(&rest[..end], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths() {
        assert_eq!(address("  at 0xffffffffe0012345"), Some(0xffff_ffff_e001_2345));
        assert_eq!(address("trap at 0x10 (delay slot)"), Some(0x10));
        assert_eq!(address("at 0xzz"), None);
        assert_eq!(address("no address"), None);
        assert_eq!(shorten("/a/b/kernel/src/trap.rs"), "kernel/src/trap.rs");
        assert_eq!(shorten("x.rs"), "x.rs");
        assert_eq!(plain("step<kernel::host::Host>"), "step");
        assert_eq!(plain("<T as U>::f"), "<T as U>::f");
    }

    #[test]
    fn a_function_of_this_program_is_found() {
        use object::{Object, ObjectSymbol, SymbolKind};
        // The test is itself an ELF file with line tables.
        let exe = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&exe).unwrap();
        let object = object::File::parse(&bytes[..]).unwrap();
        let is_this = |name: &str| name.contains("a_function_of_this_program_is_found");
        let symbols = Symbols::new(&exe);
        // Of several with this name, closures and shims among them, not each has lines of its own.
        let found = object
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.name().is_ok_and(is_this))
            .map(|s| symbols.annotate(&format!("  at {:#018x}", s.address())))
            .find(|line| line.contains("a_function_of_this_program_is_found"));
        let annotated = found.expect("one of them has a name and lines");
        assert!(annotated.starts_with("  at 0x") && annotated.contains(".rs:"), "{annotated}");
    }

    #[test]
    fn without_symbols_lines_stay_as_they_are() {
        let symbols = Symbols::new(Path::new("/nonexistent"));
        assert_eq!(symbols.annotate("  at 0x10"), "  at 0x10");
    }
}
