//! TLS in a process that has installed a crypto provider. Its own file, as that is done once for a
//! process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicUsize, Ordering};

use discovery::{
    connection::{Http2, Tls},
    rustls::crypto::{self, CryptoProvider, KeyProvider},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{pki_types::PrivateKeyDer, sign::SigningKey};

/// The key provider of ring, which counts the keys that it loads.
#[derive(Debug)]
struct Counting {
    keys: AtomicUsize,
}

static COUNTING: Counting = Counting {
    keys: AtomicUsize::new(0),
};

impl KeyProvider for Counting {
    fn load_private_key(
        &self,
        key: PrivateKeyDer<'static>,
    ) -> Result<std::sync::Arc<dyn SigningKey>, rustls::Error> {
        self.keys.fetch_add(1, Ordering::SeqCst);
        crypto::ring::default_provider()
            .key_provider
            .load_private_key(key)
    }
}

#[test]
fn the_installed_provider_is_preferred_to_the_compiled_in_one() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let tls = Tls::new()
        .with_ca_pem(certificate.pem())
        .with_identity_pem(certificate.pem(), key.serialize_pem());

    // Without an installed provider, even if the build has two.
    Http2::new().with_tls(tls.clone()).unwrap();
    assert_eq!(COUNTING.keys.load(Ordering::SeqCst), 0);
    // The choice of the process's default stays the application's.
    assert!(CryptoProvider::get_default().is_none());

    let provider = CryptoProvider {
        key_provider: &COUNTING,
        ..crypto::ring::default_provider()
    };
    provider.install_default().unwrap();
    Http2::new().with_tls(tls).unwrap();
    assert_eq!(COUNTING.keys.load(Ordering::SeqCst), 1);
}
