//! Notes the compression flag of each request message, which tonic does not show to a handler.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use http::{Extensions, Request, Response};
use http_body_util::BodyExt as _;
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

/// The length of a message's flag and length.
const PREFIX: usize = 5;

/// The flags of the messages received so far: an extension of each request.
#[derive(Clone, Debug, Default)]
pub(crate) struct MessageFlags(Arc<Mutex<VecDeque<bool>>>);

impl MessageFlags {
    /// The flags of a request.
    pub(crate) fn of(extensions: &Extensions) -> Result<Self> {
        let flags = extensions.get::<Self>().context("the layer is missing");
        flags.cloned()
    }

    /// The flag of the next message.
    pub(crate) fn next(&self) -> Option<bool> {
        let mut flags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flags.pop_front()
    }

    fn push(&self, flag: bool) {
        let mut flags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flags.push_back(flag);
    }
}

/// Finds the prefixes in a request's data.
#[derive(Default)]
struct Scan {
    prefix: Vec<u8>,
    /// The rest of the current message.
    left: usize,
}

impl Scan {
    fn data(&mut self, mut data: &[u8], flags: &MessageFlags) {
        while !data.is_empty() {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            let part = data.len().min(PREFIX - self.prefix.len());
            self.prefix.extend_from_slice(&data[..part]);
            data = &data[part..];
            if let [flag, length @ ..] = &self.prefix[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                flags.push(*flag == 1);
                self.left = u32::from_be_bytes(length) as usize;
                self.prefix.clear();
            }
        }
    }
}

/// Adds [`MessageFlags`] to the requests of a service.
#[derive(Clone, Debug)]
pub(crate) struct Flags<S>(pub(crate) S);

impl<S: NamedService> NamedService for Flags<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Flags<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let flags = MessageFlags::default();
        let (noted, mut scan) = (flags.clone(), Scan::default());
        let mut request = request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    scan.data(data, &noted);
                }
                frame
            }))
        });
        request.extensions_mut().insert(flags);
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_however_the_data_is_split() {
        let data = [1, 0, 0, 0, 2, 9, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9];
        for size in 1..=data.len() {
            let (flags, mut scan) = (MessageFlags::default(), Scan::default());
            for part in data.chunks(size) {
                scan.data(part, &flags);
            }
            let found: Vec<_> = std::iter::from_fn(|| flags.next()).collect();
            assert_eq!(found, [true, false, true], "in parts of {size}");
        }
    }
}
