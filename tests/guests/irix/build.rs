//! Hands the linker its scripts, one a link, and names the file of user programs, on the bare-metal
//! target only.

use std::path::PathBuf;

/// The links: binary, and where its view of RAM begins.
const LINKS: [(&str, &str); 2] =
    [("irix", "0xffffffffc0000000"), ("irix-kseg0", "0xffffffff80000000")];

fn main() {
    println!("cargo:rerun-if-changed=irix.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let variable = |name| PathBuf::from(std::env::var_os(name).expect("cargo sets it"));
    let out = variable("OUT_DIR");
    let template = variable("CARGO_MANIFEST_DIR").join("irix.ld");
    let template =
        std::fs::read_to_string(template).expect("the linker script is beside this file");
    for (binary, window) in LINKS {
        let script = out.join(binary).with_extension("ld");
        std::fs::write(&script, template.replace("@WINDOW@", window)).expect("OUT_DIR is writable");
        println!("cargo:rustc-link-arg-bin={binary}=-T{}", script.display());
        println!("cargo:rustc-link-arg-bin={binary}=-zmax-page-size=0x1000");
    }
    // OUT_DIR is TARGET/release/build/irix-HASH/out; the programs were built before into TARGET/release.
    let release = out.ancestors().nth(3).expect("cargo's layout");
    println!("cargo:rustc-env=IRIX_USER={}", release.join("irix-user").display());
}
