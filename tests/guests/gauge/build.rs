//! Hands the linker its script, on the bare-metal target only.

fn main() {
    println!("cargo:rerun-if-changed=gauge.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo:rustc-link-arg-bins=-T{here}/gauge.ld");
        println!("cargo:rustc-link-arg-bins=--strip-all");
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=0x1000");
    }
}
