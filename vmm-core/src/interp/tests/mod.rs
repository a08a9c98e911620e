//! The interpreter on small programs.

mod machine;
mod programs;
