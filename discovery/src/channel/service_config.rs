//! The service config of a running channel: its replacement, and the policy in effect as JSON.

use std::sync::PoisonError;

use http::HeaderName;
use tokio::time::Instant;
use tracing::warn;

use super::{Channel, report::Report, settings::Kept};
use crate::{config::ServiceConfig, error::InvalidSetting, event::ChannelEventKind};

/// The service config in use.
pub(crate) struct InUse {
    pub(super) config: ServiceConfig,
    pub(super) kept: Kept,
}

impl Channel {
    /// Replaces the [service config](crate::config), without losing a call or a connection.
    ///
    /// Calls that begin afterwards have the new policy; calls under way keep theirs. Connections, their
    /// statistics, the retry budget and the state of the balancer stay, as far as their own settings do
    /// not change. An empty config restores the builder's settings. The settings that are read when the
    /// channel is built stay as they are, and a warning is logged if they differ. A config that differs
    /// from the old one is an [event](Self::events).
    ///
    /// # Errors
    ///
    /// If a setting of the config cannot work together with one of the builder. The old config stays.
    pub fn set_service_config(&self, config: ServiceConfig) -> Result<(), InvalidSetting> {
        let shared = &self.shared;
        // One replacement at a time, so that all parts are those of the same config.
        let mut in_use = shared.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let effective = shared.settings.effective_with(&config, &in_use.kept, now)?;
        if config.own.fixed != in_use.config.own.fixed {
            warn!(
                service = %shared.service,
                "passingOnly, datacenters and connections of the service config are read when the \
                 channel is built: they change at the next start"
            );
        }
        shared.policies.store(effective.policies);
        shared.endpointer.set_policy(effective.set);
        let is_same = in_use.config == config;
        *in_use = InUse {
            config,
            kept: effective.kept,
        };
        if !is_same {
            shared.endpointer.emit(|| ChannelEventKind::ConfigChanged);
        }
        Ok(())
    }

    /// The policy in effect, as a service config with a value for every setting that has one. A channel
    /// with this config has the same policy.
    #[must_use]
    pub fn effective_config(&self) -> String {
        let shared = &self.shared;
        let in_use = shared.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            policies: &shared.policies.load(),
            set: &shared.endpointer.policy(),
            fixed: &shared.fixed,
            limit: in_use.kept.limit_policy(),
            routes: &in_use.config.own.routes,
            dialect: shared.settings.dialect,
            subset_id: in_use
                .config
                .own
                .subset_id
                .as_deref()
                .or(shared.settings.subset_id.as_deref()),
        }
        .to_json()
    }

    /// The header whose value is the key of calls without a [`HashKey`](crate::HashKey):
    /// `requestHashHeader` of the service config in use. A service that passes its callers' keys on reads
    /// the same header of its own requests.
    #[must_use]
    pub fn request_hash_header(&self) -> Option<HeaderName> {
        self.shared.policies.load().hash_header.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::hash;

    #[tokio::test]
    async fn the_most_exact_entry_holds_as_a_whole() {
        let json = r#"{"methodConfig": [
            {"name": [{}], "timeout": "1s", "waitForReady": true},
            {"name": [{"service": "a.S"}], "timeout": "2s"},
            {"name": [{"service": "a.S", "method": "M"}, {"service": "a.T"}], "timeout": "3s"},
            {"name": [{"service": "a.S", "method": "N"}], "waitForReady": true}
        ]}"#;
        let channel = Channel::builder("static://127.0.0.1:1", "svc")
            .retry_timeout(Duration::from_millis(2_500))
            .idempotent(["/a.S/M", "/a.S/O", "/b.S/M"])
            .service_config(ServiceConfig::parse(json).unwrap())
            .build()
            .unwrap();
        let policies = channel.shared.policies.load();
        for (path, millis, waits, idempotent) in [
            ("/a.S/M", 2_500, false, true),
            ("/a.S/N", 2_500, true, false),
            ("/a.S/O", 2_000, false, true),
            ("/a.S/P", 2_000, false, false),
            ("/a.T/M", 2_500, false, false),
            ("/b.S/M", 1_000, true, true),
            ("/b.S/N", 1_000, true, false),
            ("/", 1_000, true, false),
            ("", 1_000, true, false),
        ] {
            let policy = policies.of(&Method::POST, path, hash::bytes(path.as_bytes()));
            let timeout = policy.retry.timeout.unwrap().as_millis();
            let seen = (
                timeout,
                policy.wait_for_ready,
                policy.idempotent == Some(true),
            );
            assert_eq!(seen, (millis, waits, idempotent), "{path}");
        }
    }
}
