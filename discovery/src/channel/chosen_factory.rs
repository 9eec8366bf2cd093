//! The factory of a builder, and the settings that only this crate's own factory has.

use std::{any::Any, sync::Arc, time::Duration};

use crate::connection::{Factory, Http2};

/// A factory, known by its type if it is this crate's.
pub(super) enum ChosenFactory {
    Http2(Box<Http2>),
    Other(Arc<dyn Factory>),
}

impl ChosenFactory {
    pub(super) fn of<F: Factory>(factory: F) -> Self {
        let mut given = Some(factory);
        let any: &mut dyn Any = &mut given;
        let http2 = any.downcast_mut::<Option<Http2>>().and_then(Option::take);
        match (http2, given) {
            (Some(http2), _) => Self::Http2(Box::new(http2)),
            (None, Some(other)) => Self::Other(Arc::new(other)),
            (None, None) => Self::default(),
        }
    }

    /// The pings and probes of its connections; `None` if the factory is the application's own.
    pub(super) fn probes(&self) -> Option<Probes> {
        match self {
            Self::Http2(http2) => Some(Probes {
                keep_alive: http2.keep_alive(),
                tcp_keep_alive: http2.tcp_keep_alive(),
            }),
            Self::Other(_) => None,
        }
    }

    pub(super) fn into_shared(self) -> Arc<dyn Factory> {
        match self {
            Self::Http2(http2) => Arc::new(*http2),
            Self::Other(factory) => factory,
        }
    }
}

impl Default for ChosenFactory {
    fn default() -> Self {
        Self::Http2(Box::default())
    }
}

/// How dead connections are found; `None` is off.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "service-config"),
    allow(dead_code, reason = "shown as a config")
)]
pub(crate) struct Probes {
    /// HTTP/2 pings: the interval, and the time limit of an answer.
    pub(crate) keep_alive: Option<(Duration, Duration)>,
    pub(crate) tcp_keep_alive: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::{
        connection::{ConnectError, Connection},
        instance::Instance,
    };

    struct Own;

    impl Factory for Own {
        fn connect<'a>(
            &'a self,
            _: &'a Instance,
        ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
            Box::pin(async { Err(ConnectError::Connect("refused".into())) })
        }
    }

    #[test]
    fn the_own_factory_is_recognized_with_its_settings() {
        let http2 = Http2::new().with_tcp_keep_alive(None);
        let probes = ChosenFactory::of(http2).probes().unwrap();
        assert!(probes.keep_alive.is_none() && probes.tcp_keep_alive.is_none());
        assert!(ChosenFactory::of(Own).probes().is_none());
    }
}
