//! Where things of this checkout lie.

use std::path::{Path, PathBuf};

/// The checkout's top folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where the bare-metal crates are built: inside the workspace, whatever `CARGO_TARGET_DIR` says,
/// and apart from the host's own artefacts, so that neither build waits for or undoes the other.
pub fn metal_target_dir() -> PathBuf {
    workspace().join("target/metal")
}

/// The same for monitors with a seeded mistake: apart from the true ones, and from each other.
pub fn mutant_target_dir(mutant: &str) -> PathBuf {
    workspace().join("target/mutants").join(mutant)
}
