//! Compiles the test service of gRPC's interop tests with protox, as `proto` does its own files.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    if std::env::var_os("CARGO_FEATURE_INTEROP").is_none() {
        return Ok(());
    }
    let descriptors = protox::compile(["testing.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("testing.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    // `connect` would bring in tonic's own transport; the cases use `discovery::Channel`.
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
