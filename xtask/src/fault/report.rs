//! The table of a campaign, what it has covered, and its plot.

use super::store::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A row of the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    all: usize,
    failed: usize,
    lost_cells: usize,
    lost_vms: usize,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        self.all += 1;
        self.failed += usize::from(!outcome.passed());
        self.lost_cells += outcome.lost_cells.len();
        self.lost_vms += outcome.lost_vms.len();
    }

    fn show(&self, kind: &str, machine: &str) -> String {
        let Self { all, failed, lost_cells, lost_vms } = self;
        format!(
            "| {kind} | {machine} | {all} | {} | {failed} | {lost_cells} | {lost_vms} |\n",
            all - failed
        )
    }
}

/// A row for each kind of fault and machine.
fn rows<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> BTreeMap<(String, &'a str), Row> {
    let mut rows: BTreeMap<(String, &str), Row> = BTreeMap::new();
    for outcome in outcomes {
        rows.entry((outcome.kind.to_string(), &outcome.machine)).or_default().add(outcome);
    }
    rows
}

/// By kind of fault and machine, how many experiments there were, and what became of them.
pub fn summary<'a>(outcomes: impl IntoIterator<Item = &'a Outcome> + Clone) -> String {
    let mutant = outcomes.clone().into_iter().find_map(|outcome| outcome.mutant.as_ref());
    let title = mutant.map_or(String::new(), |mutant| {
        format!("The monitor had a seeded mistake, {mutant}: failures are to be found.\n\n")
    });
    let rows = rows(outcomes);
    let mut total = Row::default();
    for row in rows.values() {
        total.all += row.all;
        total.failed += row.failed;
        total.lost_cells += row.lost_cells;
        total.lost_vms += row.lost_vms;
    }
    let head = "| fault | machine | experiments | passed | failed | lost cells | lost VMs |\n\
                |---|---|---|---|---|---|---|\n";
    let mut out = title + head;
    for ((kind, machine), row) in &rows {
        out.push_str(&row.show(kind, machine));
    }
    out.push_str(&total.show("all", ""));
    out
}

/// What experiments have covered: kinds, places, sides cut off, memory and byte order, what was in flight.
pub fn coverage<'a>(outcomes: impl IntoIterator<Item = &'a Outcome> + Clone) -> String {
    let found = found(outcomes.clone());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut monitors: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        let mut count = |what: String| *counts.entry(what).or_default() += 1;
        count(format!("fault: {}", outcome.kind));
        count(format!("machine: {}", outcome.machine));
        count(format!("memory: {}", outcome.memory));
        for (is, what) in [
            (outcome.is_first, "place: the cell of CPU 0, console and script is lost"),
            (outcome.is_cut, "place: a router or link that cuts something off"),
            (outcome.is_wide, "VMs: some may use several cells"),
            (
                !outcome.either.is_empty(),
                "VMs: some may use a lost cell and have their home in another",
            ),
            (outcome.lost_vms.is_empty(), "VMs: none was lost"),
            (outcome.lines != 0, "memory: lines of survivors' pages were lost, and discarded"),
            (
                outcome.second.is_some(),
                "faults: two, the second while the first was recovered from",
            ),
            (
                outcome.is_cut || !outcome.in_flight.is_empty(),
                "place: something is cut off, or in flight",
            ),
            (
                outcome.is_wide && !outcome.in_flight.is_empty(),
                "VMs: some may use several cells, and something is in flight",
            ),
        ] {
            if is {
                count(what.into());
            }
        }
        for what in &outcome.in_flight {
            count(format!("in flight: {what}"));
        }
        *monitors.entry(&outcome.monitor).or_default() += 1;
    }
    let mut out = String::new();
    for (what, count) in counts {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{count:6}  {what}");
    }
    for (monitor, count) in monitors {
        let _ = writeln!(out, "{count:6}  monitor {monitor}");
    }
    out + &found
}

/// How long it took from a fault until its last loss was reported: least, median and most for each kind, in milliseconds.
fn found<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for outcome in outcomes.into_iter().filter(|outcome| outcome.second.is_none()) {
        if let Some(ns) = outcome.found_ns {
            times.entry(outcome.kind.to_string()).or_default().push(ns);
        }
    }
    let mut out = String::new();
    for (kind, mut times) in times {
        times.sort_unstable();
        let ms = |i: usize| times[i] as f64 / 1e6;
        let (middle, last) = (times.len() / 2, times.len() - 1);
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:6}  {kind}: loss reported after {:.2} ms, median {:.2}, most {:.2}",
            times.len(),
            ms(0),
            ms(middle),
            ms(last)
        );
    }
    out
}

/// An experiment in a line.
pub fn title(outcome: &Outcome) -> String {
    let Outcome { id, fault, at_ns, machine, memory, .. } = outcome;
    let second = outcome.second.as_ref().map_or(String::new(), |second| format!(" and {second}"));
    let ms = *at_ns as f64 / 1e6;
    format!("experiment {id}: fault {fault}{second} at {ms:.6} ms, {machine}, {memory}")
}

/// Failures, each with what was wrong and its command.
pub fn failures<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut out = String::new();
    for outcome in outcomes.into_iter().filter(|outcome| !outcome.passed()) {
        let _ = writeln!(out, "{}", title(outcome));
        for line in &outcome.wrong {
            let _ = writeln!(out, "    {line}");
        }
        let _ = writeln!(out, "    replay: {}", outcome.replay);
    }
    out
}

/// Width and height of a row of the plot, and where its bar begins, in pixels.
const PLOT: (usize, usize, usize) = (760, 22, 260);

/// A plot as SVG: a bar for each kind of fault and machine, passed and failed.
pub fn plot<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let rows = rows(outcomes);
    let (width, height, left) = PLOT;
    let most = rows.values().map(|row| row.all).max().unwrap_or(1).max(1);
    let length = |count: usize| (width - left - 60) * count / most;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"4\" y=\"16\">experiments by fault and machine: passed (blue), failed (red)</text>\n",
        (rows.len() + 1) * height + 8
    );
    for (i, ((kind, machine), row)) in rows.iter().enumerate() {
        let y = (i + 1) * height + 4;
        let passed = row.all - row.failed;
        let (blue, red) = (length(passed), length(row.failed));
        let _ = write!(
            out,
            "<text x=\"4\" y=\"{}\">{kind}, {machine}</text>\n\
             <rect x=\"{left}\" y=\"{y}\" width=\"{blue}\" height=\"16\" fill=\"#3b6ea5\"/>\n\
             <rect x=\"{}\" y=\"{y}\" width=\"{red}\" height=\"16\" fill=\"#b03a2e\"/>\n\
             <text x=\"{}\" y=\"{}\">{passed} of {}</text>\n",
            y + 13,
            left + blue,
            left + blue + red + 6,
            y + 13,
            row.all
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::store::tests::outcome;

    #[test]
    fn a_campaign_is_counted() {
        let all = [outcome(0, &[]), outcome(1, &["VM irix-1: gone"]), outcome(2, &[])];
        let table = summary(&all);
        assert!(table.contains("| node | 4 cells of 1 node | 3 | 2 | 1 | 3 | 3 |"), "{table}");
        assert!(table.ends_with("| all |  | 3 | 2 | 1 | 3 | 3 |\n"));
        assert!(coverage(&all).contains("     3  in flight: messages\n"));
        assert!(
            coverage(&all).ends_with("node: loss reported after 1.25 ms, median 1.25, most 1.25\n")
        );
        let failed = failures(&all);
        assert!(failed.contains("    VM irix-1: gone\n    replay: cargo xtask fault --seed 1"));
        assert_eq!(failed.matches("experiment ").count(), 1);
        let mutant = Outcome { mutant: Some("Odd".into()), ..outcome(3, &[]) };
        assert!(summary(&[mutant]).starts_with("The monitor had a seeded mistake, Odd: "));
        let plot = plot(&all);
        assert!(plot.starts_with("<svg ") && plot.contains(">2 of 3</text>"), "{plot}");
    }
}
