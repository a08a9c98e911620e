//! How much of each node its cell's monitor keeps: what was said, or what the VMs that a cell may have can make
//! use of, as far as that takes nothing from them.

use super::plan::Plan;
use super::size;
use super::spec::{Kernel, Machine, Vm};
use abi::config;
use abi::layout::Layout;
use abi::{CellId, PAGE_SIZE, map};
use anyhow::Result;
use vmm_core::vm::heap::{CODE_WORDS, Candidate};

/// What is kept is a multiple of this where nobody said how much.
const UNIT: u64 = 1 << 20;
/// Heap for what the monitor does beside running VMs, in bytes: more than it says that it leaves for that.
const OTHER: u64 = 3 << 20;
/// Bytes of a cell's memory for each of the heap that the records of its pages take.
const RECORDED: u64 = 128;
/// Built-in images that are linked in a supervisor segment: there is nothing to translate.
const SUPERVISOR_LINKED: [&str; 2] = ["hello", "irix"];

/// What was said, or what is usual.
///
/// # Errors
/// What was said can't be.
pub fn said(machine: &Machine, node: u64) -> Result<u64> {
    let Some(item) = &machine.monitor_memory_per_node else { return Ok(map::KEPT_USUAL) };
    let range = map::KEPT_MIN..=node;
    if !item.value.is_multiple_of(PAGE_SIZE) || !range.contains(&item.value) {
        return Err(item.error(format_args!(
            "monitor_memory_per_node = {}: give a multiple of 4K from {} to {}, which is what a node has, or leave it out",
            size::show(item.value),
            size::show(map::KEPT_MIN),
            size::show(node)
        )));
    }
    Ok(item.value)
}

/// Each cell must find in one piece what was said.
///
/// # Errors
/// It does not.
pub fn check(machine: &Machine, layout: &Layout) -> Result<()> {
    let Some(item) = &machine.monitor_memory_per_node else { return Ok(()) };
    for cell in cells(layout) {
        let (reserve, nodes) = (layout.reserve(cell), layout.nodes_of(cell).count() as u64);
        let found = reserve.end - reserve.start;
        if found < nodes * item.value {
            let kind = if layout.window == 0 { "slice_per_node" } else { "window_per_node" };
            return Err(item.error(format_args!(
                "monitor_memory_per_node = {}: cell {cell} finds {} in one piece for its {nodes} node(s); set \
                 monitor_memory_per_node = \"{}\", or raise {kind}",
                size::show(item.value),
                size::show(found),
                size::show(found / nodes / UNIT * UNIT)
            )));
        }
    }
    Ok(())
}

/// What is kept where nobody said how much: so much that all VMs that a cell may have at the same time find room for
/// all that they can make use of (those that only an operator brings there, for what they must have), but no more than leaves each its home, and each cell the memory for the VMs that it may
/// have.
pub fn wanted(plan: &Plan) -> u64 {
    let (layout, before) = (&plan.layout, plan.packed());
    let wanted = cells(layout).map(|cell| {
        let heap = before.most_in(cell, &|vm| heap(plan, vm).1, &|vm| heap(plan, vm).0);
        let base = map::MONITOR_MAX + OTHER + layout.memory_of(cell) / RECORDED;
        (base + heap).div_ceil(layout.nodes_of(cell).count() as u64)
    });
    let most = wanted.max().unwrap_or(0).min(map::RAM_MAX).next_multiple_of(UNIT);
    let homes = before.homes();
    let memory: Vec<u64> = cells(layout).map(|cell| before.memory_in(cell)).collect();
    let mut with = before.clone();
    let mut harms_nobody = |kept: &u64| {
        with.machine.monitor_per_node = *kept;
        let layout = with.layout();
        let has = |(cell, memory): (CellId, &u64)| *memory <= layout.room_of(cell);
        cells(&layout).zip(&memory).all(has) && with.homes() == homes
    };
    let steps = (layout.kept / UNIT..=most / UNIT).rev().map(|unit| unit * UNIT);
    steps.into_iter().find(&mut harms_nobody).unwrap_or(layout.kept)
}

fn cells(layout: &Layout) -> impl Iterator<Item = CellId> + use<> {
    (0..layout.cells()).map(CellId)
}

/// The least heap that a VM must have, and the most that it makes use of; its pmap included.
fn heap(plan: &Plan, vm: &config::Vm) -> (u64, u64) {
    let of = |planned: &&Vm| planned.name.value == vm.name;
    // What somebody's own kernel is linked for shows only when it is read.
    let linked = plan.vms.iter().find(of).is_some_and(|planned| match &planned.kernel.value {
        Kernel::BuiltIn(name) => SUPERVISOR_LINKED.contains(&name.as_str()),
        Kernel::File(_) => false,
    });
    let candidate =
        // (What runs well without being translated is worth no more memory.)
        Candidate { engine: vm.engine, translatable: !linked, linked, memory: vm.memory, vcpus: vm.vcpus };
    let pmap = vm.memory >> 8;
    (candidate.least() as u64 + pmap, candidate.most(CODE_WORDS[0]) as u64 + pmap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::plan::Flags;
    use crate::run::spec::Spec;
    use std::path::Path;

    fn plan(text: &str) -> Result<Plan> {
        Plan::new(Some(Spec::parse(Path::new("m.toml"), text)?), &Flags::default())
    }

    fn vm(name: &str, kernel: &str, rest: &str) -> String {
        format!("[[vm]]\nname = \"{name}\"\nkernel = \"{kernel}\"\n{rest}\n")
    }

    /// Megabytes a node.
    fn kept(text: &str) -> u64 {
        plan(text).unwrap_or_else(|error| panic!("{text}: {error:#}")).layout.kept >> 20
    }

    #[test]
    fn what_is_usual_where_that_is_enough() {
        assert_eq!(kept(""), 32);
        assert_eq!(kept(&vm("a", "linux", "memory = \"48M\"")), 32);
        assert_eq!(kept(&vm("a", "irix", "memory = \"16M\"\nvcpus = 4")), 32);
        assert_eq!(
            kept(&vm("a", "linux", "vcpus = 4\nmemory = \"128M\"\nengine = \"direct\"")),
            32
        );
    }

    #[test]
    fn all_that_its_vms_can_make_use_of() {
        let four = "memory = \"64M\"\nvcpus = 4";
        // Where each VCPU has little memory to itself its code cache is small; nobody translates what needs no translation.
        let (translated, linked) = (kept(&vm("a", "linux", four)), kept(&vm("a", "irix", four)));
        assert!((40..64).contains(&translated), "{translated}");
        assert_eq!(linked, 32);
        // One that has 64 MB to itself has room for the largest code cache.
        let large = kept(&vm("a", "linux", ""));
        assert!((34..44).contains(&large), "{large}");
        let own = kept(&vm("a", "some/vmlinux", four));
        assert_eq!(own, translated, "what it is linked for is not known");
        let two = format!("{}{}", vm("a", "linux", ""), vm("b", "linux", ""));
        assert!((33..64).contains(&kept(&two)), "{}", kept(&two));
        // Two nodes keep it together.
        let nodes = format!("[machine]\nnodes = 2\n{two}");
        assert_eq!(kept(&nodes), 32);
        for text in [&two, &nodes, &vm("a", "linux", four)] {
            let plan = plan(text).unwrap();
            let reserve = plan.layout.reserve(CellId(0));
            let most = plan.packed().most_in(CellId(0), &|vm| heap(&plan, vm).1, &|_| 0);
            assert!(reserve.end - reserve.start >= map::MONITOR_MAX + most);
        }
    }

    #[test]
    fn no_vm_loses_its_place() {
        let of =
            |memory: u64| kept(&vm("a", "linux", &format!("vcpus = 4\nmemory = \"{memory}M\"")));
        assert_eq!((of(224), of(223), of(216)), (32, 33, 40));
        assert!(of(160) > 40);
        // One that is started by hand, or comes when another cell is lost, has its place as well.
        let four = "vcpus = 4\nmemory = \"100M\"";
        let by_hand = |memory: u64| {
            let rest = format!("start = \"manual\"\nmemory = \"{memory}M\"");
            kept(&format!("{}{}", vm("a", "linux", four), vm("b", "linux", &rest)))
        };
        assert_eq!((by_hand(124), by_hand(120)), (32, 36));
        let cells = "[machine]\nnodes = 2\n[[cell]]\nnodes = [0]\n[[cell]]\nnodes = [1]\n";
        let elsewhere = |restart: &str| {
            let b = format!("memory = \"110M\"\nrestart = \"{restart}\"");
            kept(&format!("{cells}{}{}", vm("a", "linux", four), vm("b", "linux", &b)))
        };
        assert_eq!(elsewhere("on-failure: elsewhere"), 46);
        assert!(elsewhere("never") > 46);
    }

    #[test]
    fn whatever_fits_with_the_usual_share_fits() {
        let mut seed = 1_u64;
        let mut below = |limit: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        let (mut accepted, mut more) = (0, 0);
        for _ in 0..300 {
            let nodes = 1 + below(4);
            let kind = ["mixed", "removable", "ram"][below(3) as usize];
            let machine = format!("nodes = {nodes}\nmemory_kind = \"{kind}\"\n");
            let mut rest = String::new();
            if below(2) == 0 {
                for node in 0..nodes {
                    rest += &format!("[[cell]]\nnodes = [{node}]\n");
                }
            }
            for number in 0..1 + below(5) {
                let more = format!(
                    "memory = \"{}M\"\nvcpus = {}\nplacement = \"{}\"\nstart = \"{}\"\nrestart = \"{}\"",
                    1 + below(200),
                    1 + below(4),
                    ["local", "spread"][below(2) as usize],
                    ["auto", "manual"][below(2) as usize],
                    ["never", "on-failure: elsewhere"][below(2) as usize],
                );
                rest += &vm(&format!("vm{number}"), ["linux", "irix"][below(2) as usize], &more);
            }
            let usual =
                plan(&format!("[machine]\n{machine}monitor_memory_per_node = \"32M\"\n{rest}"));
            let chosen = plan(&format!("[machine]\n{machine}{rest}"));
            let Ok(chosen) = chosen else {
                assert!(usual.is_err(), "{machine}{rest}");
                continue;
            };
            assert!(chosen.layout.is_sound());
            // (What was said must be there; what is usual is taken as far as it is.)
            let Ok(usual) = usual else { continue };
            assert_eq!(chosen.packed().homes(), usual.packed().homes(), "{machine}{rest}");
            accepted += 1;
            more += u32::from(chosen.layout.kept > usual.layout.kept);
        }
        assert!(accepted > 50 && more > 20, "{accepted} accepted, {more} of them with more");
    }

    #[test]
    fn what_is_said_is_kept_or_refused_with_a_remedy() {
        let machine = |text: &str| plan(&format!("[machine]\n{text}\n"));
        assert_eq!(machine("monitor_memory_per_node = \"auto\"").unwrap().layout.kept, 32 << 20);
        for (size, bytes) in [("16M", 16 << 20), ("64M", 64 << 20), ("20484K", 20_484 << 10)] {
            let plan = machine(&format!("monitor_memory_per_node = \"{size}\"")).unwrap();
            let reserve = plan.layout.reserve(CellId(0));
            assert_eq!((plan.layout.kept, reserve.end - reserve.start), (bytes, bytes));
        }
        for (text, expected) in [
            (
                "monitor_memory_per_node = \"8M\"",
                "m.toml:2: monitor_memory_per_node = 8M: give a multiple of 4K from 16M to 256M, which is",
            ),
            ("monitor_memory_per_node = \"257M\"", "give a multiple of 4K from 16M to 256M"),
            ("monitor_memory_per_node = 33554433", "give a multiple of 4K from 16M"),
            ("monitor_memory_per_node = 0", "give a multiple of 4K from 16M"),
            ("monitor_memory_per_node = 9223372036854771712", "give a multiple of 4K from 16M"),
            (
                "monitor_memory_per_node = \"96M\"",
                "m.toml:2: monitor_memory_per_node = 96M: cell 0 finds 64M in one piece for its 1 node(s); set \
                 monitor_memory_per_node = \"64M\", or raise window_per_node",
            ),
            (
                "memory_kind = \"removable\"\nmonitor_memory_per_node = \"200M\"",
                "m.toml:3: monitor_memory_per_node = 200M: cell 0 finds 128M in one piece",
            ),
        ] {
            let error = format!("{:#}", machine(text).unwrap_err());
            assert!(error.contains(expected), "{text:?} gave {error:?}");
            assert!(!error.contains('\n'), "{error:?} is more than one line");
        }
        // The VMs have the rest.
        let vm = vm("a", "linux", "memory = \"200M\"");
        let error =
            plan(&format!("[machine]\nmonitor_memory_per_node = \"64M\"\n{vm}")).unwrap_err();
        assert!(format!("{error:#}").contains("cell 0 has 192M for VMs"), "{error:#}");
    }
}
