//! The script player against expressions compiled as the host tools compile them.

use abi::codec::{Reader, Writer};
use abi::ring::{stream::MONITOR, vm_stream};
use abi::script::{Act, DFA_LIMIT, Outcome, Step};
use cell::script::{Action, Player};
use regex_automata::dfa::{StartKind, dense, sparse};
use regex_automata::{nfa::thompson, util::syntax};

const VM: u16 = vm_stream(abi::VmId(0));
const SECOND: u64 = 1_000_000_000;

/// Builds an automaton as [`abi::script`] says.
fn build(pattern: &str) -> sparse::DFA<Vec<u8>> {
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Unanchored)
                .dfa_size_limit(Some(DFA_LIMIT))
                .determinize_size_limit(Some(DFA_LIMIT)),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false).multi_line(true).crlf(true))
        .thompson(thompson::Config::new().utf8(false))
        .build(pattern)
        .unwrap_or_else(|e| panic!("{pattern}: {e}"))
        .to_sparse()
        .unwrap()
}

fn expect(pattern: &str, seconds: u64) -> Act {
    Act::Expect {
        pattern: pattern.into(),
        dfa: build(pattern).to_bytes_native_endian(),
        timeout_ns: seconds * SECOND,
    }
}

fn absent(pattern: &str) -> Act {
    Act::Absent { pattern: pattern.into(), dfa: build(pattern).to_bytes_native_endian() }
}

fn send(text: &str) -> Act {
    Act::Send { bytes: text.as_bytes().to_vec() }
}

fn steps(acts: impl IntoIterator<Item = Act>) -> Vec<Step> {
    acts.into_iter().zip(1..).map(|(act, line)| Step { line, act }).collect()
}

fn name(stream: u16) -> String {
    format!("s{stream}")
}

fn player(acts: impl IntoIterator<Item = Act>) -> Player {
    Player::new(steps(acts), name).expect("a script that can be played")
}

fn passed() -> Option<Action> {
    Some(Action::End(Outcome::ScriptPassed))
}

#[track_caller]
fn failure(action: Option<Action>) -> (u32, String) {
    match action {
        Some(Action::End(Outcome::ScriptFailed { line, report })) => (line, report),
        other => panic!("no failure: {other:?}"),
    }
}

/// Where the first match of `pattern` ends, if a script sees one in `text`, fed in pieces that end at
/// `cuts`: after which byte, the step being asked after each.
fn first_end(pattern: &str, text: &[u8]) -> Option<usize> {
    let mut p = player([expect(pattern, 1)]);
    if p.poll(0) == passed() {
        return Some(0);
    }
    text.iter()
        .position(|&b| {
            p.output(0, VM, &[b]);
            p.poll(0) == passed()
        })
        .map(|at| at + 1)
}

#[test]
fn a_match_ends_at_the_first_byte_that_makes_one() {
    assert_eq!(first_end("ready", b"not ready yet"), Some(9));
    assert_eq!(first_end("[0-9]+", b"pid 4711"), Some(5));
    assert_eq!(first_end("abcd|bc", b"xabcd"), Some(4));
    assert_eq!(first_end("a.*c", b"abbc abbc"), Some(4));
    assert_eq!(first_end("a.c", b"a\rc a\nc abc"), Some(11));
    assert_eq!(first_end("\\xff\\x00", b"\xfe\xff\x00"), Some(3));
    assert_eq!(first_end("(?i)login:", b"LoGiN: "), Some(6));
    assert_eq!(first_end("gr\u{fc}n", "so gr\u{fc}n ".as_bytes()), Some(8));
    assert_eq!(first_end("x", b"abc"), None);
    assert_eq!(first_end("x*", b"abc"), Some(0));
}

#[test]
fn assertions_see_the_bytes_on_both_sides() {
    assert_eq!(first_end("^ok", b"not ok\r\nok"), Some(10));
    assert_eq!(first_end("^ok", b"ok"), Some(2));
    // The end of a line is only known when its newline comes.
    assert_eq!(first_end("ok$", b"ok"), None);
    assert_eq!(first_end("ok$", b"okay ok\r\n"), Some(8));
    assert_eq!(first_end("ok$", b"okay ok\n"), Some(8));
    assert_eq!(first_end(r"\bok\b", b"okay tok ok."), Some(12));
    assert_eq!(first_end(r"\bok\b", b"ok"), None);
    assert_eq!(first_end(r"# \z", b"# # "), None);
}

#[test]
fn a_prompt_matches_though_nothing_follows() {
    let mut p = player([expect("honeycomb> ", 1), send("help\n"), expect("help$", 1)]);
    assert_eq!(p.poll(0), None);
    p.output(5, VM, b"honeycomb> ");
    assert_eq!(p.poll(5), Some(Action::Type { stream: VM, bytes: b"help\n".to_vec() }));
    assert_eq!(p.poll(5), None);
    p.output(6, VM, b"help\r\n");
    assert_eq!(p.poll(6), passed());
    assert_eq!(p.poll(7), None);
}

#[test]
fn a_search_starts_after_the_last_match_and_sees_the_byte_before() {
    let mut p = player([expect("ab", 1), expect("ab", 1), expect("^c", 1), expect("^d", 1)]);
    p.output(0, VM, b"abab");
    p.output(0, VM, b"c");
    assert_eq!(p.poll(0), None, "`c` is not at the start of a line");
    p.output(0, VM, b"\nc\nd");
    assert_eq!(p.poll(0), passed());
}

#[test]
fn what_follows_a_line_end_match_is_not_lost() {
    // The match of `one$` ends before its newline, where the next search starts.
    let mut p = player([expect("one$", 1), absent("two"), expect(r"^\r?$", 1), expect("^two", 1)]);
    p.output(0, VM, b"one\r\n");
    assert_eq!(p.poll(0), None);
    p.output(0, VM, b"\r\ntwo");
    assert_eq!(p.poll(0), passed());
}

/// The whole story of a script, cut at every pair of places, with the script asked only at the end,
/// or after each piece: the same outcome.
#[test]
fn cuts_change_nothing() {
    let text = b"boot\r\nok$ a1 22\r\nlogin: root\r\n# ls\r\nbin\r\n# ";
    let script = || {
        player([
            expect("^ok", 1),
            expect(r"[0-9]+$", 1),
            expect("login: ", 1),
            absent("panic"),
            expect("root$", 1),
            expect("# ", 1),
            expect("^bin$", 1),
            expect("# ", 1),
        ])
    };
    for first in 0..=text.len() {
        for second in first..=text.len() {
            for eager in [false, true] {
                let mut p = script();
                let mut end = None;
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    p.output(0, VM, piece);
                    if eager && end.is_none() {
                        end = p.poll(0);
                    }
                }
                assert_eq!(end.or_else(|| p.poll(0)), passed(), "cut at {first} and {second}");
            }
        }
    }
}

#[test]
fn absent_looks_at_all_output_since_the_last_match_and_no_further() {
    let script =
        || player([expect("start", 1), Act::Wait { ns: 10 }, absent("bad"), absent("worse")]);
    let mut p = script();
    p.output(0, VM, b"bad start");
    assert_eq!(p.poll(0), None);
    p.output(5, VM, b" good ");
    assert_eq!(p.poll(10), passed());

    let mut p = script();
    p.output(0, VM, b"start");
    assert_eq!(p.poll(0), None);
    // A long print between: nothing is forgotten.
    p.output(1, VM, b"ba");
    p.output(1, VM, b"d");
    for _ in 0..1000 {
        p.output(5, VM, &[b'x'; 1000]);
    }
    let (line, report) = failure(p.poll(10));
    assert_eq!(line, 3);
    assert!(report.starts_with("absent \"bad\" on `s16`: it was printed; the last output"));
    assert_eq!(p.poll(11), None, "a run ends once");
}

#[test]
fn absent_also_looks_past_a_match_that_the_script_has_not_asked_for_yet() {
    let mut p = player([Act::Wait { ns: 10 }, absent("bad"), expect("go", 1), absent("bad")]);
    assert_eq!(p.poll(0), None);
    p.output(1, VM, b"go bad");
    assert_eq!(failure(p.poll(10)).0, 2);

    let mut p = player([absent("bad"), expect("go", 1), absent("bad")]);
    assert_eq!(p.poll(0), None);
    p.output(1, VM, b"bad go");
    assert_eq!(p.poll(1), passed());
}

#[test]
fn consoles_have_positions_of_their_own() {
    let mut p = player([
        expect("one", 1),
        Act::Console { stream: MONITOR },
        expect("one", 1),
        Act::Console { stream: VM },
        expect("two", 1),
        Act::Console { stream: MONITOR },
        send("x"),
        Act::Quit,
    ]);
    p.output(0, VM, b"two one ");
    p.output(0, 99, b"one");
    assert_eq!(p.poll(0), None);
    p.output(0, MONITOR, b"one two");
    assert_eq!(p.poll(0), None);
    p.output(0, VM, b"two");
    assert_eq!(p.poll(0), Some(Action::Type { stream: MONITOR, bytes: b"x".to_vec() }));
    assert_eq!(p.poll(0), passed());
}

#[test]
fn an_expectation_ends_in_time_or_fails() {
    let script = || player([Act::Wait { ns: 3 }, expect("x", 2)]);
    let mut p = script();
    assert_eq!(p.deadline(), None);
    assert_eq!(p.poll(100), None);
    assert_eq!(p.deadline(), Some(103));
    assert_eq!(p.poll(102), None);
    assert_eq!(p.poll(104), None);
    assert_eq!(p.deadline(), Some(104 + 2 * SECOND));
    assert_eq!(p.poll(103 + 2 * SECOND), None);
    // In the last nanosecond: still in time.
    let mut late = script();
    late.poll(100);
    late.poll(104);
    p.output(104 + 2 * SECOND, VM, b"x");
    assert_eq!(p.poll(104 + 2 * SECOND), passed());
    // One later: too late, though it is there when the player is asked.
    late.output(105 + 2 * SECOND, VM, b"x");
    let (line, report) = failure(late.poll(105 + 2 * SECOND));
    assert_eq!((line, report.as_str()), {
        (2, "expect \"x\" on `s16`: nothing matched in 2 s; nothing has been printed there")
    });
}

#[test]
fn a_report_shows_the_last_lines_of_its_own_console() {
    let mut p = player([expect("never", 1)]);
    p.poll(0);
    p.output(0, MONITOR, b"other\n");
    p.output(0, VM, b"login: \x07\r\nfoo");
    assert_eq!(
        failure(p.poll(SECOND)).1,
        "expect \"never\" on `s16`: nothing matched in 1 s; the last output there:\n  | login: \\x07\n  | foo"
    );
}

#[test]
fn an_end_from_outside_passes_only_a_finished_script() {
    let mut p = player([send("quit\n"), Act::Quit]);
    assert!(matches!(p.interrupted(), Outcome::ScriptFailed { line: 1, .. }));
    p.poll(0);
    assert_eq!(p.interrupted(), Outcome::ScriptPassed);
    let p = player([]);
    assert_eq!(p.interrupted(), Outcome::ScriptPassed);
}

#[test]
fn automata_that_cannot_be_used_are_refused_by_line() {
    let good = build("a+b");
    let swapped = if cfg!(target_endian = "little") {
        good.to_bytes_big_endian()
    } else {
        good.to_bytes_little_endian()
    };
    let mut bytes = good.to_bytes_native_endian();
    for dfa in [swapped, bytes[..bytes.len() - 1].to_vec(), Vec::new(), {
        bytes.push(0);
        bytes.clone()
    }] {
        let steps = vec![Step { line: 7, act: Act::Absent { pattern: "a+b".into(), dfa } }];
        match Player::new(steps, |_| String::new()) {
            Err(Outcome::ScriptFailed { line: 7, report }) => {
                assert!(report.starts_with("the compiled expression can't be used: "), "{report}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Damaged automata are refused or harmless, at any alignment.
#[test]
fn a_damaged_automaton_never_panics() {
    let good = build(r"(foo|ba[rz])+\b.*$").to_bytes_native_endian();
    for at in 0..good.len() {
        for bit in [0, 5, 7] {
            let mut dfa = good.clone();
            dfa[at] ^= 1 << bit;
            let act = Act::Expect { pattern: "x".into(), dfa, timeout_ns: 1 };
            if let Ok(mut p) = Player::new(vec![Step { line: 1, act }], |_| String::new()) {
                p.output(0, VM, b"some foobar baz\r\n");
                p.poll(0);
            }
        }
    }
}

/// A player goes on in another one at each byte of the output, as if it were the same.
#[test]
fn another_player_goes_on_where_one_has_stopped() {
    let script = || {
        steps([
            expect("^login: ", 1),
            send("root\n"),
            expect("(ab){3}$", 1),
            absent("x"),
            Act::Console { stream: MONITOR },
            send("mem\n"),
            Act::Wait { ns: 5 },
            expect("\\bend\\b", 1),
            absent("[0-9]"),
        ])
    };
    let output = [
        (VM, "login: "),
        (VM, "login\nababab"),
        (MONITOR, "the en"),
        (VM, "\nx"),
        (MONITOR, "d end 7"),
    ];
    let bytes: Vec<(u16, u8)> =
        output.iter().flat_map(|(stream, text)| text.bytes().map(|byte| (*stream, byte))).collect();
    let play = |stops: &[usize]| {
        let mut p = Player::new(script(), name).unwrap();
        let mut done = Vec::new();
        for (i, (stream, byte)) in bytes.iter().enumerate() {
            if stops.contains(&i) {
                let mut w = Writer::new();
                p.save(&mut w);
                p = Player::resume(script(), name, &mut Reader::new(&w.bytes), 10 * i as u64)
                    .unwrap();
            }
            p.output(10 * i as u64, *stream, &[*byte]);
            done.extend(std::iter::from_fn(|| p.poll(10 * i as u64)));
        }
        done
    };
    let mut w = Writer::new();
    Player::new(script(), name).unwrap().save(&mut w);
    for cut in 0..w.bytes.len() {
        let short = &mut Reader::new(&w.bytes[..cut]);
        assert!(Player::resume(script(), name, short, 0).is_err());
    }
    let whole = play(&[]);
    assert_eq!(whole.len(), 3, "{whole:?}");
    // The monitor's console begins a line elsewhere: that must not cut the last word in two.
    let stops: Vec<usize> = (0..=19).chain(25..=27).collect();
    for (n, i) in stops.iter().enumerate() {
        for j in &stops[n..] {
            assert_eq!(play(&[*i, *j]), whole, "{i} {j}");
        }
    }
}
