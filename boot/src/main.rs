//! Placeholder until the bare-metal side lands.
fn main() {}
