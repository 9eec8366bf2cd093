//! Starts a channel with the settings of a builder: checks them, and puts the parts together.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

#[cfg(feature = "service-config")]
use super::super::service_config::InUse;
use super::{
    super::{Channel, fixed_settings::FixedSettings, settings::Settings, shared::Shared},
    BuildError, ChannelBuilder, Source,
};
#[cfg(feature = "service-config")]
use crate::config::Dialect;
#[cfg(feature = "descriptors")]
use crate::retry::methods::Methods;
use crate::{
    connection::{Factory, origin::with_origin},
    endpoint::Connector,
    endpointer::{Config, Endpointer},
    error::InvalidSetting,
    metrics::{Endpoints, ServiceMetrics, Target},
    registry,
    retry::{learnt::LearntTimes, usual::UsualLatency},
};

impl<R> ChannelBuilder<R> {
    /// Starts the channel of a protocol with these properties.
    pub(crate) fn start(self, protocol: &ProtocolSettings<'_>) -> Result<Channel, BuildError> {
        let service = self.query.service.clone();
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime(service));
        }
        #[cfg(feature = "service-config")]
        let this = self
            .with_fixed_config()
            .map_err(|setting| BuildError::Setting {
                service: service.clone(),
                setting,
            })?;
        #[cfg(not(feature = "service-config"))]
        let this = self;
        this.start_with(service, protocol)
    }

    /// Starts the channel to this service with the settings as they are.
    fn start_with(
        self,
        service: String,
        protocol: &ProtocolSettings<'_>,
    ) -> Result<Channel, BuildError> {
        let refuse = |setting| BuildError::Setting {
            service: service.clone(),
            setting,
        };
        self.check().map_err(refuse)?;
        let (max_attempts, fixed) = (self.overrides.max_attempts, self.fixed());
        #[allow(unused_mut, reason = "descriptors add to it")]
        let mut retry = self.overrides.apply(self.retry);
        #[allow(unused_mut, reason = "descriptors add to it")]
        let mut streaming = HashSet::new();
        #[cfg(feature = "descriptors")]
        if let Some(descriptors) = &self.descriptors {
            let methods = Methods::read(descriptors).map_err(refuse)?;
            methods.check(&retry.idempotent).map_err(refuse)?;
            retry.idempotent.extend(methods.idempotent().cloned());
            streaming.extend(methods.streaming().cloned());
        }
        let some_idempotent = protocol.some_idempotent || !retry.idempotent.is_empty();
        retry.validate_with(some_idempotent).map_err(refuse)?;
        let user_agent = user_agent(self.user_agent.as_deref()).map_err(refuse)?;
        let origin = self.origin.as_ref().map(ToString::to_string);
        let factory = (protocol.factory)(self.factory.into_shared());
        let factory = with_origin(factory, self.origin).map_err(|expected| {
            let value = origin.unwrap_or_default();
            refuse(InvalidSetting::new(
                "origin",
                format!("{value:?}"),
                expected,
            ))
        })?;
        let registry = match self.source {
            Source::Url(url) => registry::connect(&url)?,
            Source::Registry(registry) => registry,
        };
        let instancer = registry.instancer(&self.query)?;
        let target = Target::of(registry.name(), &service);
        let connector = Arc::new(Connector::new(
            factory,
            self.connect_parallel,
            self.connect_timeout,
            self.connect_backoff,
            self.eager,
            target.metrics(),
        ));
        let metrics = ServiceMetrics::of(&service);
        let settings = Settings {
            retry,
            max_attempts,
            streaming,
            ejection: self.ejection,
            balancer: self.balancer,
            protection: self.protection,
            subset: self.subset,
            subset_id: self.subset_id,
            process_id: process_id(),
            locality: self.locality,
            warm_up: self.warm_up,
            #[cfg(feature = "orca")]
            load_reports: self.load_reports,
            health: self.health,
            concurrency: self.concurrency,
            datacenters: instancer.datacenters(),
            #[cfg(feature = "service-config")]
            dialect: protocol.dialect,
        };
        let now = Instant::now();
        let effective = settings.effective(now);
        #[cfg(feature = "service-config")]
        let effective = settings
            .effective_with(&self.service_config, &effective.kept, now)
            .map_err(refuse)?;
        let config = Config {
            policy: effective.set,
            passing_only: fixed.passing_only,
            connector,
            metrics: Endpoints::new(Arc::clone(&metrics)),
        };
        let shared = Arc::new(Shared {
            endpointer: Endpointer::start(instancer, config),
            policies: ArcSwap::new(effective.policies),
            settings,
            #[cfg(feature = "service-config")]
            in_use: std::sync::Mutex::new(InUse {
                config: self.service_config,
                kept: effective.kept,
            }),
            freed: Notify::new(),
            times: LearntTimes::new(now),
            usual: UsualLatency::default(),
            counters: metrics,
            target,
            propagate: self.propagate,
            fixed,
            user_agent,
            registry: registry.name().to_owned(),
            service,
            min_capacity: protocol.min_capacity,
        });
        Ok(Channel { shared })
    }

    /// The settings that no service config replaces after the start.
    fn fixed(&self) -> FixedSettings {
        FixedSettings {
            tags: self.query.tags.clone(),
            passing_only: self.query.passing_only,
            datacenter: self.query.datacenter.clone(),
            eager: self.eager,
            connect_timeout: self.connect_timeout,
            connect_backoff: self.connect_backoff,
            connect_parallel: self.connect_parallel,
            probes: self.factory.probes(),
        }
    }

    /// Checks the settings that are not part of a policy, and the policies.
    fn check(&self) -> Result<(), InvalidSetting> {
        let fail =
            |setting, value: String, expected| Err(InvalidSetting::new(setting, value, expected));
        let service = &self.query.service;
        if service.trim().is_empty() {
            return fail(
                "service",
                format!("{service:?}"),
                "expected the service's name in the registry",
            );
        }
        if self.connect_timeout.is_zero() {
            return fail(
                "connect_timeout",
                "0s".to_owned(),
                "must be greater than zero",
            );
        }
        self.connect_backoff
            .validate()
            .map_err(|error| InvalidSetting {
                setting: "connect_backoff",
                ..error
            })?;
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.connect_parallel) {
            let expected = "at least one connection must be allowed at a time";
            return fail(
                "connect_parallel",
                self.connect_parallel.to_string(),
                expected,
            );
        }
        if let Some(locality) = &self.locality {
            locality.validate()?;
        }
        self.ejection.validate()?;
        self.protection.validate()?;
        self.concurrency.validate()?;
        self.warm_up.validate()?;
        #[cfg(feature = "orca")]
        self.load_reports.validate()?;
        if self.subset == Some(0) {
            return fail(
                "subset",
                "0".to_owned(),
                "a client needs at least one instance",
            );
        }
        if let (Some(id), None) = (&self.subset_id, self.subset) {
            return fail(
                "subset_id",
                format!("{id:?}"),
                "has no effect without subset",
            );
        }
        Ok(())
    }
}

const DEFAULT_USER_AGENT: &str = concat!("discovery/", env!("CARGO_PKG_VERSION"));

/// The value of `user-agent`.
fn user_agent(given: Option<&str>) -> Result<HeaderValue, InvalidSetting> {
    let Some(given) = given else {
        // The copies that each call makes of a static value count no references.
        return Ok(HeaderValue::from_static(DEFAULT_USER_AGENT));
    };
    HeaderValue::try_from(given).map_err(|_| {
        let expected = "expected a valid header value";
        InvalidSetting::new("user_agent", format!("{given:?}"), expected)
    })
}

/// The properties of a protocol that a channel depends on.
pub(crate) struct ProtocolSettings<'a> {
    #[cfg(feature = "service-config")]
    pub(crate) dialect: Dialect,
    /// Adds the protocol's own rules to the factory.
    pub(crate) factory: &'a dyn Fn(Arc<dyn Factory>) -> Arc<dyn Factory>,
    /// True if a request can say itself that it may be executed twice.
    pub(crate) some_idempotent: bool,
    /// Calls that any connection takes at a time: its capacity is not read below this number.
    pub(crate) min_capacity: u32,
}

/// The name of this process's subset, if none was given.
fn process_id() -> [u8; 8] {
    // Not from the thread's generator, whose seed a simulation sets.
    static ID: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    ID.to_le_bytes()
}
