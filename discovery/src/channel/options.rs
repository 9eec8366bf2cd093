//! The options of one call, as an extension of its request.

use std::{fmt, sync::Arc, time::Duration};

use crate::{instance::Instance, retry::Hedge};

/// Options of one call: put them into the extensions of its request. What is not set is the method's
/// policy. A channel passes them to every attempt; they do not leave the process.
///
/// ```
/// use std::time::Duration;
/// use discovery::{CallOptions, InstanceFilter};
/// use proto::TrimRequest;
///
/// let mut request = tonic::Request::new(TrimRequest { s: " a ".into() });
/// request.extensions_mut().insert(
///     CallOptions::new()
///         .with_timeout(Duration::from_millis(200))
///         .with_idempotent(true)
///         .prefer(InstanceFilter::tag("canary")),
/// );
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CallOptions {
    pub(super) timeout: Option<Duration>,
    pub(super) idempotent: Option<bool>,
    #[allow(clippy::option_option, reason = "absent, off, or a value")]
    pub(super) hedge: Option<Option<Hedge>>,
    pub(super) wait_for_ready: Option<bool>,
    pub(super) target: Option<Target>,
}

/// The instances that a call may use.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) filter: InstanceFilter,
    /// True if other instances are used when none of these can be.
    pub(super) fallback: bool,
}

impl CallOptions {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time of this call, in place of its method's, shorter or longer. The caller's deadline still
    /// holds if it is earlier. For a stream it is the time of the whole stream.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// True if this call may be executed twice.
    pub fn with_idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// When another attempt begins while the first is under way. Only an idempotent call is hedged.
    pub fn with_hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(Some(hedge));
        self
    }

    /// No hedged attempts.
    pub fn without_hedge(mut self) -> Self {
        self.hedge = Some(None);
        self
    }

    /// True to wait for an instance until the deadline when there is none, as gRPC's wait for ready.
    pub fn with_wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = Some(wait);
        self
    }

    /// Uses the instances that the filter accepts, and others while none of these can take the call.
    /// Each use of another one is counted in `discovery_fallbacks_total`.
    pub fn prefer(mut self, filter: InstanceFilter) -> Self {
        self.target = Some(Target {
            filter,
            fallback: true,
        });
        self
    }

    /// Uses the instances that the filter accepts, and no others.
    pub fn require(mut self, filter: InstanceFilter) -> Self {
        self.target = Some(Target {
            filter,
            fallback: false,
        });
        self
    }
}

/// A choice of instances, by their description in the registry.
///
/// ```
/// use discovery::{Instance, InstanceFilter};
///
/// let filter = InstanceFilter::tag("canary").and(InstanceFilter::meta("version", "2"));
/// let instance = Instance::parse("127.0.0.1:8975")?.with_tags(["canary"]);
/// assert!(!filter.accepts(&instance));
/// assert!(filter.accepts(&instance.with_meta([("version", "2")])));
/// # Ok::<(), discovery::InvalidInstance>(())
/// ```
#[derive(Clone)]
pub struct InstanceFilter(Arc<dyn Fn(&Instance) -> bool + Send + Sync>);

impl InstanceFilter {
    /// The instances for which the function returns true. It is called for each instance of the set at
    /// each attempt of a call.
    pub fn of(accepts: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(accepts))
    }

    /// The one instance with this ID.
    pub fn id(id: impl Into<String>) -> Self {
        let id = id.into();
        Self::of(move |instance| instance.id == id)
    }

    /// Instances with this tag.
    pub fn tag(tag: impl Into<String>) -> Self {
        let tag = tag.into();
        Self::of(move |instance| instance.tags.contains(&tag))
    }

    /// Instances whose metadata have this value under this key.
    pub fn meta(key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self::of(move |instance| instance.meta.get(&key) == Some(&value))
    }

    /// Instances that both filters accept.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(move |instance| self.accepts(instance) && other.accepts(instance))
    }

    /// Instances that the filter does not accept.
    #[must_use]
    pub fn negate(self) -> Self {
        Self::of(move |instance| !self.accepts(instance))
    }

    /// True if the filter accepts the instance.
    #[must_use]
    pub fn accepts(&self, instance: &Instance) -> bool {
        (self.0)(instance)
    }
}

impl fmt::Debug for InstanceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceFilter")
    }
}
