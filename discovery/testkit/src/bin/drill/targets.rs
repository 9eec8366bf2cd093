//! Lets Prometheus find the add service of a running row (`file_sd_configs`).

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

/// The file of a row. Dropping it removes the file.
pub(crate) struct Target(PathBuf);

impl Target {
    pub(crate) fn add(folder: &Path, row: &str, name: &str, address: SocketAddr) -> Result<Self> {
        let file = folder.join(format!("row-{row}-{}.json", address.port()));
        let text = json!([{"targets": [address], "labels": {"row": row, "name": name}}]);
        // Moved into place whole, as Prometheus reads it at once.
        let new = file.with_extension("new");
        let written = fs::write(&new, text.to_string()).and_then(|()| fs::rename(&new, &file));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self(file))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Prometheus then sees the row's process end as a failed scrape.
        let _gone = fs::remove_file(&self.0);
    }
}
