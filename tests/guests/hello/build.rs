//! Hands the linker its scripts, one a link, on the bare-metal target only.

use std::path::PathBuf;

/// The links: binary, and where its page for code that may run directly is linked.
const LINKS: [(&str, &str); 2] =
    [("hello", "0xffffffffc0000000"), ("hello-kseg0", "0xffffffff800ff000")];

fn main() {
    println!("cargo:rerun-if-changed=hello.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let variable = |name| PathBuf::from(std::env::var_os(name).expect("cargo sets it"));
    let template = variable("CARGO_MANIFEST_DIR").join("hello.ld");
    let template =
        std::fs::read_to_string(template).expect("the linker script is beside this file");
    for (binary, window) in LINKS {
        let script = variable("OUT_DIR").join(binary).with_extension("ld");
        std::fs::write(&script, template.replace("@WINDOW@", window)).expect("OUT_DIR is writable");
        println!("cargo:rustc-link-arg-bin={binary}=-T{}", script.display());
    }
}
