//! Compiles scripts: one step a line, regular expressions to automata. `docs/scripts.md` describes the
//! language for operators, [`abi::script`] what the steps mean to the player inside the machine.

use super::drain::stream_name;
use crate::endian::Endian;
use abi::VmId;
use abi::ring::{stream, vm_stream};
use abi::script::{Act, DFA_LIMIT, Step, encode};
use anyhow::{Context, Result, anyhow, bail};
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use std::path::Path;

/// Seconds that `expect` waits when it does not say.
const EXPECT_SECONDS: f64 = 30.0;
/// Most seconds a step may wait: virtual time in nanoseconds stays far from its end.
const SECONDS_MAX: f64 = 1e6;
/// The steps, for error messages.
const STEPS: &str = "console, send, expect, absent, wait, quit";

/// Reads and compiles a script for a machine of this byte order whose VMs are called `vms`.
///
/// # Errors
/// The first line that is wrong, with a remedy.
pub fn read(file: &Path, vms: &[String], endian: Endian) -> Result<Vec<u8>> {
    let text = std::fs::read_to_string(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow!("{}: no such script; check the path given to --script", file.display())
        }
        _ => anyhow!("{}: can't be read: {error}", file.display()),
    })?;
    let steps = compile(&text, vms, endian)
        .map_err(|(line, error)| anyhow!("{}:{line}: {error:#}", file.display()))?;
    let bytes = encode(&steps);
    if bytes.len() as u64 > abi::map::SCRIPT_MAX {
        let size = |step: &&Step| match &step.act {
            Act::Expect { dfa, .. } | Act::Absent { dfa, .. } => dfa.len(),
            _ => 0,
        };
        let line = steps.iter().rev().max_by_key(size).map_or(0, |step| step.line);
        bail!(
            "{}:{line}: the compiled script has {} bytes, its place {}, and this line the largest \
             expression; make it simpler",
            file.display(),
            bytes.len(),
            abi::map::SCRIPT_MAX
        );
    }
    Ok(bytes)
}

/// Compiles a script of this program's own, which is small.
///
/// # Errors
/// The first line that is wrong.
pub fn embedded(text: &str, vms: &[String], endian: Endian) -> Result<Vec<u8>> {
    let steps = compile(text, vms, endian).map_err(|(line, error)| error.context(line))?;
    Ok(encode(&steps))
}

/// A script whose every `expect` waits `times` as long.
///
/// # Errors
/// An `expect` that is not well-formed.
pub fn patient(text: &str, times: u32) -> Result<String> {
    let mut out = String::new();
    for line in text.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("expect ") {
            let (pattern, rest) = quoted(rest).context(line.to_string())?;
            let seconds = seconds(rest).context(line.to_string())? * f64::from(times);
            out.push_str(&format!("expect \"{pattern}\" {seconds}"));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    Ok(out)
}

/// Compiles the text of a script.
///
/// # Errors
/// The first line that is wrong, and why.
fn compile(text: &str, vms: &[String], endian: Endian) -> Result<Vec<Step>, (u32, anyhow::Error)> {
    let mut steps = Vec::new();
    let mut speaks_to = (!vms.is_empty()).then(|| vm_stream(VmId(0)));
    for (line, number) in text.lines().zip(1..) {
        let act = step(line, vms, endian).map_err(|error| (number, error))?;
        let Some(act) = act else { continue };
        match &act {
            Act::Console { stream } => speaks_to = Some(*stream),
            Act::Send { .. } | Act::Expect { .. } | Act::Absent { .. } if speaks_to.is_none() => {
                let error = anyhow!("the machine has no VM; say `console monitor` first");
                return Err((number, error));
            }
            _ => {}
        }
        steps.push(Step { line: number, act });
    }
    Ok(steps)
}

/// The step of one line; `None` when it is empty or a comment.
fn step(line: &str, vms: &[String], endian: Endian) -> Result<Option<Act>> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line.trim_end(), ""));
    Ok(Some(match word {
        "send" => Act::Send { bytes: typed(rest) },
        "console" => Act::Console { stream: console(before_comment(rest), vms)? },
        "expect" => {
            let (pattern, rest) = quoted(rest)?;
            let timeout_ns = nanoseconds(seconds(rest)?);
            let dfa = automaton(pattern, endian)?;
            Act::Expect { pattern: pattern.into(), dfa, timeout_ns }
        }
        "absent" => {
            let (pattern, rest) = quoted(rest)?;
            nothing_more(rest)?;
            Act::Absent { pattern: pattern.into(), dfa: automaton(pattern, endian)? }
        }
        "wait" => Act::Wait { ns: nanoseconds(duration(before_comment(rest))?) },
        "quit" => {
            nothing_more(rest)?;
            Act::Quit
        }
        _ => {
            let nearest = STEPS
                .split(", ")
                .map(|known| (strsim::levenshtein(word, known), known))
                .filter(|(distance, _)| *distance <= 2)
                .min();
            match nearest {
                Some((_, known)) => bail!("unknown step `{word}`; did you mean `{known}`?"),
                None => bail!("unknown step `{word}`; known are {STEPS}"),
            }
        }
    }))
}

/// The text up to a comment, without blanks around it.
fn before_comment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before).trim()
}

fn nothing_more(rest: &str) -> Result<()> {
    match before_comment(rest) {
        "" => Ok(()),
        more => bail!("`{more}` is more than the step takes; remove it"),
    }
}

/// The bytes that `send` types: `\xNN` is a byte, everything else itself; a newline at the end.
fn typed(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |d: &u8| char::from(*d).to_digit(16).unwrap_or(0) as u8;
                bytes.push(digit(high) << 4 | digit(low));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes.push(b'\n');
    bytes
}

/// The stream of the console `name`.
fn console(name: &str, vms: &[String]) -> Result<u16> {
    if name == "monitor" {
        return Ok(stream::MONITOR);
    }
    let vm = vms.iter().position(|vm| vm == name).and_then(|vm| u16::try_from(vm).ok());
    vm.map(|vm| vm_stream(VmId(vm))).with_context(|| {
        let known: Vec<_> =
            (0..vms.len() as u16).map(|vm| stream_name(vms, vm_stream(VmId(vm)))).collect();
        format!("there is no console `{name}`; known are monitor, {}", known.join(", "))
            .trim_end_matches([',', ' '])
            .to_string()
    })
}

/// The expression between the quotes, and what follows it. A quote inside is written `\"`, which the
/// expression's own syntax understands.
fn quoted(text: &str) -> Result<(&str, &str)> {
    let inner = text
        .trim_start()
        .strip_prefix('"')
        .context("the expression is not in quotes; write it like \"login:\"")?;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    bail!("the expression has no closing quote; a quote inside it is written \\\"")
}

/// How many seconds an `expect` waits, by what follows its expression.
fn seconds(rest: &str) -> Result<f64> {
    match before_comment(rest) {
        "" => Ok(EXPECT_SECONDS),
        text => duration(text),
    }
}

/// A number of seconds.
fn duration(text: &str) -> Result<f64> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=SECONDS_MAX).contains(s));
    seconds.with_context(|| {
        format!("`{text}` is not a number of seconds from 0 to {SECONDS_MAX}, like 2.5")
    })
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// Compiles an expression as [`abi::script`] prescribes.
fn automaton(pattern: &str, endian: Endian) -> Result<Vec<u8>> {
    let dfa = dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Unanchored)
                .dfa_size_limit(Some(DFA_LIMIT))
                .determinize_size_limit(Some(DFA_LIMIT)),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false).multi_line(true).crlf(true))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(DFA_LIMIT)))
        .build(pattern)
        .map_err(|error| refused(pattern, &error))?;
    if dfa.has_empty() {
        bail!(
            "\"{pattern}\" matches nothing at all, so that it always would; make it match something"
        );
    }
    let sparse = dfa.to_sparse().map_err(|error| refused(pattern, &error))?;
    Ok(match endian {
        Endian::Little => sparse.to_bytes_little_endian(),
        Endian::Big => sparse.to_bytes_big_endian(),
    })
}

/// Why an expression can't be compiled: one line, though the library draws pictures.
fn refused(pattern: &str, error: &dense::BuildError) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    let why = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
    if error.is_size_limit_exceeded() || why.contains("limit") {
        return anyhow!(
            "\"{pattern}\" makes an automaton of more than {} MB; make it simpler",
            DFA_LIMIT >> 20
        );
    }
    anyhow!("\"{pattern}\" is no regular expression: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::{Input, dfa::sparse};

    fn vms() -> Vec<String> {
        vec!["a".into(), "b-2".into()]
    }

    fn acts(text: &str) -> Vec<(u32, Act)> {
        let steps = compile(text, &vms(), Endian::Little).unwrap();
        steps.into_iter().map(|step| (step.line, step.act)).collect()
    }

    #[test]
    fn every_step_of_the_language() {
        let text = "# a comment\n\n  console b-2 # indented\nsend ls \\x03\\x5cx41 # no comment\nsend\n\
                    wait 2.5\nconsole monitor\nquit # the end\n";
        let send = |bytes: &[u8]| Act::Send { bytes: bytes.to_vec() };
        assert_eq!(
            acts(text),
            [
                (3, Act::Console { stream: 17 }),
                (4, send(b"ls \x03\\x41 # no comment\n")),
                (5, send(b"\n")),
                (6, Act::Wait { ns: 2_500_000_000 }),
                (7, Act::Console { stream: 0 }),
                (8, Act::Quit),
            ]
        );
        // A text file from elsewhere.
        assert_eq!(acts("send x\r\n"), [(1, send(b"x\n"))]);
    }

    #[test]
    fn expectations_are_compiled_for_the_player() {
        for (text, pattern, timeout) in [
            ("expect \"ready\"", "ready", 30),
            ("expect \"a\\\"b\" 5 # c", "a\\\"b", 5),
            ("expect \"x # y\"5", "x # y", 5),
        ] {
            let [(1, Act::Expect { pattern: p, timeout_ns, dfa })] = &acts(text)[..] else {
                panic!("{text}");
            };
            assert_eq!((p.as_str(), *timeout_ns), (pattern, timeout * 1_000_000_000));
            assert!(sparse::DFA::from_bytes(dfa).is_ok());
        }
        let [(1, Act::Absent { dfa, .. })] = &acts("absent \"^pan\\xfc|k$\"")[..] else { panic!() };
        let (dfa, _) = sparse::DFA::from_bytes(dfa).unwrap();
        let found = |text: &[u8]| dfa.try_search_fwd(&Input::new(text)).unwrap().is_some();
        assert!(found(b"x\r\npan\xfc") && found(b"ok\r\n") && !found(b"xpan\xfc"));
    }

    #[test]
    fn a_patient_script_waits_longer_and_is_the_same_else() {
        let text = "console monitor # x\n expect \"a \\\" b\"\nexpect \"c\" 2.5 # why\nwait 1\n";
        let patient = patient(text, 4).unwrap();
        assert_eq!(
            patient,
            "console monitor # x\nexpect \"a \\\" b\" 120\nexpect \"c\" 10\nwait 1\n"
        );
        assert!(super::patient("expect \"x\" soon", 4).is_err());
    }

    #[test]
    fn the_machine_decides_the_byte_order() {
        let one = |endian| compile("expect \"x\"", &vms(), endian).unwrap();
        assert_ne!(one(Endian::Little), one(Endian::Big));
    }

    #[test]
    fn errors_name_the_line_and_a_remedy() {
        for (text, line, expected) in [
            ("\nexpct \"x\"", 2, "unknown step `expct`; did you mean `expect`?"),
            ("frobnicate", 1, "unknown step `frobnicate`; known are console, send, expect"),
            ("console c", 1, "there is no console `c`; known are monitor, a, b-2"),
            ("console", 1, "there is no console ``; known"),
            ("expect login", 1, "the expression is not in quotes;"),
            ("expect \"login", 1, "the expression has no closing quote;"),
            ("expect \"a\\\"", 1, "the expression has no closing quote;"),
            ("expect \"(\"", 1, "\"(\" is no regular expression: unclosed group"),
            (
                "expect \"[z-a]\"",
                1,
                "\"[z-a]\" is no regular expression: invalid character class range",
            ),
            ("expect \"a*\"", 1, "\"a*\" matches nothing at all"),
            ("expect \"x\" soon", 1, "`soon` is not a number of seconds"),
            ("expect \"x\" -1", 1, "`-1` is not a number of seconds"),
            ("expect \"x\" nan", 1, "`nan` is not a number of seconds"),
            ("wait", 1, "`` is not a number of seconds"),
            ("absent \"x\" 3", 1, "`3` is more than the step takes"),
            ("quit now", 1, "`now` is more than the step takes"),
            (
                "expect \"(?:.{0,50}a){40}\"",
                1,
                "makes an automaton of more than 4 MB; make it simpler",
            ),
        ] {
            let (at, error) = compile(text, &vms(), Endian::Little).unwrap_err();
            let error = format!("{error:#}");
            assert_eq!(at, line, "{text:?} gave {error:?}");
            assert!(error.contains(expected), "{text:?} gave {error:?}");
            assert!(!error.contains('\n'), "{error:?} is more than one line");
        }
        let (_, error) = compile("send x", &[], Endian::Little).unwrap_err();
        assert!(error.to_string().contains("say `console monitor` first"));
        assert!(compile("console monitor\nsend x", &[], Endian::Little).is_ok());
    }

    #[test]
    fn files_that_are_no_scripts() {
        let error = read(Path::new("/nonexistent"), &vms(), Endian::Little).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent: no such script;"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("big");
        let large = "expect \"a.{11}b\"\n".repeat(60);
        std::fs::write(&file, large).unwrap();
        let error = read(&file, &vms(), Endian::Little).unwrap_err().to_string();
        assert!(error.contains("the compiled script has ") && error.contains(":1"), "{error}");
    }
}
