//! Compiles `pb/*.proto` with protox, a protobuf compiler in Rust, so that no `protoc` is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=pb");
    let descriptors = protox::compile(["trim.proto", "add.proto"], ["pb"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `connect` would bring in tonic's own transport; a client here takes any channel.
    let configure = || tonic_prost_build::configure().build_transport(false);
    configure()
        .build_server(false)
        .compile_fds(descriptors.clone())?;
    let servers = out.join("servers");
    fs::create_dir_all(&servers)?;
    configure()
        .build_client(false)
        .codec_path("crate::codec::ServerCodec")
        // The messages are there already.
        .extern_path(".pb", "crate")
        .out_dir(servers)
        .compile_fds(descriptors)?;
    Ok(())
}
