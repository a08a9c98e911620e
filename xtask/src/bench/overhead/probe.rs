//! Where a stock kernel's functions and its refill handler are: asked of the kernel itself, on the bare machine.
//!
//! A packaged kernel comes without symbols, but `/proc/kallsyms` has those of its code. Its refill handler it writes
//! itself, into a page that it takes where memory is free; that is looked up in the machine's memory when it has ended.

use super::watch::watch;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

/// `tlbwr` and `eret`, with which each refill handler ends.
const END: [u32; 2] = [0x4200_0006, 0x4200_0018];
/// Where the vectors may lie: pages.
const PAGE: usize = 4096;
/// The refill handler is below the vector of cache errors.
const HANDLER: usize = 0x100;
/// Where KSEG0 begins.
const KSEG0: u64 = 0xffff_ffff_8000_0000;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs a machine whose guest prints its symbols. These lines, and the address of the vectors.
///
/// # Errors
/// It did not run to its end, or has no vectors.
pub fn run(mut qemu: Command, megabytes: u64) -> Result<(Vec<String>, u64)> {
    eprintln!("bench: asking the kernel where its functions are");
    let mut ram =
        tempfile::NamedTempFile::new().context("can't make a file for the machine's memory")?;
    ram.as_file_mut().set_len(megabytes << 20)?;
    ram.flush()?;
    qemu.args(["-machine", "memory-backend=ram", "-object"]).arg(format!(
        "memory-backend-file,id=ram,size={megabytes}M,mem-path={},share=on",
        ram.path().display()
    ));
    let lines = watch(qemu, "symbol: ", LIMIT)?;
    let mut memory = Vec::new();
    // The kernel takes the page from the low memory.
    ram.reopen()?.take(256 << 20).read_to_end(&mut memory)?;
    let vectors = vectors(&memory)?;
    Ok((lines.into_iter().map(|line| line.text).collect(), KSEG0 + vectors))
}

/// The address of the one page that begins with a refill handler.
fn vectors(memory: &[u8]) -> Result<u64> {
    let end: Vec<u8> = END.iter().flat_map(|word| word.to_le_bytes()).collect();
    let begins = |page: &[u8]| {
        let handler = &page[..HANDLER.min(page.len())];
        handler.windows(end.len()).step_by(4).any(|words| words == end)
    };
    let mut found = (0..).zip(memory.chunks(PAGE)).filter(|(_, page)| begins(page));
    match (found.next(), found.next()) {
        (Some((page, _)), None) => Ok(page * PAGE as u64),
        (None, _) => bail!("no page of the guest's memory begins with a refill handler"),
        _ => bail!("several pages of the guest's memory begin with a refill handler"),
    }
}

/// A function's first address and the one behind it, from lines of `/proc/kallsyms` in which the next symbol follows.
///
/// # Errors
/// There is no such function, or none behind it.
pub fn function(lines: &[String], name: &str) -> Result<(u64, u64)> {
    let symbol = |line: &String| {
        let mut words = line.split_whitespace();
        let at = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((at, words.nth(1)?.to_owned()))
    };
    let all: Vec<_> = lines.iter().filter_map(symbol).collect();
    let place = all.iter().position(|(_, known)| known == name);
    let place = place.with_context(|| format!("the kernel has no function {name}"))?;
    let first = all[place].0;
    let next = all[place..].iter().map(|(at, _)| *at).find(|at| *at > first);
    Ok((first, next.with_context(|| format!("nothing follows the kernel's function {name}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_end_where_the_next_begins() {
        let lines = [
            "ffffffff80103f40 T __r4k_wait",
            "ffffffff80103f60 T r4k_wait_irqoff",
            "ffffffff80fe7d88 T plat_time_init",
            "ffffffff80fe7d88 T alias",
            "ffffffff80fe8000 T mips_cdmm_phys_base",
            "--",
        ]
        .map(String::from);
        let place = |name| function(&lines, name).map_err(|error| error.to_string());
        assert_eq!(place("__r4k_wait"), Ok((0xffff_ffff_8010_3f40, 0xffff_ffff_8010_3f60)));
        assert_eq!(place("plat_time_init"), Ok((0xffff_ffff_80fe_7d88, 0xffff_ffff_80fe_8000)));
        assert_eq!(place("do_idle"), Err("the kernel has no function do_idle".into()));
        assert!(place("mips_cdmm_phys_base").unwrap_err().starts_with("nothing follows"));
    }

    #[test]
    fn the_vectors_are_the_page_that_begins_with_a_handler() {
        let mut memory = vec![0; 8 * PAGE];
        let put = |memory: &mut Vec<u8>, at: usize, words: &[u32]| {
            for (i, word) in words.iter().enumerate() {
                memory[at + 4 * i..at + 4 * i + 4].copy_from_slice(&word.to_le_bytes());
            }
        };
        assert!(vectors(&memory).is_err());
        put(&mut memory, 2 * PAGE + 0xd78, &END);
        put(&mut memory, 3 * PAGE + 0x80, &[END[0], 0]);
        put(&mut memory, 5 * PAGE + 0xf0, &END);
        assert_eq!(vectors(&memory).unwrap(), 5 * PAGE as u64);
        put(&mut memory, 6 * PAGE + 0x20, &END);
        assert!(vectors(&memory).unwrap_err().to_string().starts_with("several"));
    }
}
