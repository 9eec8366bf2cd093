//! A certificate authority of a test, with certificates in files.

use std::fs;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;

/// A certificate authority. Its folder has `ca.pem`, and `NAME.pem` and `NAME.key` for each certificate
/// that it issued.
#[derive(Debug)]
pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl TestCa {
    /// A new authority.
    ///
    /// # Errors
    ///
    /// When its folder cannot be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Authorities of one name are told apart by a failed signature only.
        let name = format!("test CA {}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
            folder: TempDir::new()?,
        };
        ca.write("ca.pem", &ca.pem())?;
        Ok(ca)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The path of a file in the folder.
    ///
    /// # Panics
    ///
    /// If the folder's name is not UTF-8.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a temporary folder is UTF-8")]
    pub fn path(&self, file: &str) -> String {
        let path = self.folder.path().join(file);
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Issues a certificate of `localhost`, 127.0.0.1 and `NAME.test` into `NAME.pem` and `NAME.key`, in
    /// place of an earlier one.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn issue(&self, name: &str) -> Result<()> {
        self.issue_into(self, name)
    }

    /// Issues a certificate into the folder of another authority.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn issue_into(&self, other: &Self, name: &str) -> Result<()> {
        other.put(name, &params(name)?, &self.issuer)
    }

    /// Issues a certificate that has expired.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn issue_expired(&self, name: &str) -> Result<()> {
        let mut params = params(name)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.put(name, &params, &self.issuer)
    }

    fn put(
        &self,
        name: &str,
        params: &CertificateParams,
        issuer: &CertifiedIssuer<'static, KeyPair>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        self.write(&format!("{name}.pem"), &certificate.pem())
    }

    /// Writes a file of the folder as a whole, as tools that renew certificates do.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.path().join(file);
        let new = path.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn params(name: &str) -> Result<CertificateParams> {
    let names = ["localhost", "127.0.0.1", &format!("{name}.test")].map(str::to_owned);
    Ok(CertificateParams::new(names)?)
}
