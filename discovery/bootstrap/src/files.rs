//! Files that are read again when they change.

use std::{os::unix::fs::MetadataExt as _, path::Path};

/// The facts of a file that differ after a write or a replacement: device, inode, size and time of the
/// change. Links are followed, so that the replacement of a linked folder is seen too, which is how
/// Kubernetes replaces mounted secrets.
///
/// ```
/// use bootstrap::files::FileVersion;
///
/// let path = std::env::temp_dir().join(format!("version-{}", std::process::id()));
/// let none = FileVersion::of(&path);
/// std::fs::write(&path, "text")?;
/// let first = FileVersion::of(&path);
/// assert!(none.is_none() && first.is_some());
/// assert_eq!(FileVersion::of(&path), first);
/// std::fs::write(&path, "other text")?;
/// assert_ne!(FileVersion::of(&path), first);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FileVersion {
    /// The version of a file; `None` if it cannot be read.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
