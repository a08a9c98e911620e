use super::plan::{Flags, Plan};
use super::spec::{Kernel, Spec};
use crate::endian::Endian;
use anyhow::Result;
use std::path::Path;

fn plan(text: &str, flags: &Flags) -> Result<Plan> {
    Plan::new(Some(Spec::parse(Path::new("m.toml"), text)?), flags)
}

const VM: &str = "[[vm]]\nname = \"a\"\nkernel = \"linux\"\n";

#[test]
fn a_small_file_gets_every_default() {
    let plan = plan(VM, &Flags::default()).unwrap();
    let layout = &plan.layout;
    assert_eq!((layout.nodes, plan.cpus(), layout.ram_size()), (1, 2, 448 << 20));
    assert_eq!((layout.window, plan.console_rate), (64 << 20, 1 << 20));
    assert_eq!(plan.cells, [[0]]);
    assert!(plan.endian.is_none());
    assert_eq!(plan.vms[0].memory.value, 64 << 20);
    assert!(plan.vms[0].autostart.value);
}

#[test]
fn nothing_asked_for_runs_a_built_in_guest_in_each_of_four_cells() {
    let little = ["linux", "irix", "irix-2", "irix-3"];
    let big = ["irix", "irix-2", "irix-3", "irix-4"];
    for (endian, guests) in
        [(None, little), (Some(Endian::Little), little), (Some(Endian::Big), big)]
    {
        let plan = Plan::new(None, &Flags { endian, ..Flags::default() }).unwrap();
        let names: Vec<_> = plan.vms.iter().map(|vm| vm.name.value.as_str()).collect();
        assert_eq!(names, guests);
        assert_eq!(plan.packed().homes(), [0, 1, 2, 3].map(|cell| Some(abi::CellId(cell))));
        assert_eq!((plan.cpus(), plan.layout.cells(), plan.layout.ram_size()), (8, 4, 1 << 30));
        for vm in &plan.vms {
            let image = vm.name.value.split('-').next().unwrap();
            assert_eq!(vm.kernel.value, Kernel::BuiltIn(image.into()));
        }
    }
}

#[test]
fn the_kernel_flag_is_a_configuration_of_one_vm() {
    let flags = Flags {
        kernel: Some("v".into()),
        initrd: Some("i".into()),
        append: Some("quiet".into()),
        vm_budget: Some(9),
        endian: Some(Endian::Big),
    };
    let plan = Plan::new(None, &flags).unwrap();
    let vm = &plan.vms[0];
    assert_eq!((vm.name.value.as_str(), vm.memory.value), ("guest", 128 << 20));
    assert_eq!(vm.initrd.as_ref().unwrap().value, Path::new("i"));
    assert_eq!((vm.cmdline.value.as_str(), vm.budget.value), ("quiet", 9));
    assert_eq!(plan.endian.unwrap().value, Endian::Big);
}

#[test]
fn a_flag_beats_the_file() {
    let text =
        format!("[machine]\nendian = \"little\"\nslice_per_node = \"512M\"\n{VM}budget = 5\n");
    let flags = Flags {
        kernel: Some("v".into()),
        vm_budget: Some(9),
        endian: Some(Endian::Big),
        ..Flags::default()
    };
    let plan = plan(&text, &flags).unwrap();
    assert_eq!(plan.layout.slice, 512 << 20, "what no flag says stays");
    assert_eq!(plan.endian.unwrap().value, Endian::Big);
    assert_eq!((plan.vms.len(), plan.vms[0].budget.value), (1, 9));
    assert_eq!(plan.vms[0].name.value, "guest");
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    for (text, expected) in [
        (format!("{VM}{VM}"), "m.toml:5: name = \"a\" is taken by the VM at m.toml:2;"),
        (
            VM.replace("\"a\"", "\"monitor\""),
            "m.toml:2: name = \"monitor\" is the name of a console",
        ),
        (VM.replace("\"a\"", "\"a b\""), "m.toml:2: name = \"a b\": use 1 to 32 letters"),
        (VM.replace("\"a\"", "\"../a\""), "use 1 to 32 letters"),
        (VM.replace("\"a\"", "\"\""), "use 1 to 32 letters"),
        (
            format!("{VM}memory = \"300M\"\n"),
            "m.toml:4: VM \"a\": memory 300M does not fit: cell 0 has 224M for VMs; lower it or set slice_per_node = \"272M\"",
        ),
        (format!("{VM}memory = \"4G\"\n"), "lower it: no such machine is that large"),
        (
            format!("{VM}memory = \"18000000000G\"\n"),
            "m.toml:4: [[vm]] memory: \"18000000000G\" is not a size",
        ),
        (format!("{VM}memory = \"16000000000G\"\n"), "lower it: no such machine is that large"),
        (
            format!("{VM}memory = 4097\n"),
            "m.toml:4: VM \"a\": memory = 4097: give a multiple of 4K",
        ),
        (format!("{VM}memory = \"0\"\n"), "give a multiple of 4K, at least 1M"),
        (
            format!("{VM}memory = \"200M\"\n{}", VM.replace("\"a\"", "\"b\"")),
            "VM \"b\": memory 64M does not fit: cell 0 has 24M of 224M left; lower it or set slice_per_node = \"232M\"",
        ),
        (
            "[machine]\nmemory_kind = \"removable\"\nwindow_per_node = \"16M\"\n".into(),
            "m.toml:3: window_per_node = 16M: the monitor of cell 0 gets 8M of it, without room for a heap: set window_per_node = \"32M\", or",
        ),
        (format!("{VM}cells = [1]\n"), "m.toml:4: VM \"a\": there is no cell 1; the machine has 1"),
        (format!("{VM}cells = []\n"), "it may run nowhere"),
        (
            format!("{VM}cmdline = \"a\\nb\"\n"),
            "m.toml:4: VM \"a\": the command line has a control character; remove it",
        ),
        (
            "[[cell]]\nnodes = [0]\n[[cell]]\nnodes = [0]\n".into(),
            "m.toml:4: node 0 is already in cell 0;",
        ),
        ("[[cell]]\nnodes = [0, 0]\n".into(), "m.toml:2: node 0 is already in cell 0;"),
        ("[[cell]]\nnodes = [1]\n".into(), "m.toml:2: there is no node 1; the machine has 1"),
        ("[[cell]]\nnodes = []\n".into(), "m.toml:2: a cell without nodes;"),
        (
            "[machine]\nslice_per_node = \"192M\"\nmemory_per_node = \"255M\"\n".into(),
            "m.toml:3: memory_per_node = 255M disagrees with window_per_node + slice_per_node = 256M;",
        ),
        (
            "[machine]\nslice_per_node = \"2G\"\n".into(),
            "m.toml:2: slice_per_node = 2G: 1 node(s) have at most 1536M each",
        ),
        (
            "[machine]\nslice_per_node = \"33M\"\n".into(),
            "m.toml:2: slice_per_node = 33M: give a multiple of 8M, at least 8M",
        ),
        ("[machine]\nslice_per_node = 0\n".into(), "at least 8M"),
        (
            "[machine]\nmemory_kind = \"ram\"\nslice_per_node = \"16M\"\n".into(),
            "m.toml:3: slice_per_node = 16M: give a multiple of 8M, at least 64M",
        ),
        (
            "[machine]\nmemory_kind = \"ram\"\nwindow_per_node = \"16M\"\n".into(),
            "m.toml:3: window_per_node = 16M: nodes of memory_kind = \"ram\" have none; leave it out",
        ),
        (
            "[machine]\nmemory_kind = \"removable\"\nslice_per_node = \"64M\"\n".into(),
            "m.toml:3: slice_per_node = 64M: nodes of memory_kind = \"removable\" have none;",
        ),
        (
            "[machine]\nnodes = 4\nwindow_per_node = \"128M\"\n".into(),
            "m.toml:3: window_per_node = 128M: give a power of two from 16M to 64M, which is the most of 4 node(s)",
        ),
        ("[machine]\nwindow_per_node = \"48M\"\n".into(), "give a power of two from 16M to 256M"),
        ("[machine]\nwindow_per_node = \"8M\"\n".into(), "give a power of two from 16M"),
        (
            format!(
                "[machine]\nnodes = 2\n[[cell]]\nnodes = [0]\n[[cell]]\nnodes = [1]\n{VM}memory = \"240M\"\n"
            ),
            "VM \"a\": memory 240M does not fit: cell 0 has 224M for VMs, cell 1 has 224M for VMs; lower it or set slice_per_node = \"208M\"",
        ),
        ("[machine]\nconsole_rate = 0\n".into(), "m.toml:2: console_rate = 0:"),
    ] {
        let error = format!("{:#}", plan(&text, &Flags::default()).unwrap_err());
        assert!(error.contains(expected), "{text:?} gave {error:?}");
        assert!(!error.contains('\n'), "{error:?} is more than one line");
    }
}

#[test]
fn each_kind_of_memory_has_its_usual_sizes() {
    for (nodes, kind, window, slice) in [
        (1, "mixed", 64, 192),
        (4, "mixed", 64, 192),
        (5, "mixed", 32, 192),
        (8, "mixed", 32, 192),
        (1, "removable", 256, 0),
        (3, "removable", 64, 0),
        (8, "removable", 32, 0),
        (1, "ram", 0, 256),
        (7, "ram", 0, 216),
    ] {
        let text = format!("[machine]\nnodes = {nodes}\nmemory_kind = \"{kind}\"\n");
        let layout = plan(&text, &Flags::default()).unwrap().layout;
        assert_eq!((layout.window, layout.slice), (window << 20, slice << 20), "{text}");
    }
}

#[test]
fn flags_that_mean_one_vm_want_one_vm() {
    let two = format!("{VM}{}", VM.replace("\"a\"", "\"b\""));
    let flags = Flags { append: Some("x".into()), ..Flags::default() };
    let error = plan(&two, &flags).unwrap_err().to_string();
    assert!(error.starts_with("--append: the configuration has 2 VMs;"), "{error}");
}

#[test]
fn the_examples_are_machines() {
    let folder = crate::paths::workspace().join("docs/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let spec = Spec::read(&file).unwrap();
        Plan::new(Some(spec), &Flags::default()).unwrap_or_else(|error| panic!("{error:#}"));
        seen += 1;
    }
    assert!(seen >= 5);
}
