//! The needs of an agent before its start: the binary and the certificates.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// `CONSUL_BIN`, or the binary that the project's script finds or fetches.
pub(super) async fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CONSUL_BIN") {
        return Ok(path.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/get-consul.sh");
    let run = Command::new(&script).output().await;
    let output = run.with_context(|| {
        format!(
            "these tests need a Consul: set CONSUL_BIN ({})",
            script.display()
        )
    })?;
    ensure!(
        output.status.success(),
        "these tests need a Consul: {}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}

/// A CA, a server and a client certificate, and a CA that signed neither.
pub(super) async fn certificates(consul: &Path, dir: &Path) -> Result<()> {
    let other = dir.join("other");
    fs::create_dir(&other)?;
    let in_dir: [(&Path, &[&str]); 4] = [
        (dir, &["tls", "ca", "create"]),
        (dir, &["tls", "cert", "create", "-server", "-dc", "dc1"]),
        (dir, &["tls", "cert", "create", "-client", "-dc", "dc1"]),
        (&other, &["tls", "ca", "create"]),
    ];
    for (dir, arguments) in in_dir {
        let output = Command::new(consul)
            .args(arguments)
            .current_dir(dir)
            .output()
            .await?;
        ensure!(output.status.success(), "consul {arguments:?}: {output:?}");
    }
    for (made, name) in [
        ("consul-agent-ca.pem", "ca.pem"),
        ("dc1-server-consul-0.pem", "server.pem"),
        ("dc1-server-consul-0-key.pem", "server.key"),
        ("dc1-client-consul-0.pem", "client.pem"),
        ("dc1-client-consul-0-key.pem", "client.key"),
        ("other/consul-agent-ca.pem", "other-ca.pem"),
    ] {
        fs::rename(dir.join(made), dir.join(name)).with_context(|| made.to_owned())?;
    }
    Ok(())
}
