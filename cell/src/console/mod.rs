//! The monitor console: a line editor, and the commands it understands.
//!
//! The editor is our own: those for terminals without an operating system read their terminal themselves and ask it
//! for the cursor's place (`noline`), or bring command derivation and a formatter of their own (`embedded-cli`, `ushell`);
//! here a byte is pushed in when it comes, from a person or a script, and nothing answers for the screen.

mod command;
mod desk;
mod editor;
mod help;

pub use command::{Command, nearest, parse, unknown};
pub use desk::{Desk, PATIENCE_NS, Place, Sent};
pub use editor::{Editor, Key};
pub use help::{Argument, HELP, Reach, Topic, complete, detail, overview, topic};

/// What the console prints when it is ready for a command.
pub const PROMPT: &str = "honeycomb> ";
