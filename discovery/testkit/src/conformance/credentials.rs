//! A server that requires credentials.

use anyhow::{Context as _, Result, ensure};
use discovery::registry::{Registration, RegistryError};

use super::{
    Case, Credentials, Finding, Subject,
    entries::{Entries, instance},
    watched::Watched,
};

/// The service of these cases, for servers whose rights are those of one service.
pub const SECURED_SERVICE: &str = "conformance-secured";

/// Registration and watch work with the right credentials.
pub(super) async fn right<S: Subject>(_: &mut S) -> Result<Finding> {
    let (mut subject, Credentials { right, .. }) = secured::<S>().await?;
    let bound = S::promises().bound(Case::RightCredentials);
    let service = SECURED_SERVICE;
    let mut entries = Entries::new(service, &right);
    let mut watched = Watched::start(&*right, service)?;
    entries.add(&mut subject, &[1]).await?;
    let took = watched.until_usable(1, bound).await?;
    entries.clear(&mut subject).await?;
    watched.until_gone(1, bound).await?;
    Ok(Finding::took(took))
}

/// With wrong credentials, and with none, watch and registration report it, and show no secret.
pub(super) async fn wrong<S: Subject>(_: &mut S) -> Result<Finding> {
    let (subject, credentials) = secured::<S>().await?;
    let bound = S::promises().bound(Case::WrongCredentials);
    let service = SECURED_SERVICE;
    let mut kinds = Vec::new();
    for (name, registry) in &credentials.wrong {
        let mut errors = Vec::new();
        let mut watched = Watched::start(&**registry, service)?;
        let what = format!("the error with {name}");
        let refused = watched.until(&what, bound, |set| set.error.is_some());
        let (set, _) = refused.await?;
        ensure!(set.confirmed.is_none(), "{name}: confirmed: {set:?}");
        errors.extend(set.error.map(|error| everything(&error)));
        if S::REGISTERS {
            let registration = Registration::new(instance(service, 1)?, subject.check());
            let client = registry.registration(registration)?;
            let answer = client.register().await;
            let error = answer
                .err()
                .with_context(|| format!("{name}: registered"))?;
            ensure!(
                matches!(error, RegistryError::Denied { .. }),
                "{name}: not a denial: {error:?}"
            );
            errors.push(everything(&error));
        }
        for error in &errors {
            let shown = credentials
                .secrets
                .iter()
                .find(|secret| error.contains(*secret));
            ensure!(shown.is_none(), "{name}: the error shows a secret: {error}");
        }
        kinds.push(*name);
    }
    ensure!(!kinds.is_empty(), "no wrong credentials were tried");
    Ok(Finding::holds().note(kinds.join(", ")))
}

async fn secured<S: Subject>() -> Result<(S, Credentials)> {
    let started = S::start_secured().await?;
    started.context("the server is no longer there")
}

/// The error as users and developers see it.
fn everything(error: &RegistryError) -> String {
    format!("{error} {error:?}")
}
