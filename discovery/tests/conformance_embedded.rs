//! The conformance suite against a folder.

#![cfg(all(feature = "embedded", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use discovery::registry::{Check, Registry, embedded::Embedded};
use tempfile::TempDir;
use testkit::conformance::{self, Case, Control, Credentials, Promises, Subject};

const SECOND: Duration = Duration::from_secs(1);

/// The bound for a killed process.
const KILLED: Duration = Duration::from_millis(100);

const NO_SERVER: &str = "there is no server";

/// A folder that the suite can remove.
struct Folder {
    temp: TempDir,
    /// The locks of malformed entries: the entry of a dead process is removed, not malformed.
    locked: Vec<File>,
}

impl Folder {
    fn path(&self) -> PathBuf {
        self.temp.path().join("registry")
    }
}

impl Control for Folder {
    async fn kill(&mut self) -> Result<()> {
        bail!(NO_SERVER)
    }

    async fn restart(&mut self) -> Result<()> {
        bail!(NO_SERVER)
    }

    async fn restart_wiped(&mut self) -> Result<()> {
        fs::remove_dir_all(self.path())?;
        Ok(fs::create_dir(self.path())?)
    }

    fn pause(&self) -> Result<()> {
        bail!(NO_SERVER)
    }

    fn resume(&self) -> Result<()> {
        bail!(NO_SERVER)
    }
}

struct InFolder(Folder);

impl Subject for InFolder {
    const NAME: &'static str = "embedded";
    const HAS_SERVER: bool = false;
    type Server = Folder;

    async fn start() -> Result<Option<Self>> {
        Ok(Some(Self(Folder {
            temp: TempDir::new()?,
            locked: Vec::new(),
        })))
    }

    fn server(&mut self) -> &mut Folder {
        &mut self.0
    }

    fn promises() -> Promises {
        Promises::default()
            .within(Case::Seen, KILLED)
            .within(Case::Deregistered, KILLED)
            .within(Case::Thousand, SECOND)
            .within(Case::Killed, KILLED)
            .within(Case::Wiped, 2 * SECOND)
            .within(Case::RightCredentials, KILLED)
            .within(Case::WrongCredentials, KILLED)
            .without(
                Case::Updated,
                "an ID belongs to the process that holds its lock: a second registration is refused while it \
                 lives",
            )
            .without(
                Case::Stopped,
                "a stopped process keeps its lock, so it stays listed: outlier ejection stops the calls to it",
            )
            .without(Case::Outage, NO_SERVER)
            .without(Case::Hang, NO_SERVER)
            .without(Case::Kept, NO_SERVER)
            .feature("watch", "inotify, or a read every second where it is refused")
            .feature("checks", "the lock of a file, which the kernel releases with the process")
            .feature("credentials", "the owner and the mode of the folder")
    }

    async fn version(&self) -> Result<String> {
        Ok("none: a folder".to_owned())
    }

    fn open(&self) -> Result<Arc<dyn Registry>> {
        Ok(Arc::new(Embedded::new(self.0.path())))
    }

    fn service_flags(&self) -> Vec<String> {
        let url = format!("embedded://{}", self.0.path().display());
        ["--registry".to_owned(), url].to_vec()
    }

    fn check(&self) -> Check {
        Check::Default
    }

    async fn write_malformed(&mut self, service: &str) -> Result<usize> {
        let folder = self.0.path().join(service);
        let locked: [&[u8]; 5] = [
            b"",
            b"{\"host\": \"127.0.0.1\"",
            b"{\"host\": \"127.0.0.1\", \"port\": 70000}",
            b"{\"host\": \"0.0.0.0\", \"port\": 1}",
            b"\xff\xfe",
        ];
        for (at, json) in locked.iter().enumerate() {
            let path = folder.join(format!("malformed-{at}.json"));
            fs::write(&path, json)?;
            let file = File::open(&path)?;
            file.lock()?;
            self.0.locked.push(file);
        }
        fs::write(folder.join("broken.static.json"), "[{\"targets\": 7}]")?;
        fs::create_dir(folder.join("folder.json"))?;
        Ok(locked.len() + 2)
    }

    async fn start_secured() -> Result<Option<(Self, Credentials)>> {
        let temp = TempDir::new()?;
        let new = |name: &str, mode: u32| {
            let path = temp.path().join(name);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            anyhow::Ok(path)
        };
        let private = |path: PathBuf| Arc::new(Embedded::private(path)) as Arc<dyn Registry>;
        let right = private(new("registry", 0o700)?);
        let mut wrong = vec![
            (
                "a folder that others can write",
                private(new("open", 0o777)?),
            ),
            (
                "a folder that a group can write",
                private(new("group", 0o770)?),
            ),
        ];
        let link = temp.path().join("link");
        symlink(new("elsewhere", 0o700)?, &link)?;
        wrong.push(("a link", private(link)));
        let others = new("others", 0o755)?;
        // Only root can give a folder away.
        if chown(&others, Some(65534), None).is_ok() {
            wrong.push(("a folder of another user", private(others)));
        }
        let credentials = Credentials {
            right,
            wrong,
            secrets: Vec::new(),
        };
        let locked = Vec::new();
        Ok(Some((Self(Folder { temp, locked }), credentials)))
    }
}

#[tokio::test]
async fn a_folder_keeps_every_promise() {
    conformance::run::<InFolder>().await.unwrap();
}
