//! Knot DNS, an authoritative DNS server whose records change at run time.

use std::{ffi::OsString, fmt::Write as _, fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{CommandLine, Launch, Place, Server};

/// The zone that the server has.
pub const ZONE: &str = "discovery.test";

/// A DNS server with the zone [`ZONE`], which has the name `ns.discovery.test` for 127.0.0.1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knot;

impl Launch for Knot {
    const NAME: &'static str = "dns";
    const VARIABLE: &'static str = "KNOT_HOME";

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let data = place.data.display();
        let file = place.data.join(ZONE);
        // From its second start on, the zone is in the journal: the file has the initial one.
        let load = if file.exists() {
            "none"
        } else {
            "difference-no-serial"
        };
        let configuration = format!(
            "server:\n    listen: 127.0.0.1@{port}\n    rundir: {data}\n\
             database:\n    storage: {data}/db\n\
             log:\n  - target: stderr\n    any: info\n\
             acl:\n  - id: this-machine\n    address: 127.0.0.1\n    action: update\n\
             zone:\n  - domain: {ZONE}\n    storage: {data}\n    file: {ZONE}\n    \
             zonefile-sync: -1\n    zonefile-load: {load}\n    \
             journal-content: all\n    acl: this-machine\n",
            port = place.ports[0],
        );
        fs::write(place.data.join("knot.conf"), configuration)?;
        if !file.exists() {
            fs::create_dir_all(place.data.join("db"))?;
            let zone = format!(
                "$ORIGIN {ZONE}.\n@ 3600 SOA ns hostmaster 1 3600 600 86400 1\n@ 3600 NS ns\n\
                 ns 3600 A 127.0.0.1\n"
            );
            fs::write(file, zone)?;
        }
        Ok(CommandLine::new(place.home.join("bin/knotd"))
            .arg("-c")
            .arg(place.data.join("knot.conf"))
            .env("LD_LIBRARY_PATH", libraries(place)))
    }

    fn url(&self, place: &Place) -> String {
        format!("dns://{}", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        control(place, "zone-read discovery.test @ SOA\n")
            .await
            .is_ok()
    }
}

impl Server<Knot> {
    /// The server's version.
    ///
    /// # Errors
    ///
    /// When the program does not say it.
    pub async fn version(&self) -> Result<String> {
        let output = Command::new(self.place().home.join("bin/knotd"))
            .arg("--version")
            .env("LD_LIBRARY_PATH", libraries(self.place()))
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.split_whitespace().last();
        Ok(version.context("knotd says no version")?.to_owned())
    }

    /// Replaces all records at an owner within [`ZONE`], for example `_trim._tcp` and
    /// `SRV 0 1 8975 ns`. Without records the name goes.
    ///
    /// # Errors
    ///
    /// When the server refuses them.
    pub async fn set_records(&self, owner: &str, ttl: u32, records: &[String]) -> Result<()> {
        let mut commands = format!("zone-begin {ZONE}\n");
        if self.has(owner).await? {
            writeln!(commands, "zone-unset {ZONE} {owner}")?;
        }
        for record in records {
            writeln!(commands, "zone-set {ZONE} {owner} {ttl} {record}")?;
        }
        writeln!(commands, "zone-commit {ZONE}")?;
        if let Err(error) = control(self.place(), &commands).await {
            // The transaction would stay open.
            control(self.place(), &format!("zone-abort {ZONE}\n")).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn has(&self, owner: &str) -> Result<bool> {
        match control(self.place(), &format!("zone-read {ZONE} {owner}\n")).await {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("no such node") => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn libraries(place: &Place) -> String {
    place.home.join("lib").display().to_string()
}

/// The output of `knotc` with these commands, one a line.
async fn control(place: &Place, commands: &str) -> Result<String> {
    let configuration: OsString = place.data.join("knot.conf").into();
    let mut knotc = Command::new(place.home.join("bin/knotc"))
        .arg("-c")
        .arg(configuration)
        .env("LD_LIBRARY_PATH", libraries(place))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start knotc")?;
    let mut input = knotc.stdin.take().context("no standard input")?;
    input.write_all(commands.as_bytes()).await?;
    drop(input);
    let output = knotc.wait_with_output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    ensure!(
        output.status.success() && !stderr.contains("error:"),
        "knotc {}: {stdout}{stderr}",
        commands.lines().next().unwrap_or_default()
    );
    Ok(stdout)
}
