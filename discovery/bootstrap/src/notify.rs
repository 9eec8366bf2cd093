//! Messages to the service manager, by systemd's notification protocol (`sd_notify(3)`).
//!
//! | variable | meaning |
//! |---|---|
//! | `NOTIFY_SOCKET` | the manager's datagram socket: an absolute path, or `@` and an abstract name |
//! | `WATCHDOG_USEC` | microseconds without a message after which the manager considers the process hung |
//! | `WATCHDOG_PID` | the process that the watchdog is meant for |
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A variable that cannot be used, and a message that cannot be
//! delivered, is a warning: the service runs without it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net as unix},
    },
    process,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    net::UnixDatagram,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, warn};

use crate::thinned::Thinned;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Time limit of one message. The manager's queue is full only if the manager hangs.
const LIMIT: Duration = Duration::from_secs(1);
/// The manager accepts messages of at most one page. A status is one line to read.
const MAX_STATUS: usize = 512;

static NOT_SENT: Thinned = Thinned::new();

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    /// Time without a message after which the manager considers the process hung.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names. Must be called inside a tokio runtime.
    pub(crate) fn from_env() -> Self {
        Self::of(|name| env::var_os(name), process::id())
    }

    /// As [`from_env`](Self::from_env), for the process `pid` with these variables. An empty one counts as
    /// unset.
    fn of(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let Some(address) = variable(SOCKET) else {
            return Self::default();
        };
        let socket = match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("the service manager is not notified: {error:#}");
                return Self::default();
            }
        };
        let watchdog = watchdog(
            variable(WATCHDOG).as_deref(),
            variable(WATCHDOG_PID).as_deref(),
            pid,
        );
        let watchdog = watchdog.unwrap_or_else(|error| {
            warn!("no watchdog: {error:#}");
            None
        });
        debug!(socket = %address.display(), ?watchdog, "the service manager is notified");
        Self { socket, watchdog }
    }

    /// The service is up, or has finished to reload its settings.
    pub(crate) async fn ready(&self, status: &str) {
        self.send(&format!("READY=1\n{}", status_line(status)))
            .await;
    }

    /// The state of the service, for people.
    pub(crate) async fn status(&self, status: &str) {
        self.send(&status_line(status)).await;
    }

    /// The service begins to reload its settings. [`ready`](Self::ready) follows.
    pub(crate) async fn reloading(&self) {
        let mut message = "RELOADING=1\n".to_owned();
        // Required by `Type=notify-reload`. It cannot fail on Linux.
        if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
            let micros = Duration::from(now).as_micros();
            let _infallible = writeln!(message, "MONOTONIC_USEC={micros}");
        }
        message.push_str("STATUS=Reading the settings again");
        self.send(&message).await;
    }

    /// The service ends within `limit`, however short the manager's own limit is.
    pub(crate) async fn stopping(&self, limit: Duration) {
        let micros = limit.as_micros();
        let status = status_line("Stopping");
        self.send(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\n{status}"
        ))
        .await;
    }

    /// Notifies the manager twice per watchdog interval that the runtime runs tasks. Without a watchdog it
    /// returns at once.
    pub(crate) async fn keep_alive(&self) {
        let Some(watchdog) = self.watchdog else {
            return;
        };
        let mut ticks = interval(watchdog / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.send("WATCHDOG=1").await;
        }
    }

    async fn send(&self, message: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        let sent = timeout(LIMIT, socket.send(message.as_bytes())).await;
        let sent = sent.map_err(anyhow::Error::from);
        if let Err(error) = sent.and_then(|sent| Ok(sent?))
            && let Some(suppressed) = NOT_SENT.line()
        {
            let what = message.lines().next().unwrap_or_default();
            warn!(
                suppressed,
                "{what} not sent to the service manager: {error:#}"
            );
        }
    }
}

fn connect(address: &OsStr) -> anyhow::Result<UnixDatagram> {
    let socket_address = match address.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => unix::SocketAddr::from_abstract_name(name),
        [b'/', ..] => unix::SocketAddr::from_pathname(address),
        _ => bail!(
            "{SOCKET} is {}: must be an absolute path, or @ and an abstract name",
            address.display()
        ),
    };
    let connect = || {
        let socket = unix::UnixDatagram::unbound()?;
        socket.connect_addr(&socket_address?)?;
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket)
    };
    connect().with_context(|| format!("cannot connect to {SOCKET} {}", address.display()))
}

/// The watchdog's interval, if there is a watchdog and it is meant for this process.
fn watchdog(
    micros: Option<&OsStr>,
    meant_for: Option<&OsStr>,
    pid: u32,
) -> anyhow::Result<Option<Duration>> {
    let Some(value) = micros else {
        return Ok(None);
    };
    if let Some(meant_for) = meant_for {
        let meant_for = number(WATCHDOG_PID, meant_for)?;
        if meant_for != u64::from(pid) {
            debug!("the watchdog is meant for process {meant_for}");
            return Ok(None);
        }
    }
    let micros = number(WATCHDOG, value)?;
    ensure!(
        // Half of it is the interval of a timer, whose resolution is a millisecond.
        micros >= 2_000,
        "{WATCHDOG} is {micros}: must be at least 2000"
    );
    Ok(Some(Duration::from_micros(micros)))
}

fn number(name: &str, value: &OsStr) -> anyhow::Result<u64> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.with_context(|| format!("{name} is {}: must be a whole number", value.display()))
}

/// A status as one line of a message.
fn status_line(status: &str) -> String {
    let mut line = "STATUS=".to_owned();
    // A line break would begin another variable.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    line.extend(status.chars().map(plain).take(MAX_STATUS));
    line
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::*;

    /// Far above the time that a message takes on a busy machine.
    const SOON: Duration = Duration::from_secs(20);

    fn manager(variables: &[(&str, &str)]) -> Manager {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Manager::of(variable, 7)
    }

    fn receive(socket: &unix::UnixDatagram) -> std::io::Result<String> {
        let mut bytes = [0; 1024];
        let count = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    #[tokio::test]
    async fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let folder = env::temp_dir();
        let path = folder.join(format!("notify-{}", process::id()));
        let name = format!("bootstrap-notify-{}", process::id());
        let at_path = unix::UnixDatagram::bind(&path).unwrap();
        let address = unix::SocketAddr::from_abstract_name(&name).unwrap();
        let abstracted = unix::UnixDatagram::bind_addr(&address).unwrap();
        for (socket, address) in [
            (at_path, path.display().to_string()),
            (abstracted, format!("@{name}")),
        ] {
            socket.set_read_timeout(Some(SOON)).unwrap();
            let manager = manager(&[(SOCKET, &address)]);
            manager.ready("Serving\nREADY=0").await;
            assert_eq!(
                receive(&socket).unwrap(),
                "READY=1\nSTATUS=Serving READY=0",
                "a line break does not begin a variable"
            );
            manager.stopping(Duration::from_millis(1_500)).await;
            assert_eq!(
                receive(&socket).unwrap(),
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS=Stopping"
            );
        }
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn without_a_usable_socket_nothing_is_sent_and_nothing_fails() {
        for variables in [
            &[][..],
            &[(SOCKET, "")],
            &[(SOCKET, "relative/path")],
            &[(SOCKET, "@")],
            &[(SOCKET, "vsock:2:1234")],
            &[(SOCKET, "/no/such/socket"), (WATCHDOG, "2000000")],
        ] {
            let manager = manager(variables);
            assert!(manager.socket.is_none() && manager.watchdog.is_none());
            manager.ready("Serving").await;
            manager.keep_alive().await;
        }
        let error = connect(OsStr::new("relative/path")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "NOTIFY_SOCKET is relative/path: must be an absolute path, or @ and an abstract name"
        );
    }

    #[test]
    fn the_watchdog_is_that_of_this_process_and_a_number() {
        let watchdog = |micros: &str, meant_for: Option<&str>| {
            let seen = watchdog(Some(micros.as_ref()), meant_for.map(OsStr::new), 7);
            seen.map_err(|error| error.to_string())
        };
        let two = Some(Duration::from_secs(2));
        assert_eq!(watchdog("2000000", None), Ok(two));
        assert_eq!(watchdog("2000000", Some("7")), Ok(two));
        assert_eq!(watchdog("2000000", Some("8")), Ok(None));
        for (micros, meant_for, reason) in [
            (
                "soon",
                None,
                "WATCHDOG_USEC is soon: must be a whole number",
            ),
            ("-1", None, "WATCHDOG_USEC is -1: must be a whole number"),
            ("0", None, "WATCHDOG_USEC is 0: must be at least 2000"),
            (
                "9000",
                Some("x"),
                "WATCHDOG_PID is x: must be a whole number",
            ),
        ] {
            assert_eq!(watchdog(micros, meant_for), Err(reason.to_owned()));
        }
    }

    #[test]
    fn a_runtime_whose_workers_are_blocked_is_silent() {
        let name = format!("bootstrap-watchdog-{}", process::id());
        let address = unix::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = unix::UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let socket = format!("@{name}");
            let manager = manager(&[(SOCKET, &socket), (WATCHDOG, "40000")]);
            manager.keep_alive().await;
        });
        for _ in 0..3 {
            assert_eq!(receive(&socket).unwrap(), "WATCHDOG=1");
        }
        let (blocked, ended) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (begun, end) = (Arc::clone(&blocked), Arc::clone(&ended));
        runtime.spawn(async move {
            begun.store(true, Ordering::SeqCst);
            while !end.load(Ordering::SeqCst) {
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        while !blocked.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        // The messages sent before; then ten intervals of silence.
        socket.set_nonblocking(true).unwrap();
        while receive(&socket).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        let silence = Duration::from_millis(400);
        socket.set_read_timeout(Some(silence)).unwrap();
        assert!(receive(&socket).is_err(), "a message from a hung runtime");
        ended.store(true, Ordering::SeqCst);
        socket.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(receive(&socket).unwrap(), "WATCHDOG=1");
        runtime.shutdown_background();
    }
}
