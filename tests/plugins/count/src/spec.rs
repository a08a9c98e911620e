//! The plugin's arguments: where to write, and what addresses mean.

use std::path::PathBuf;

/// What is special about a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it is counted apart.
    Plain,
    /// It is part of the monitor: a visit lasts while code of such ranges runs.
    Monitor,
    /// It is a spin or `wait` loop: it counts neither in totals nor in visits.
    Loop,
    /// An `eret` in it goes back to the monitor, not to a guest.
    Inner,
}

/// Some addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its name in records.
    pub name: String,
    /// The first address.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// What is special about it.
    pub kind: Kind,
}

impl Range {
    const fn contains(&self, pc: u64) -> bool {
        self.first <= pc && pc <= self.last
    }
}

/// What to count, and where to write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The file that records are written to.
    pub out: PathBuf,
    /// The ranges that were given.
    pub ranges: Vec<Range>,
    /// First instructions of trap handlers: names and addresses.
    pub vectors: Vec<(String, u64)>,
}

/// What the addresses outside all ranges are called.
pub const REST: &str = "rest";

impl Spec {
    /// Reads arguments of the form `key=value`.
    ///
    /// # Errors
    /// Which argument is wrong, and what it should look like.
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let mut spec = Self::default();
        for arg in args {
            let Some((key, value)) = arg.split_once('=') else {
                return Err(format!("{arg}: write key=value"));
            };
            let kind = match key {
                "out" => {
                    spec.out = value.into();
                    continue;
                }
                "vector" => {
                    let (name, at) = named(arg, value)?;
                    spec.vectors.push((name, number(arg, at)?));
                    continue;
                }
                "range" => Kind::Plain,
                "monitor" => Kind::Monitor,
                "loop" => Kind::Loop,
                "inner" => Kind::Inner,
                _ => {
                    return Err(format!(
                        "{arg}: unknown key; known are out, range, monitor, loop, inner, vector"
                    ));
                }
            };
            let (name, bounds) = named(arg, value)?;
            let Some((first, last)) = bounds.split_once('-') else {
                return Err(format!("{arg}: write NAME:FIRST-LAST"));
            };
            let (first, last) = (number(arg, first)?, number(arg, last)?);
            if first > last {
                return Err(format!("{arg}: the first address is above the last"));
            }
            spec.ranges.push(Range { name, first, last, kind });
        }
        if spec.out.as_os_str().is_empty() {
            return Err("out=FILE is missing".into());
        }
        Ok(spec)
    }

    /// How many counters a CPU has: one a range, and one for the rest (number 0).
    pub const fn counters(&self) -> usize {
        self.ranges.len() + 1
    }

    /// A counter's name.
    pub fn name(&self, counter: usize) -> &str {
        counter.checked_sub(1).map_or(REST, |range| &self.ranges[range].name)
    }

    /// The counter of an instruction: that of the smallest range around it.
    pub fn counter(&self, pc: u64) -> usize {
        let around = self.ranges.iter().enumerate().filter(|(_, range)| range.contains(pc));
        let smallest = around.min_by_key(|(_, range)| range.last - range.first);
        smallest.map_or(0, |(index, _)| index + 1)
    }

    fn is_in(&self, pc: u64, kind: Kind) -> bool {
        self.ranges.iter().any(|range| range.kind == kind && range.contains(pc))
    }

    /// Whether an address is the monitor's.
    pub fn is_monitor(&self, pc: u64) -> bool {
        self.is_in(pc, Kind::Monitor)
    }

    /// Whether an `eret` there goes back to the monitor.
    pub fn is_inner(&self, pc: u64) -> bool {
        self.is_in(pc, Kind::Inner)
    }

    /// Which vector begins at an address.
    pub fn vector(&self, pc: u64) -> Option<usize> {
        self.vectors.iter().position(|&(_, at)| at == pc)
    }

    /// Whether a counter's instructions are those of a loop.
    pub fn is_loop(&self, counter: usize) -> bool {
        counter.checked_sub(1).is_some_and(|range| self.ranges[range].kind == Kind::Loop)
    }

    /// The counters whose sum is the length of a visit so far.
    pub fn visit_counters(&self) -> Vec<usize> {
        (1..self.counters())
            .filter(|&counter| {
                !self.is_loop(counter) && self.is_monitor(self.ranges[counter - 1].first)
            })
            .collect()
    }
}

fn named<'a>(arg: &str, value: &'a str) -> Result<(String, &'a str), String> {
    // The last colon: names of functions have some themselves.
    match value.rsplit_once(':') {
        Some((name, rest)) if !name.is_empty() => Ok((name.to_string(), rest)),
        _ => Err(format!("{arg}: write NAME:ADDRESS")),
    }
}

fn number(arg: &str, text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| format!("{arg}: {text} is not a hexadecimal address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(args: &[&str]) -> Result<Spec, String> {
        Spec::parse(&args.iter().map(|arg| (*arg).to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_are_told_apart() {
        let spec = spec(&[
            "out=/a=b",
            "monitor=monitor:0xffffffffe0000000-0xffffffffffffffff",
            "monitor=prom:80100000-801fffff",
            "range=a::f:0xffffffffe0001000-0xffffffffe00010ff",
            "loop=idle:0xffffffffe0002000-0xffffffffe0002003",
            "inner=back:0xffffffffe0003000-0xffffffffe0003003",
            "range=user:0-7fffffff",
            "vector=refill:80100000",
        ])
        .unwrap();
        assert_eq!(spec.out, PathBuf::from("/a=b"));
        let name = |pc| spec.name(spec.counter(pc));
        assert_eq!(name(0xffff_ffff_e000_0000), "monitor");
        assert_eq!(name(u64::MAX), "monitor");
        assert_eq!(name(0xffff_ffff_e000_10fc), "a::f");
        assert_eq!(name(0x8010_0000), "prom");
        assert_eq!(name(4), "user");
        assert_eq!(name(0x4000_0000_0000_0000), REST);
        assert!(spec.is_monitor(0xffff_ffff_e000_1000) && !spec.is_monitor(4));
        assert!(spec.is_inner(0xffff_ffff_e000_3000) && !spec.is_inner(0xffff_ffff_e000_3004));
        assert_eq!((spec.vector(0x8010_0000), spec.vector(0x8010_0004)), (Some(0), None));
        let names: Vec<_> = spec.visit_counters().into_iter().map(|c| spec.name(c)).collect();
        assert_eq!(names, ["monitor", "prom", "a::f", "back"]);
        assert!(spec.is_loop(spec.counter(0xffff_ffff_e000_2000)) && !spec.is_loop(0));
    }

    #[test]
    fn mistakes_are_named() {
        for (args, expected) in [
            (&["range=a:0-1"][..], "out=FILE is missing"),
            (&["out"], "out: write key=value"),
            (&["rang=a:0-1"], "rang=a:0-1: unknown key; known are"),
            (&["range=a"], "range=a: write NAME:ADDRESS"),
            (&["range=a:5"], "range=a:5: write NAME:FIRST-LAST"),
            (&["range=a:5-4"], "range=a:5-4: the first address is above"),
            (&["vector=a:x"], "vector=a:x: x is not a hexadecimal address"),
        ] {
            let error = spec(args).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
