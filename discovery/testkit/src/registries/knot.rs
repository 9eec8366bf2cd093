//! Knot DNS, an authoritative DNS server whose records change at run time.

mod update;

use std::{ffi::OsString, fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

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

    /// Replaces all records at an owner within [`ZONE`] by a dynamic update (RFC 2136), for example at
    /// `_trim._tcp` by `SRV 0 1 8975 ns`. Without records the name goes. A, AAAA, CNAME, SRV and TXT are
    /// known; names without a dot at their end are within the zone.
    ///
    /// # Errors
    ///
    /// When a record is malformed, or the server refuses the update.
    pub async fn set_records(&self, owner: &str, ttl: u32, records: &[String]) -> Result<()> {
        let message = update::message(ZONE, owner, ttl, records)?;
        let mut stream = TcpStream::connect(self.address()).await?;
        stream.write_u16(u16::try_from(message.len())?).await?;
        stream.write_all(&message).await?;
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        let code = answer.get(3).map(|flags| flags & 0xf);
        ensure!(
            code == Some(0),
            "the update of {owner} was refused: {code:?}"
        );
        Ok(())
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
