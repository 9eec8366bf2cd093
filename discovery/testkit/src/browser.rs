//! A real browser: Debian's chromium, driven through its chromedriver by the `WebDriver` protocol.

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Process, http_client_builder, registries::skip};

/// Time until chromedriver listens, and until chromium has started.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time limit of one command.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// The key that `WebDriver` calls Tab.
const TAB: &str = "\u{e004}";

/// A running browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    client: reqwest::Client,
    session: String,
    /// Its process, which would outlive a chromedriver that is killed. `None` once it has ended.
    process: Option<Pid>,
    // Fields are dropped in this order: the processes, then their folder.
    _driver: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser whose user reads this language. `None` if there is none on this machine, which is
    /// said.
    ///
    /// # Errors
    ///
    /// If it does not start, and in CI if there is none.
    pub async fn start(language: &str) -> Result<Option<Self>> {
        let (Some(chromium), Some(driver)) = (on_path("chromium"), on_path("chromedriver")) else {
            skip(
                "a test in a browser",
                "no chromium and chromedriver on PATH (Debian: chromium, chromium-driver)",
            )?;
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        let driver = Process::spawn(&driver, ["--port=0"])?;
        let line = driver
            .stdout_line("successfully on port", START_LIMIT)
            .await?;
        let port = line.trim_end_matches('.').rsplit(' ').next();
        let base = format!("http://127.0.0.1:{}/session", port.unwrap_or_default());
        let client = http_client_builder()?.timeout(START_LIMIT).build()?;
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1000",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let options = json!({
            "binary": chromium,
            "args": arguments,
            "prefs": { "intl.accept_languages": language },
        });
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let created = send(client.post(&base).json(&capabilities)).await?;
        let id = created["sessionId"].as_str().context("no session ID")?;
        let process = created["capabilities"]["goog:processID"].as_i64();
        let process = process.context("no process ID")?;
        Ok(Some(Self {
            session: format!("{base}/{id}"),
            client,
            process: Some(Pid::from_raw(process.try_into()?)),
            _driver: driver,
            _profile: profile,
        }))
    }

    /// Opens a page.
    ///
    /// # Errors
    ///
    /// If it cannot be loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).await.map(drop)
    }

    /// Runs the body of a function in the page, and returns its result.
    ///
    /// # Errors
    ///
    /// If it throws.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
            .await
    }

    /// Presses Tab, as a user of the keyboard does.
    ///
    /// # Errors
    ///
    /// If the browser has ended.
    pub async fn press_tab(&self) -> Result<()> {
        self.press(TAB).await
    }

    /// Presses a key.
    ///
    /// # Errors
    ///
    /// If the browser has ended.
    pub async fn press(&self, key: &str) -> Result<()> {
        let actions = json!([
            { "type": "keyDown", "value": key },
            { "type": "keyUp", "value": key },
        ]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        let body = json!({ "actions": [keyboard] });
        self.post("actions", &body).await.map(drop)
    }

    /// Gives the page the size of a phone's or another screen, in CSS pixels.
    ///
    /// # Errors
    ///
    /// If the browser has ended.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true,
        });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen });
        self.post("goog/cdp/execute", &command).await.map(drop)
    }

    /// The messages of the console since the last call: errors of scripts, and violations of the
    /// Content-Security-Policy.
    ///
    /// # Errors
    ///
    /// If the browser has ended.
    pub async fn console(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "browser" })).await?;
        let entries = entries.as_array().context("no list of messages")?;
        let text = |entry: &Value| format!("{}: {}", entry["level"], entry["message"]);
        Ok(entries.iter().map(text).collect())
    }

    /// Ends the browser in order.
    ///
    /// # Errors
    ///
    /// If it has ended before.
    pub async fn close(mut self) -> Result<()> {
        send(self.client.delete(&self.session)).await?;
        self.process = None;
        Ok(())
    }

    async fn post(&self, command: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/{command}", self.session);
        let request = self.client.post(url).timeout(COMMAND_LIMIT).json(body);
        send(request)
            .await
            .with_context(|| format!("{command} {body}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            // It may have ended by itself.
            let _ended = kill(process, Signal::SIGKILL);
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request
        .send()
        .await
        .context("chromedriver does not answer")?;
    let status = response.status();
    let mut answer: Value = response.json().await.context("not JSON")?;
    if !status.is_success() {
        bail!("the browser refuses: {}", answer["value"]["message"]);
    }
    ensure!(answer.is_object(), "not an object: {answer}");
    Ok(answer["value"].take())
}

/// The program of this name on `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|program| fs::metadata(program).is_ok_and(|found| found.is_file()))
}
