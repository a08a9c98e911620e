//! The machine as the cell sees it: [`cell::Machine`] over the real one.

use crate::careful::xkphys;
use crate::{clock, link, selftest};
use abi::config::{self, Config};
use abi::{Mpa, PAGE_SIZE, VmId};
use alloc::string::String;
use alloc::sync::Arc;
use cell::Machine;
use cell::pmap::Pmap;
use cell::vm::{Exit, Guest};

pub(crate) struct Host {}

impl Host {
    pub(crate) fn new(_config: &Config) -> Self {
        Self {}
    }
}

pub(crate) enum NoGuest {}
impl Guest for NoGuest {
    fn run(&mut self, _: u64) -> Exit {
        match *self {}
    }
    fn input(&mut self, _: &[u8]) -> usize {
        match *self {}
    }
    fn take_output(&mut self, _: &mut dyn FnMut(&[u8])) {
        match *self {}
    }
    fn instructions(&self) -> u64 {
        match *self {}
    }
    fn counters(&self, _: &mut dyn FnMut(&'static str, u64)) {
        match *self {}
    }
}

impl Machine for Host {
    type Guest = NoGuest;

    fn now(&self) -> u64 {
        clock::now()
    }

    fn heap(&self) -> (usize, usize) {
        crate::heap::usage()
    }

    fn clear(&mut self, page: Mpa) {
        // SAFETY: the cell hands over a free page of its memory, which nothing else uses.
        unsafe { core::ptr::write_bytes(xkphys(page) as *mut u8, 0, PAGE_SIZE as usize) };
    }

    fn create(&mut self, _: VmId, _: &config::Vm, _: &Arc<Pmap>) -> Result<Self::Guest, String> {
        Err("this monitor has no engine yet".into())
    }

    fn debug(&mut self, fault: &str) -> Result<String, String> {
        selftest::fail(fault)
    }

    fn write(&mut self, stream: u16, t_ns: u64, bytes: &[u8]) {
        link::write(stream, t_ns, bytes);
    }
}
