//! The `:scheme` and `:authority` of requests.

use std::{mem, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{
    Request, Response, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody};
use crate::instance::Instance;

/// A scheme and an authority for requests that have none.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
}

impl Origin {
    /// `None` if the URI lacks one of the two.
    pub(crate) fn of(uri: Uri) -> Option<Self> {
        let parts = uri.into_parts();
        Some(Self {
            scheme: parts.scheme?,
            authority: parts.authority?,
        })
    }

    /// Adds what the URI lacks. A URI with an authority of its own keeps it.
    pub(crate) fn complete(&self, uri: &mut Uri) {
        let mut parts = mem::take(uri).into_parts();
        parts.scheme.get_or_insert_with(|| self.scheme.clone());
        parts
            .authority
            .get_or_insert_with(|| self.authority.clone());
        let path = &mut parts.path_and_query;
        path.get_or_insert_with(|| PathAndQuery::from_static("/"));
        // With all three parts present, this cannot fail.
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// The factory with this origin for its requests; an error if the URI is incomplete.
pub(crate) fn with_origin(
    factory: Arc<dyn Factory>,
    origin: Option<Uri>,
) -> Result<Arc<dyn Factory>, &'static str> {
    let Some(uri) = origin else {
        return Ok(factory);
    };
    let origin = Origin::of(uri).ok_or("expected scheme and host, such as https://trim.example")?;
    let inner = factory;
    Ok(Arc::new(WithOrigin { inner, origin }))
}

/// A factory or its transport, whose requests get this origin.
struct WithOrigin<T> {
    inner: T,
    origin: Origin,
}

impl Factory for WithOrigin<Arc<dyn Factory>> {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        let connection = self.inner.connect(instance);
        connection
            .map(|connection| {
                let Connection { transport, driver } = connection?;
                let origin = self.origin.clone();
                let inner = transport;
                Ok(Connection::new(WithOrigin { inner, origin }, driver))
            })
            .boxed()
    }
}

impl Transport for WithOrigin<Box<dyn Transport>> {
    fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        self.origin.complete(request.uri_mut());
        self.inner.send(request)
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn has_answered(&self) -> bool {
        self.inner.has_answered()
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_own_authority_and_gets_what_it_lacks() {
        let origin = Origin::of(Uri::from_static("https://trim.example:8443/ignored")).unwrap();
        for (uri, expected) in [
            (
                "/pb.Trim/TrimSpace",
                "https://trim.example:8443/pb.Trim/TrimSpace",
            ),
            (
                "http://own.example/pb.Trim/TrimSpace",
                "http://own.example/pb.Trim/TrimSpace",
            ),
            ("http://own.example", "http://own.example/"),
            ("own.example:1", "https://own.example:1/"),
        ] {
            let mut uri = Uri::from_static(uri);
            origin.complete(&mut uri);
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn an_origin_needs_scheme_and_authority() {
        for uri in ["trim.example", "/path", "trim.example:80"] {
            assert!(Origin::of(Uri::from_static(uri)).is_none(), "{uri}");
        }
    }
}
