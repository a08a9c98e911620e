//! The translator: guest kernel code that supervisor mode can't run, as code that it can.
//!
//! `docs/translator.md` has the design. Here is all of it that is no hardware: which guest address has
//! which alias ([`Class`]), what is emitted for a block ([`build`]), and the code cache that keeps blocks,
//! chains them, and tells what any place in them means ([`CodeCache`]). A *runtime* enters the code,
//! takes its exceptions, and uses the interpreter for whatever is not emitted.

mod asm;
mod build;
mod cache;
mod control;
mod draft;
mod form;
mod layout;
mod linked;
mod own;
#[cfg(test)]
mod page;
mod posts;
mod reach;
mod registers;
mod sites;
mod source;
mod stand;
#[cfg(test)]
pub(crate) mod tests;
mod values;

pub(crate) use cache::is_mapped;
pub use cache::{BlockId, CodeCache, CodeMemory, ExitId, Key};
pub(crate) use form::{Form, Quick, form_of, source};
pub use layout::{Class, Layout, REACH, TABLE_ENTRIES, TABLE_ENTRY, guest_address, is_dead, slot};
pub(crate) use linked::LINK_REACH;
pub(crate) use own::{Code, Own, OwnPair};
#[cfg(test)]
pub use page::PageImage;
pub use source::Source;
pub use stand::{Kind, Resume, Stand, after_slot};
pub(crate) use values::Values;
