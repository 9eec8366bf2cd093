//! The workspace's two service binaries, started on free ports of the loopback interface.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use tokio::{process::Command, sync::Mutex};

use crate::Process;

/// Long enough to load a debug binary on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running trim service.
#[derive(Debug)]
pub struct TrimService {
    /// The process.
    pub process: Process,
    /// The address of its calls: gRPC, or plain HTTP.
    pub grpc: SocketAddr,
    /// The ID under which it registers.
    pub id: String,
}

/// A running add service.
#[derive(Debug)]
pub struct AddService {
    /// The process.
    pub process: Process,
    /// Its HTTP address.
    pub http: SocketAddr,
    /// Its gRPC address.
    pub grpc: SocketAddr,
    /// The address of the port for operators: its own, or the HTTP address.
    pub admin: SocketAddr,
}

/// Starts a trim service on 127.0.0.1 and a free port, unless the flags differ, and waits
/// until it listens.
///
/// # Errors
///
/// When there is no such binary and none can be built, or when it does not start.
pub async fn trim_service(flags: &[&str]) -> Result<TrimService> {
    let process = start("trim-service", flags, &["--port"]).await?;
    let line = process.stdout_line("listening", START_LIMIT).await?;
    Ok(TrimService {
        grpc: field(&line, "grpc")?.parse()?,
        id: field(&line, "id")?.to_owned(),
        process,
    })
}

/// Starts an add service on 127.0.0.1 and free ports, unless the flags differ, and waits
/// until it listens.
///
/// # Errors
///
/// When there is no such binary and none can be built, or when it does not start.
pub async fn add_service(flags: &[&str]) -> Result<AddService> {
    let process = start("add-service", flags, &["--http-port", "--grpc-port"]).await?;
    let line = process.stdout_line("listening", START_LIMIT).await?;
    Ok(AddService {
        http: field(&line, "http")?.parse()?,
        grpc: field(&line, "grpc")?.parse()?,
        admin: field(&line, "admin")
            .or_else(|_| field(&line, "http"))?
            .parse()?,
        process,
    })
}

/// Starts a trim server for plain HTTP, which `scripts/drill.sh` has built.
///
/// # Errors
///
/// When there is no such binary, or when it does not start.
pub async fn http_trim_service(flags: &[&str]) -> Result<TrimService> {
    let process = start_http("trim", flags)?;
    let line = process.stdout_line("listening", START_LIMIT).await?;
    Ok(TrimService {
        grpc: field(&line, "http")?.parse()?,
        id: field(&line, "id")?.to_owned(),
        process,
    })
}

/// Starts an add server that calls trim servers over plain HTTP. It has one port.
///
/// # Errors
///
/// When there is no such binary, or when it does not start.
pub async fn http_add_service(flags: &[&str]) -> Result<AddService> {
    let process = start_http("add", flags)?;
    let line = process.stdout_line("listening", START_LIMIT).await?;
    let http = field(&line, "http")?.parse()?;
    Ok(AddService {
        http,
        grpc: http,
        admin: http,
        process,
    })
}

fn start_http(server: &str, flags: &[&str]) -> Result<Process> {
    let own = env::current_exe()?;
    let binary = own.with_file_name("http-services");
    ensure!(
        binary.is_file(),
        "{} is missing; build it by cargo build -p testkit --features http --bin http-services",
        binary.display()
    );
    let arguments = [&[server], flags].concat();
    Process::spawn(&binary, arguments)
}

async fn start(package: &str, flags: &[&str], ports: &[&str]) -> Result<Process> {
    let mut arguments = flags.to_vec();
    let given = |flag: &str| flags.iter().any(|f| f.split('=').next() == Some(flag));
    for (flag, value) in [("--listen", "127.0.0.1")]
        .into_iter()
        .chain(ports.iter().map(|port| (*port, "0")))
    {
        if !given(flag) {
            arguments.extend([flag, value]);
        }
    }
    Process::spawn(&service_binary(package).await?, arguments)
}

/// The value in `... name=value ...`.
fn field<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    let found = fields.find(|(key, _)| *key == name);
    Ok(found.with_context(|| format!("no {name}= in {line:?}"))?.1)
}

/// The binary of a package of this workspace, beside the test's own.
///
/// Cargo builds a package's binary before the tests of that package, but not before those of another.
/// There it is built here if it is missing or older than the sources.
///
/// # Errors
///
/// When it is missing and cannot be built.
pub async fn service_binary(package: &str) -> Result<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::const_new(());
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM
    let own = env::current_exe()?;
    let mut folders = own.ancestors().skip(1);
    let profile = folders
        .find(|folder| folder.file_name().is_some_and(|name| name != "deps"))
        .context("no target folder")?;
    let binary = profile.join(package);
    let _one_at_a_time = BUILDING.lock().await;
    if !is_current(&binary, package)? {
        let mut command = Command::from(cargo());
        command.args(["build", "--quiet", "--package", package]);
        match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => {}
            Some(name) => _ = command.args(["--profile", name]),
        }
        let output = command.current_dir(workspace()).output().await;
        let output = output.context("cannot run cargo")?;
        ensure!(
            output.status.success() && binary.exists(),
            "these tests need {}, and `cargo build -p {package}` did not make it: {}",
            binary.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(binary)
}

/// Cargo, without the variables that it has set for the test itself: build scripts that read some of them
/// would run again, and half of the dependencies would be built anew.
#[must_use]
pub fn cargo() -> std::process::Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_current(binary: &Path, package: &str) -> Result<bool> {
    let Ok(built) = fs::metadata(binary).and_then(|metadata| metadata.modified()) else {
        return Ok(false);
    };
    for folder in [package, "discovery", "discovery/bootstrap", "proto"] {
        for part in ["src", "pb", "build.rs"] {
            let path = workspace().join(folder).join(part);
            if path.exists() && newest(&path)? > built {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The modification time of a file, or of the newest file in a folder.
fn newest(path: &Path) -> Result<SystemTime> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.modified()?);
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(path)? {
        newest = newest.max(self::newest(&entry?.path())?);
    }
    Ok(newest)
}
