//! The table for people: `docs/results/sensitive.md`.

use super::report::{MODES, Mode, Place, Report, STATUSES, Words};
use super::rules::MODEL;
use std::fmt::Write;

/// Bits of a value of Status by their place in its number.
const STATUS_BITS: [&str; 5] = ["CU1", "FR", "PX", "SX", "UX"];
/// As above, for addresses.
const ADDRESS_BITS: [&str; 2] = ["SX", "UX"];

const HEAD: &str = "\
# Sensitive instructions and the address space

    cargo xtask sensitive --write

Written by that command, which is also a test. A guest of our own (`hello`, command `sensitive`) runs each
instruction once in supervisor mode (KSU = 1) and in user mode (KSU = 2) under each of the 32 values of Status that
the monitor may set there (CU1, FR, PX, SX, UX; KX = 1, CU0 = 0, HWREna = 0), and tries a load, a store and a fetch at
the edges of every segment under each of the four values of SX and UX. After each it compares the CP0 registers with
what they were, and after each group the whole TLB: nothing but what the exception itself writes has changed.

What is right stands as rules in `xtask/src/sensitive/rules.rs`; the command fails where one does not hold. It runs on
the bare machine (QEMU 10, `MIPS64R2-generic`, `deret` at the Debug Mode vector) in both byte orders,
which print the same, and then in a VM with `cpu = \"generic\"`, which prints the same too but for:

";

/// The file's text.
pub fn text(report: &Report) -> String {
    let mut out = HEAD.to_string();
    for (group, why) in MODEL {
        // Writing to a string does not fail.
        let _ = writeln!(out, "- {group}: {why}.");
    }
    out.push_str("\n## Instructions\n\n| group | instructions | supervisor mode | user mode |\n|---|---|---|---|\n");
    for words in joined(&report.words) {
        let Words { group, count, outcomes: [supervisor, user], first } = words;
        let name = if count == 1 { format!("{group} `{first:08x}`") } else { group };
        let [supervisor, user] =
            [supervisor, user].map(|letters| explain(&letters, &STATUS_BITS, instruction));
        let _ = writeln!(out, "| {name} | {count} | {supervisor} | {user} |");
    }
    out.push_str("\n## Addresses\n\nLoad, store and fetch do the same, but for the exception's code.\n\n| address | supervisor mode | user mode |\n|---|---|---|\n");
    for Place { address, outcomes } in &report.places {
        let mut row = format!("| `{address:016x}` |");
        for (mode, letters) in MODES.into_iter().zip(outcomes) {
            let _ = write!(row, " {} |", accesses(mode, letters));
        }
        let _ = writeln!(out, "{row}");
    }
    let tried = report.instructions();
    let _ = writeln!(
        out,
        "\n{tried} instructions under {} values of Status each; {} addresses, {} accesses each.",
        2 * STATUSES,
        report.places.len(),
        2 * super::report::ACCESSES,
    );
    out
}

/// Neighbours of one group with the same outcomes as one row.
fn joined(words: &[Words]) -> Vec<Words> {
    let mut out: Vec<Words> = Vec::new();
    for words in words {
        let same = |last: &&mut Words| last.group == words.group && last.outcomes == words.outcomes;
        match out.iter_mut().find(same) {
            Some(last) => last.count += words.count,
            None => out.push(words.clone()),
        }
    }
    out
}

fn instruction(letter: char) -> &'static str {
    match letter {
        'X' => "executes",
        '0' => "coprocessor 0 unusable",
        '1' => "coprocessor 1 unusable",
        '2' => "coprocessor 2 unusable",
        'R' => "reserved instruction",
        'S' => "system call",
        'B' => "breakpoint",
        'P' => "trap",
        'I' => "repeats itself, interrupts taken",
        _ => "?",
    }
}

fn accesses(mode: Mode, letters: &str) -> String {
    let by = |kind: usize| -> String { letters.chars().skip(kind).step_by(3).collect() };
    let name = |letter| match letter {
        'r' => "TLB refill (+0x000)",
        'x' => "TLB refill (+0x080)",
        'E' => "address error",
        _ => "?",
    };
    if by(0) == by(1) && by(0) == by(2) {
        explain(&by(0), &ADDRESS_BITS, name)
    } else {
        format!("{mode:?} differs by access: {letters}")
    }
}

/// In words, what letters say, by the bits of their number that they depend on.
fn explain(letters: &str, bits: &[&str], name: fn(char) -> &'static str) -> String {
    let letters: Vec<char> = letters.chars().collect();
    let matters = |bit: &usize| (0..letters.len()).any(|i| letters[i] != letters[i ^ 1 << bit]);
    let relevant: Vec<usize> = (0..bits.len()).filter(matters).collect();
    if relevant.is_empty() {
        return name(letters[0]).to_string();
    }
    let case = |number: usize| {
        let on: Vec<&str> =
            relevant.iter().filter(|bit| number >> **bit & 1 != 0).map(|bit| bits[*bit]).collect();
        if on.is_empty() { "none".to_string() } else { on.join("+") }
    };
    let mask: usize = relevant.iter().map(|bit| 1 << bit).sum();
    let mut found: Vec<(char, Vec<String>)> = Vec::new();
    for number in (0..letters.len()).filter(|number| number & !mask == 0) {
        let letter = letters[number];
        match found.iter_mut().find(|(other, _)| *other == letter) {
            Some((_, cases)) => cases.push(case(number)),
            None => found.push((letter, vec![case(number)])),
        }
    }
    let of: Vec<&str> = relevant.iter().map(|bit| bits[*bit]).collect();
    let parts: Vec<String> = found
        .into_iter()
        .map(|(letter, cases)| format!("{} ({})", name(letter), cases.join(", ")))
        .collect();
    format!("of {}: {}", of.join(", "), parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_explained_by_the_bits_that_matter() {
        assert_eq!(explain("XXXX", &["A", "B"], instruction), "executes");
        assert_eq!(
            explain("1X1X", &["A", "B"], instruction),
            "of A: coprocessor 1 unusable (none); executes (A)"
        );
        assert_eq!(
            explain("RXXX", &["A", "B"], instruction),
            "of A, B: reserved instruction (none); executes (A, B, A+B)"
        );
    }
}
