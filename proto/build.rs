//! Compiles `pb/*.proto` with protox, a protobuf compiler in Rust, so that no `protoc` is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=pb");
    let descriptors = protox::compile(["trim.proto", "add.proto"], ["pb"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // `connect` would bring in tonic's own transport; a client here takes any channel.
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
