//! Reads the instances of one service from its folder.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;
use tracing::debug;

use super::{entry::Entry, static_file};
use crate::registry::Listing;

/// The largest entry that is read.
const MAX_ENTRY: u64 = 64 << 10;
/// The largest static list that is read.
const MAX_STATIC: u64 = 8 << 20;

/// Reads all files. An entry of a dead process is removed.
pub(super) fn list(folder: &Path, service: &str) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let path = folder.join(&name);
        match kind(&name) {
            Kind::Other => {}
            Kind::Static => {
                let read = open(&path)
                    .and_then(|file| read(&file, MAX_STATIC))
                    .map_err(|e| e.to_string())
                    .and_then(|json| static_file::read(&json, service, &mut listing));
                if let Err(reason) = read {
                    listing.reject(format!("{}: {reason}", path.display()));
                }
            }
            Kind::Entry => add_entry(&path, service, &mut listing),
        }
    }
    Ok(listing)
}

enum Kind {
    Entry,
    Static,
    /// A file that is being written, or not ours.
    Other,
}

fn kind(name: &OsStr) -> Kind {
    let name = name.to_string_lossy();
    if name.starts_with('.') || !name.ends_with(".json") {
        Kind::Other
    } else if name.ends_with(static_file::SUFFIX) {
        Kind::Static
    } else {
        Kind::Entry
    }
}

fn add_entry(path: &Path, service: &str, listing: &mut Listing) {
    let read = open(path).and_then(|file| match file.try_lock_shared() {
        Ok(()) => {
            remove_dead(path, &file);
            Ok(None)
        }
        Err(TryLockError::WouldBlock) => read(&file, MAX_ENTRY).map(Some),
        Err(TryLockError::Error(error)) => Err(error),
    });
    match read {
        Ok(Some(json)) => match Entry::read(&json, service) {
            Ok(instance) => listing.push(instance),
            Err(reason) => listing.reject(format!("{}: {reason}", path.display())),
        },
        Ok(None) => {}
        // Removed since the folder was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => listing.reject(format!("{}: {error}", path.display())),
    }
}

/// Removes the file, unless another process has just put its own in its place. Should that happen
/// between the check and the removal, the other process registers again.
fn remove_dead(path: &Path, file: &File) {
    if is_at(path, file).unwrap_or(false) {
        debug!(file = %path.display(), "removing the entry of a dead process");
        if let Err(error) = fs::remove_file(path) {
            debug!(file = %path.display(), "not removed: {error}");
        }
    }
}

/// True if `path` names this file.
pub(super) fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let (there, here) = match fs::symlink_metadata(path) {
        Ok(there) => (there, file.metadata()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok((there.dev(), there.ino()) == (here.dev(), here.ino()))
}

fn open(path: &Path) -> io::Result<File> {
    // Without it, a named pipe would block the thread.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

fn read(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    file.take(limit + 1).read_to_end(&mut json)?;
    if json.len() as u64 > limit {
        return Err(io::Error::other(format!("over {limit} bytes")));
    }
    Ok(json)
}
