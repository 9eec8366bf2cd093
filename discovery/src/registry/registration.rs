//! An instance to register, and the health check of it.

use std::{sync::Arc, time::Duration};

use crate::instance::Instance;

/// An instance to register, and how the registry checks its health.
///
/// ```
/// use std::time::Duration;
///
/// use discovery::{
///     Instance,
///     registry::{Check, Registration},
/// };
///
/// # fn main() -> Result<(), discovery::InvalidInstance> {
/// let instance = Instance::named("trim_service", [127, 0, 0, 1].into(), 8975)?;
/// let check = Check::grpc().with_service("pb.Trim");
/// let registration = Registration::new(instance, check)
///     .with_deregister_critical_after(Duration::from_secs(60));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The instance.
    pub instance: Instance,
    /// How the registry checks the instance's health.
    pub check: Check,
    /// The time that a check may be critical before the registry drops the instance. `None`:
    /// without limit. Consul's minimum is one minute.
    pub deregister_critical_after: Option<Duration>,
    /// True if the instance serves TLS. Consul's [`Check::Default`] then calls it with TLS, and Eureka
    /// lists the port as a secure one too. Default: false.
    pub tls: bool,
    /// True if the instance refuses clients without a certificate. Consul's [`Check::Default`] is then
    /// [`Check::ttl`] with 15 s: an agent has a certificate for its checks only with
    /// `enable_agent_tls_for_checks`. Default: false.
    pub client_certificates: bool,
}

impl Registration {
    /// The registration of `instance` under `check`, without a limit for a critical check.
    pub fn new(instance: Instance, check: impl Into<Check>) -> Self {
        Self {
            instance,
            check: check.into(),
            deregister_critical_after: None,
            tls: false,
            client_certificates: false,
        }
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Sets [`tls`](Self::tls) and [`client_certificates`](Self::client_certificates).
    #[must_use]
    pub fn with_client_certificates(mut self) -> Self {
        self.tls = true;
        self.client_certificates = true;
        self
    }

    /// Sets [`deregister_critical_after`](Self::deregister_critical_after).
    #[must_use]
    pub fn with_deregister_critical_after(mut self, after: Duration) -> Self {
        self.deregister_critical_after = Some(after);
        self
    }
}

/// How a registry checks the health of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The check that the registry prefers: Consul calls the gRPC health service, registries with
    /// leases or heartbeats use those.
    Default,
    /// The registry calls the instance's `grpc.health.v1.Health/Check`. See [`Check::grpc`].
    Grpc(GrpcCheck),
    /// The instance sends heartbeats. See [`Check::ttl`].
    #[non_exhaustive]
    Ttl {
        /// The check turns critical after this time without a heartbeat. The
        /// [`Registrar`](crate::Registrar) sends three heartbeats in this time.
        ttl: Duration,
    },
    /// The instance counts as healthy while it is registered.
    None,
}

impl Check {
    /// A check of the overall health over plain HTTP/2, every 5 s, with a timeout of 1 s.
    #[must_use]
    pub fn grpc() -> GrpcCheck {
        GrpcCheck {
            service: String::new(),
            tls: false,
            skip_verify: false,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        }
    }

    /// A check by heartbeats that turns critical after `ttl` without one.
    #[must_use]
    pub fn ttl(ttl: Duration) -> Self {
        Self::Ttl { ttl }
    }
}

/// A check by calls of the standard gRPC health service (`grpc.health.v1.Health/Check`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcCheck {
    /// The service name in the request, for example `pb.Trim`. Empty: the overall health.
    pub service: String,
    /// True if the registry connects with TLS. Consul verifies the certificate against its own
    /// certificate authorities, unless [`skip_verify`](Self::skip_verify) is set.
    pub tls: bool,
    /// True if any certificate of the instance is accepted. Default: false.
    pub skip_verify: bool,
    /// The time between two checks. Consul's minimum is 1 s.
    pub interval: Duration,
    /// The time that one check may take.
    pub timeout: Duration,
}

impl GrpcCheck {
    /// Sets [`service`](Self::service).
    #[must_use]
    pub fn with_service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Sets [`tls`](Self::tls).
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Sets [`skip_verify`](Self::skip_verify).
    #[must_use]
    pub fn with_skip_verify(mut self) -> Self {
        self.skip_verify = true;
        self
    }

    /// Sets [`interval`](Self::interval).
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl From<GrpcCheck> for Check {
    fn from(check: GrpcCheck) -> Self {
        Self::Grpc(check)
    }
}

/// The result of a registry's health check of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckState {
    /// The check passes, or the registry does not report it.
    #[default]
    Passing,
    /// The check warns. Queries for passing instances leave the instance out.
    #[non_exhaustive]
    Warning {
        /// The registry's own text.
        output: Arc<str>,
    },
    /// The check fails. Queries for passing instances leave the instance out.
    #[non_exhaustive]
    Critical {
        /// The registry's own text.
        output: Arc<str>,
    },
}

impl CheckState {
    /// A check that warns, with the registry's text.
    pub fn warning(output: impl Into<Arc<str>>) -> Self {
        Self::Warning {
            output: output.into(),
        }
    }

    /// A check that fails, with the registry's text.
    pub fn critical(output: impl Into<Arc<str>>) -> Self {
        Self::Critical {
            output: output.into(),
        }
    }

    /// True if the check passes, or the registry does not report it.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        *self == Self::Passing
    }
}
