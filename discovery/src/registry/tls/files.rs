//! Certificates and keys from PEM files.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use crate::error::chain;

/// The files of a folder; at least one.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |e: std::io::Error| format!("CA folder {}: {e}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(format!("CA folder {} contains no file", folder.display()));
    }
    Ok(files)
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |e| unreadable("certificate file", file, &e);
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(format!("{} contains no certificate", file.display()));
    }
    Ok(certificates)
}

/// The private key of a PEM file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|e| unreadable("client key", file, &e))
}

fn unreadable(what: &str, file: &Path, error: &pem::Error) -> String {
    format!("{what} {}: {}", file.display(), chain(error))
}
