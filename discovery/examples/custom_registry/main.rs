//! A registry of your own: instances in a file, one `HOST:PORT` a line. See `file_registry.rs`.
//!
//! ```console
//! $ cargo run -p discovery --example custom_registry
//! $ cargo test -p discovery --example custom_registry
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod file_registry;
#[path = "../support/mod.rs"]
mod support;

use std::{fs, sync::Arc};

use discovery::Channel;
use file_registry::FileRegistry;
use proto::{TrimRequest, trim_client::TrimClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = tempfile::NamedTempFile::new()?;
    let address = support::start().await?;
    fs::write(file.path(), format!("{address}\nnot an address\n"))?;

    let registry = Arc::new(FileRegistry::new(file.path()));
    let channel = Channel::from_registry(registry, "trim_service").build()?;
    let request = TrimRequest { s: " a b ".into() };
    let answer = TrimClient::new(channel).trim_space(request).await?;
    println!("{:?}", answer.into_inner().s);
    Ok(())
}
