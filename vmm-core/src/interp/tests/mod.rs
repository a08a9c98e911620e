//! The interpreter on small programs.

mod hostile;
pub(crate) mod machine;
mod programs;
