//! How one kind of server is started.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// One kind of server: how it is started, and how it shows that it is up.
pub trait Launch: Send + Sync + 'static {
    /// The server's name in `scripts/registry.sh`.
    const NAME: &'static str;
    /// The environment variable that holds its binary or its folder.
    const VARIABLE: &'static str;

    /// Writes its configuration into the data folder, and returns how to start it.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be written.
    fn command(&self, place: &Place) -> Result<CommandLine>;

    /// Its URL for `registry::connect`, without credentials.
    fn url(&self, place: &Place) -> String;

    /// True if it answers.
    fn answers(&self, place: &Place) -> impl Future<Output = bool> + Send;
}

/// The place of a server: its folder and ports.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its binary or its folder.
    pub home: PathBuf,
    /// Its data.
    pub data: PathBuf,
    /// Its ports on 127.0.0.1. The first is that for clients.
    pub ports: [u16; 2],
}

impl Place {
    /// `127.0.0.1:PORT` for clients.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }
}

/// A program with its arguments and additional environment variables.
#[derive(Clone, Debug)]
pub struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, String)>,
}

impl CommandLine {
    /// A program without arguments.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Java with a class path, and settings for a fast start in little memory.
    #[must_use]
    pub fn java(class_path: &[&Path], main_class: &str, megabytes: u32) -> Self {
        let class_path: Vec<_> = class_path
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Self::new("java")
            .arg(format!("-Xmx{megabytes}m"))
            .arg("-XX:TieredStopAtLevel=1")
            .arg("-cp")
            .arg(class_path.join(":"))
            .arg(main_class)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}
