//! The interpreter on small programs.

mod hostile;
mod machine;
mod programs;
