//! The monitor console: a line editor, and the commands it understands.
//!
//! The editor is our own: the crates that edit lines without an operating system read their terminal
//! themselves, or bring command derivation and a formatter of their own; here a byte is pushed in when
//! it comes, and what is needed fits on a page.

mod command;
mod editor;

pub use command::{Command, HELP, nearest, parse};
pub use editor::{Editor, Key};

/// What the console prints when it is ready for a command.
pub const PROMPT: &str = "honeycomb> ";
