//! PEM files of certificates and keys.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Largest file that is read. A chain of certificates has a few kilobytes.
const MAX_SIZE: u64 = 1 << 20;

/// The cryptography of all TLS: the process's default, or ring.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let installed = CryptoProvider::get_default().cloned();
    installed.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// The text of a file.
pub(super) fn read(what: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read the {what} {}", path.display());
    let size = fs::metadata(path).with_context(context)?.len();
    ensure!(
        size <= MAX_SIZE,
        "the {what} {} has {size} bytes; at most {MAX_SIZE} are read",
        path.display()
    );
    fs::read(path).with_context(context)
}

/// The certificates of a text; at least one.
pub(super) fn certificates(
    what: &str,
    path: &Path,
    pem: &[u8],
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .with_context(|| format!("the {what} {} is not valid PEM", path.display()))?;
    ensure!(
        !certificates.is_empty(),
        "the {what} {} has no certificate (BEGIN CERTIFICATE)",
        path.display()
    );
    Ok(certificates)
}

/// The private key of a text: PKCS#8, PKCS#1 or SEC1.
pub(super) fn private_key(
    what: &str,
    path: &Path,
    pem: &[u8],
) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem)
        .with_context(|| format!("the {what} {} has no usable private key", path.display()))
}

/// The certificate authorities of a text.
pub(super) fn authorities(what: &str, path: &Path, pem: &[u8]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path, pem)? {
        roots.add(certificate).with_context(|| {
            format!("the {what} {} has an unusable certificate", path.display())
        })?;
    }
    Ok(roots)
}
