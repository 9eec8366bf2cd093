//! The folder of a registry: its default place, its creation, and the names in it.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use rustix::process::geteuid;

/// The characters of a name that are percent-encoded. A leading dot is encoded by itself.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

/// Others than the owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The folder that one registry uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Folder {
    path: PathBuf,
    /// True if its owner and mode are checked, as for the per-user default.
    private: bool,
}

impl Folder {
    /// A folder of the user's choice.
    pub(super) fn given(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            private: false,
        }
    }

    /// A folder that only this user may write.
    pub(super) fn private(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            private: true,
        }
    }

    /// `$XDG_RUNTIME_DIR/discovery`, or else `discovery-UID` in the temporary folder.
    pub(super) fn of_user() -> Self {
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let path = match runtime.filter(|path| path.is_absolute()) {
            Some(runtime) => runtime.join("discovery"),
            None => env::temp_dir().join(format!("discovery-{}", geteuid().as_raw())),
        };
        Self::private(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of one service. It need not exist.
    pub(super) fn service(&self, service: &str) -> PathBuf {
        self.path.join(encode(service))
    }

    /// The names of the services whose folder has a file, sorted. A watch creates a folder, too. None if the
    /// folder itself does not exist.
    pub(super) fn services(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let decoded = percent_decode(name.as_encoded_bytes()).decode_utf8();
            if let Ok(name) = decoded
                && entry.file_type()?.is_dir()
                && fs::read_dir(entry.path())?.next().is_some()
            {
                names.push(name.into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Creates the folder of one service where it is missing.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` if other users can write to a private folder.
    pub(super) fn create(&self, service: &str) -> io::Result<PathBuf> {
        let path = self.service(service);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(if self.private { 0o700 } else { 0o777 })
            .create(&path)?;
        if self.private {
            self.check_owner()?;
        }
        Ok(path)
    }

    /// A private folder has a name that any user can take.
    fn check_owner(&self) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&self.path)?;
        let reason = if !metadata.is_dir() {
            "is not a folder"
        } else if metadata.uid() != geteuid().as_raw() {
            "belongs to another user"
        } else if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            "can be written by other users"
        } else {
            return Ok(());
        };
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} {reason}; remove it, or name a folder: embedded:///PATH",
                self.path.display()
            ),
        ))
    }
}

/// The name of a file or folder for a service or an ID.
pub(super) fn encode(name: &str) -> String {
    let encoded = utf8_percent_encode(name, ENCODED).to_string();
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_name_cannot_leave_the_folder() {
        for (name, expected) in [
            ("trim_service-127.0.0.1-8975", "trim_service-127.0.0.1-8975"),
            ("..", "%2E."),
            ("a/b", "a%2Fb"),
            ("a:1 \u{e9}", "a%3A1%20%C3%A9"),
        ] {
            assert_eq!(encode(name), expected);
        }
    }

    #[test]
    fn services_are_listed_by_their_own_names() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::given(temp.path().join("d"));
        assert!(folder.services().unwrap().is_empty());
        for name in ["..", "trim", "a/b"] {
            fs::write(folder.create(name).unwrap().join("entry"), "").unwrap();
        }
        folder.create("watched").unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(folder.services().unwrap(), ["..", "a/b", "trim"]);
    }

    #[test]
    fn a_default_folder_that_others_can_write_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::private(temp.path().join("d"));
        folder.create("trim").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = folder.create("trim").unwrap_err().to_string();
        assert!(error.contains("can be written by other users"), "{error}");
        // A folder of the user's choice may be shared.
        Folder::given(folder.path()).create("trim").unwrap();
    }
}
