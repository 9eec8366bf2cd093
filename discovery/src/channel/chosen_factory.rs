//! The factory of a builder, and the settings that only this crate's own factory has.

use std::{any::Any, sync::Arc, time::Duration};

#[cfg(feature = "http")]
use crate::connection::negotiated::Connections;
use crate::connection::{Factory, Http2};

/// A factory, known by its type if it is this crate's.
pub(super) enum ChosenFactory {
    Http2(Box<Http2>),
    #[cfg(feature = "http")]
    Http(Box<Connections>),
    Other(Arc<dyn Factory>),
}

/// Takes the factory if it is of this type.
fn take<T: 'static>(given: &mut dyn Any) -> Option<T> {
    given.downcast_mut::<Option<T>>()?.take()
}

impl ChosenFactory {
    pub(super) fn of<F: Factory>(factory: F) -> Self {
        let mut given = Some(factory);
        if let Some(http2) = take(&mut given) {
            return Self::Http2(Box::new(http2));
        }
        #[cfg(feature = "http")]
        if let Some(connections) = take(&mut given) {
            return Self::Http(Box::new(connections));
        }
        given.map_or_else(Self::default, |other| Self::Other(Arc::new(other)))
    }

    /// The settings of TCP and HTTP/2; `None` if the factory is the application's own.
    pub(super) fn http2(&self) -> Option<&Http2> {
        match self {
            Self::Http2(http2) => Some(http2),
            #[cfg(feature = "http")]
            Self::Http(connections) => Some(connections.http2()),
            Self::Other(_) => None,
        }
    }

    /// The factory with these settings of TCP and HTTP/2, unless it is the application's own.
    #[cfg(feature = "service-config")]
    pub(super) fn with_http2(self, http2: Http2) -> Self {
        match self {
            Self::Http2(_) => Self::Http2(Box::new(http2)),
            #[cfg(feature = "http")]
            Self::Http(connections) => Self::Http(Box::new(connections.with_http2(http2))),
            Self::Other(_) => self,
        }
    }

    /// The pings and probes of its connections; `None` if the factory is the application's own.
    pub(super) fn probes(&self) -> Option<Probes> {
        let http2 = self.http2()?;
        Some(Probes {
            keep_alive: http2.keep_alive(),
            tcp_keep_alive: http2.tcp_keep_alive(),
        })
    }

    pub(super) fn into_shared(self) -> Arc<dyn Factory> {
        match self {
            Self::Http2(http2) => Arc::new(*http2),
            #[cfg(feature = "http")]
            Self::Http(connections) => Arc::new(*connections),
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
