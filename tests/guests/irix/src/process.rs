//! Processes: their life and death.

use crate::cpu::{Context, Frame, Stack, pda};
use crate::lock::Kernel;
use crate::sched::Event;
use core::mem::size_of;
use irix_user::calls::Error;

/// Most processes.
pub const PROCESSES_MAX: usize = 48;
/// No process.
pub const NONE: usize = usize::MAX;
/// Most files of a process.
pub const FILES_MAX: usize = 16;
/// The slot of the first process, the ancestor of all.
pub const INIT: usize = 0;

/// Bytes of a kernel stack.
const STACK: usize = 0x2000;

#[unsafe(link_section = ".bss.noinit")]
static mut STACKS: [Stack<STACK>; PROCESSES_MAX] = [Stack::EMPTY; PROCESSES_MAX];

unsafe extern "C" {
    /// Where a new process goes on: it leaves the kernel through the frame on its stack.
    fn process_begins();
}

/// The end of a process's kernel stack.
pub fn stack_end(slot: usize) -> u64 {
    &raw const STACKS as u64 + ((slot + 1) * STACK) as u64
}

/// What a process is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The slot is free.
    Free,
    /// It wants to run.
    Ready,
    /// It runs.
    Running,
    /// It waits for something.
    Asleep(Event),
    /// It has ended, and its parent has not asked yet.
    Zombie,
}

/// An open file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// None.
    Closed,
    /// The console.
    Console,
    /// The reading end of a pipe.
    Reader(usize),
    /// The writing end of a pipe.
    Writer(usize),
}

/// A process.
pub struct Process {
    /// What it is doing.
    pub state: State,
    /// Its identifier.
    pub pid: u32,
    /// Its parent's slot.
    pub parent: usize,
    /// Its process group: who gets Ctrl-C together.
    pub group: u32,
    /// Its address space.
    pub space: usize,
    /// Its open files.
    pub files: [File; FILES_MAX],
    /// Signals to it, a bit each. Any one will end it.
    pub pending: u64,
    /// Where it resumes after a fault; 0: it is killed.
    pub catch: u64,
    /// How it ended: exit code << 8 | signal.
    pub status: u32,
    /// Its kernel stack's state.
    pub context: Context,
    /// Its program.
    pub name: [u8; 16],
}

impl Process {
    const FREE: Self = Self {
        state: State::Free,
        pid: 0,
        parent: INIT,
        group: 0,
        space: crate::space::NONE,
        files: [File::Closed; FILES_MAX],
        pending: 0,
        catch: 0,
        status: 0,
        context: Context::EMPTY,
        name: [0; 16],
    };
}

/// All processes.
pub struct Processes {
    slots: [Process; PROCESSES_MAX],
    last_pid: u32,
}

impl core::ops::Index<usize> for Processes {
    type Output = Process;
    fn index(&self, slot: usize) -> &Process {
        &self.slots[slot]
    }
}

impl core::ops::IndexMut<usize> for Processes {
    fn index_mut(&mut self, slot: usize) -> &mut Process {
        &mut self.slots[slot]
    }
}

impl Processes {
    /// None.
    pub const EMPTY: Self = Self { slots: [const { Process::FREE }; PROCESSES_MAX], last_pid: 0 };

    /// The one that this CPU runs.
    pub fn current(&mut self) -> &mut Process {
        &mut self.slots[pda().process]
    }

    /// The slot of a living process.
    pub fn find(&self, pid: u32) -> Option<usize> {
        let alive = |p: &Process| !matches!(p.state, State::Free | State::Zombie);
        self.slots.iter().position(|p| alive(p) && p.pid == pid)
    }

    fn free_slot(&self) -> Result<usize, Error> {
        self.slots.iter().position(|p| p.state == State::Free).ok_or(Error::Again)
    }
}

/// A kernel stack on which nothing is but the frame of a process that is about to begin.
fn first_context(slot: usize, frame: &Frame) -> Context {
    let at = stack_end(slot) - size_of::<Frame>() as u64;
    // SAFETY: the stack is the slot's, and nobody runs on it.
    unsafe { (at as *mut Frame).write(frame.clone()) };
    Context::new(process_begins as *const () as u64, at)
}

impl Kernel {
    /// Makes the first process, in `space`.
    pub fn begin(&mut self, space: usize, frame: &Frame, name: [u8; 16]) {
        let mut files = [File::Closed; FILES_MAX];
        files[..3].fill(File::Console);
        self.processes.last_pid = 1;
        let context = first_context(INIT, frame);
        self.processes[INIT] =
            Process { pid: 1, group: 1, space, files, context, name, ..Process::FREE };
        self.make_ready(INIT);
    }

    /// Makes a child of the current process that goes on with `frame`, in a copy of its space or, if
    /// `share`, in the same. Its pid.
    ///
    /// # Errors
    /// There are too many processes, or there is not enough memory.
    pub fn fork(&mut self, frame: &Frame, share: bool) -> Result<u32, Error> {
        let slot = self.processes.free_slot()?;
        let parent = pda().process;
        let of = self.processes[parent].space;
        let space = if share {
            self.spaces[of].users += 1;
            of
        } else {
            self.spaces.fork(&mut self.frames, of)?
        };
        self.processes.last_pid += 1;
        let pid = self.processes.last_pid;
        let Process { group, files, name, .. } = self.processes[parent];
        for file in files {
            self.pipes.opened(file);
        }
        let context = first_context(slot, frame);
        self.processes[slot] =
            Process { pid, parent, group, space, files, context, name, ..Process::FREE };
        self.make_ready(slot);
        Ok(pid)
    }

    /// Ends the current process.
    pub fn exit(&mut self, status: u32) -> ! {
        let slot = pda().process;
        if slot == INIT {
            panic!("the first process has ended, status {status:#x}");
        }
        for i in 0..FILES_MAX {
            let file = core::mem::replace(&mut self.processes[slot].files[i], File::Closed);
            self.close(file);
        }
        let space = self.processes[slot].space;
        self.spaces.leave(&mut self.frames, space);
        for child in 0..PROCESSES_MAX {
            if self.processes[child].parent == slot && self.processes[child].state != State::Free {
                self.processes[child].parent = INIT;
            }
        }
        let process = &mut self.processes[slot];
        process.state = State::Zombie;
        process.status = status;
        let parent = process.parent;
        self.wake(Event::Child(parent));
        self.wake(Event::Child(INIT));
        self.switch();
        unreachable!("a process runs after its end");
    }

    /// Waits for the end of a child, of any if `pid` is 0: its pid << 32 | its status.
    ///
    /// # Errors
    /// There is no such child, or a signal came first.
    pub fn wait(&mut self, pid: u32) -> Result<u64, Error> {
        let slot = pda().process;
        loop {
            let mut is_any = false;
            for child in 0..PROCESSES_MAX {
                let process = &self.processes[child];
                let mine = process.parent == slot && child != slot && process.state != State::Free;
                if mine && (pid == 0 || process.pid == pid) {
                    is_any = true;
                    if process.state == State::Zombie {
                        let found = u64::from(process.pid) << 32 | u64::from(process.status);
                        self.processes[child] = Process::FREE;
                        return Ok(found);
                    }
                }
            }
            if !is_any {
                return Err(Error::NoChild);
            }
            self.sleep(Event::Child(slot))?;
        }
    }

    /// Signals a process: it ends as soon as it would go back to user mode.
    pub fn signal(&mut self, slot: usize, signal: u32) {
        self.processes[slot].pending |= 1 << signal;
        if let State::Asleep(_) = self.processes[slot].state {
            self.make_ready(slot);
        }
    }

    /// Signals all of a process group.
    pub fn signal_group(&mut self, group: u32, signal: u32) {
        for slot in 0..PROCESSES_MAX {
            let process = &self.processes[slot];
            let alive = !matches!(process.state, State::Free | State::Zombie);
            if alive && slot != INIT && process.group == group {
                self.signal(slot, signal);
            }
        }
    }

    /// The current process did what it must not: it resumes where it wanted to, or is signalled.
    pub fn fault(&mut self, frame: &mut Frame, signal: u32) {
        let slot = pda().process;
        let catch = core::mem::take(&mut self.processes[slot].catch);
        if catch == 0 {
            self.signal(slot, signal);
        } else {
            frame.regs[2] = u64::from(signal);
            frame.epc = catch;
        }
    }
}
