//! Bringing the CPUs up.

use crate::asm::BOOT_STACK;
use crate::console;
use crate::cpu::{self, CPUS_MAX, Stack, pda};
use crate::exec::{Image, WORDS_MAX};
use crate::firmware::{self, Table};
use crate::frames::window;
use crate::lock;
use crate::pages;
use crate::sched;
use crate::smp;
use core::sync::atomic::{AtomicBool, Ordering};

/// Stacks to boot and idle on. Not cleared at boot: other CPUs are on theirs by then.
#[unsafe(link_section = ".bss.noinit")]
pub static mut STACKS: [Stack<BOOT_STACK>; CPUS_MAX] = [Stack::EMPTY; CPUS_MAX];

/// CPU 0 has made everything ready for the others. In `.data`: they look before `.bss` is cleared.
#[unsafe(link_section = ".data.go")]
static GO: AtomicBool = AtomicBool::new(false);

/// Where CPU 0 comes from the boot stub, with what the firmware gave it.
pub extern "C" fn main(count: u64, words: u64, environment: u64) -> ! {
    let memory = firmware::memory(Table::at(environment));
    prepare(0);
    console::init();
    let kernel = lock::enter();
    let memory = memory.expect("the firmware's environment has no memsize");
    kernel.frames.init(memory);
    kernel.spaces.image = Image::read();
    smp::probe();

    // The first process is the shell, with the words of the command line.
    let mut line = [0; WORDS_MAX];
    let mut len = 0;
    let arguments = || {
        let each = (1..count as usize).filter_map(|i| Table::at(words).get(i));
        each.flat_map(str::split_ascii_whitespace)
    };
    for word in core::iter::once("sh").chain(arguments()) {
        if let Some(room) = line.get_mut(len..len + word.len() + 1) {
            room[..word.len()].copy_from_slice(word.as_bytes());
            len += word.len() + 1;
        }
    }
    let (space, frame, name) = kernel.load(&line[..len]).expect("the shell fits");
    lock::leave();
    GO.store(true, Ordering::Release);
    // Nobody says how many CPUs there are: those that come do so in the meantime.
    (0..2).for_each(|_| cpu::nap());
    arguments().for_each(cpu::set_tick);
    lock::enter().begin(space, &frame, name);
    lock::leave();
    sched::idle()
}

/// Where the other CPUs come from the boot stub.
pub extern "C" fn secondary(number: usize) -> ! {
    while !GO.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    prepare(number);
    sched::idle()
}

/// What every CPU does for itself.
fn prepare(number: usize) {
    // The private data area, and the window unless the kernel lies in KSEG0.
    let wired = if window(0) == 0xffff_ffff_8000_0000 { 1 } else { 2 };
    cpu::init(number, wired);
    pda().directory = pages::empty_directory();
    smp::check_in();
}
