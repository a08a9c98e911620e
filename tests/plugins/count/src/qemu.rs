//! What talks to QEMU: instruments code when it is translated, and is called back.

use crate::record::{self, Counts, Record};
use crate::spec::Spec;
use crate::visit::Visits;
use crate::word::{self, Class};
use qemu_plugin::{
    Args, CallbackFlags, HasCallbacks, Info, Instruction, PluginCondition, PluginId, PluginOp,
    PluginU64, Register, Result, TranslationBlock, VCPUIndex, qemu_plugin_register_atexit_cb,
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu,
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu, register, sys,
};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

register!(Plugin(None));

/// The plugin; nothing before QEMU has given it its arguments.
struct Plugin(Option<Arc<State>>);

struct State {
    spec: Spec,
    big_endian: bool,
    /// The handle of the scoreboard: of each CPU the counters of [`Spec::counter`], and after them
    /// whether a guest runs there, which instruction it may have trapped on, the address of its last one, and how
    /// many it has begun again.
    board: usize,
    /// The counters that make up a visit.
    visit_counters: Vec<usize>,
    cpus: Vec<Mutex<Visits>>,
    out: Mutex<File>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn new(args: &Args, info: &Info) -> std::result::Result<Self, String> {
        let spec = Spec::parse(&args.raw)?;
        let out = File::create(&spec.out).map_err(|e| format!("{}: {e}", spec.out.display()))?;
        let system = info.system.as_ref().ok_or("it counts whole machines, not programs")?;
        // SAFETY: only makes a scoreboard; it is never freed.
        let board = unsafe { sys::qemu_plugin_scoreboard_new(8 * (spec.counters() + 4)) };
        Ok(Self {
            big_endian: !info.target_name.ends_with("el"),
            board: board as usize,
            visit_counters: spec.visit_counters(),
            cpus: (0..system.smp_vcpus).map(|_| Mutex::default()).collect(),
            out: Mutex::new(out),
            spec,
        })
    }

    /// An instruction's encoding.
    fn word(&self, instruction: &Instruction<'_>) -> u32 {
        let mut bytes = [0; 4];
        instruction.read_data(&mut bytes);
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// A cell of the scoreboard.
    fn cell(&self, index: usize) -> PluginU64 {
        PluginU64 { score: self.board as *mut _, offset: 8 * index }
    }

    /// Not 0 while a guest runs.
    fn outside(&self) -> PluginU64 {
        self.cell(self.spec.counters())
    }

    /// The guest's last instruction that can trap by what it is.
    fn by(&self) -> PluginU64 {
        self.cell(self.spec.counters() + 1)
    }

    /// The address of the guest's last instruction.
    fn last(&self) -> PluginU64 {
        self.cell(self.spec.counters() + 2)
    }

    /// How many instructions guests have begun again.
    fn again(&self) -> PluginU64 {
        self.cell(self.spec.counters() + 3)
    }

    fn read(&self, cpu: usize, index: usize) -> u64 {
        qemu_plugin::qemu_plugin_u64_get(self.cell(index), cpu as VCPUIndex)
    }

    /// Instructions of the monitor so far.
    fn now(&self, cpu: usize) -> u64 {
        self.visit_counters.iter().map(|&counter| self.read(cpu, counter)).sum()
    }

    fn counts(&self, cpu: usize) -> Counts<'_> {
        let counters: Vec<_> = (0..self.spec.counters()).map(|i| self.read(cpu, i)).collect();
        let again = qemu_plugin::qemu_plugin_u64_get(self.again(), cpu as VCPUIndex);
        Counts::new(&self.spec, cpu, &counters, again)
    }

    /// Writes a line. Nobody could be told of an error but by the file's being short.
    fn write(&self, out: &mut File, record: &Record<'_>) {
        if let Ok(mut line) = serde_json::to_vec(record) {
            line.push(b'\n');
            let _ = out.write_all(&line);
        }
    }

    fn write_visits(&self, out: &mut File, cpu: usize, until: Option<u16>) {
        for (key, lengths) in lock(&self.cpus[cpu]).take() {
            self.write(out, &record::visit(&self.spec, cpu, until, key, &lengths));
        }
    }

    fn marker(&self, cpu: usize, marker: u16, by_monitor: bool) {
        let visit =
            if by_monitor { lock(&self.cpus[cpu]).mark(marker, self.now(cpu)) } else { None };
        let mut out = lock(&self.out);
        self.write(&mut out, &Record::Marker { marker, visit, counts: self.counts(cpu) });
        if !by_monitor {
            self.write_visits(&mut out, cpu, Some(marker));
        }
    }

    fn exit(&self) {
        let mut out = lock(&self.out);
        for cpu in 0..self.cpus.len() {
            self.write_visits(&mut out, cpu, None);
            self.write(&mut out, &Record::Exit { counts: self.counts(cpu) });
        }
    }

    /// A trap has been taken.
    fn enter(&self, cpu: usize, vector: usize) {
        let by = qemu_plugin::qemu_plugin_u64_get(self.by(), cpu as VCPUIndex);
        lock(&self.cpus[cpu]).enter(vector, by as u32, self.now(cpu));
        // Should the guest trap again before it executes anything, this was not the reason.
        qemu_plugin::qemu_plugin_u64_set(self.by(), cpu as VCPUIndex, 0);
        qemu_plugin::qemu_plugin_u64_set(self.outside(), cpu as VCPUIndex, 0);
    }

    /// A guest goes on at `pc`, where there is a branch or something else. If that is where it was before, it begins
    /// again what the trap has not let it finish: an instruction, or a branch and what is in its delay slot.
    fn leave(&self, cpu: usize, pc: u64, branch: bool) {
        let last = qemu_plugin::qemu_plugin_u64_get(self.last(), cpu as VCPUIndex);
        let begun = match last.wrapping_sub(pc) {
            0 => 1,
            4 if branch => 2,
            _ => 0,
        };
        if begun > 0 {
            let again = qemu_plugin::qemu_plugin_u64_get(self.again(), cpu as VCPUIndex);
            qemu_plugin::qemu_plugin_u64_set(self.again(), cpu as VCPUIndex, again + begun);
        }
        let awaited = lock(&self.cpus[cpu]).leave(self.now(cpu));
        qemu_plugin::qemu_plugin_u64_set(self.outside(), cpu as VCPUIndex, 1);
        if let Some(marker) = awaited {
            let record = Record::Guest { marker, counts: self.counts(cpu) };
            self.write(&mut lock(&self.out), &record);
        }
    }
}

impl Register for Plugin {
    fn register(&mut self, id: PluginId, args: &Args, info: &Info) -> Result<()> {
        let state = State::new(args, info).unwrap_or_else(|error| {
            // The only way to end QEMU with one line instead of an abort.
            eprintln!("count: {error}");
            std::process::exit(1);
        });
        let state = Arc::new(state);
        self.0 = Some(Arc::clone(&state));
        qemu_plugin_register_atexit_cb(id, move |_| state.exit())
    }
}

impl HasCallbacks for Plugin {
    fn on_translation_block_translate(&mut self, _: PluginId, tb: TranslationBlock) -> Result<()> {
        let Some(state) = &self.0 else { return Ok(()) };
        let visits = !state.spec.vectors.is_empty();
        if visits && !state.spec.is_monitor(tb.vaddr()) {
            let back = Arc::clone(state);
            let pc = tb.vaddr();
            let first = tb.instructions().next().map(|first| state.word(&first));
            let branch = first.is_some_and(word::is_branch);
            tb.register_conditional_execute_callback_flags(
                move |cpu| back.leave(cpu as usize, pc, branch),
                CallbackFlags::QEMU_PLUGIN_CB_NO_REGS,
                PluginCondition::QEMU_PLUGIN_COND_EQ,
                state.outside(),
                0,
            );
            let store = PluginOp::QEMU_PLUGIN_INLINE_STORE_U64;
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb.clone(), store, state.by(), 0);
        }
        for instruction in tb.instructions() {
            instrument(state, &instruction, visits);
        }
        Ok(())
    }
}

/// Calls back and counts in this order: a vector's first instruction is not part of the time before it, an
/// `eret` is.
fn instrument(state: &Arc<State>, instruction: &Instruction<'_>, visits: bool) {
    let pc = instruction.vaddr();
    let class = word::classify(state.word(instruction));
    let by_monitor = state.spec.is_monitor(pc);
    if let Class::Marker(marker) = class {
        let state = Arc::clone(state);
        instruction.register_execute_callback(move |cpu| {
            state.marker(cpu as usize, marker, by_monitor);
        });
        return;
    }
    if let Some(vector) = state.spec.vector(pc) {
        let state = Arc::clone(state);
        instruction.register_execute_callback(move |cpu| state.enter(cpu as usize, vector));
    }
    let inline = |op, cell, value| {
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction.clone(), op, cell, value);
    };
    inline(PluginOp::QEMU_PLUGIN_INLINE_ADD_U64, state.cell(state.spec.counter(pc)), 1);
    if !visits {
        return;
    }
    if !by_monitor {
        inline(PluginOp::QEMU_PLUGIN_INLINE_STORE_U64, state.last(), pc);
    }
    match class {
        Class::Eret if by_monitor && !state.spec.is_inner(pc) => {
            let state = Arc::clone(state);
            instruction.register_execute_callback(move |cpu| {
                let cpu = cpu as usize;
                lock(&state.cpus[cpu]).returned(state.now(cpu));
            });
        }
        Class::Eret if !by_monitor => {
            inline(PluginOp::QEMU_PLUGIN_INLINE_STORE_U64, state.by(), word::ERET.into());
        }
        Class::Sensitive(what) if !by_monitor => {
            inline(PluginOp::QEMU_PLUGIN_INLINE_STORE_U64, state.by(), what.into());
        }
        _ => {}
    }
}
