//! The future type of the public traits.

use std::{future::Future, pin::Pin};

/// A boxed future that can be sent to another thread.
///
/// The traits of this crate return it so that they can be used as `dyn Trait`. `Box::pin(async {
/// ... })` makes one. It is the same type as `futures::future::BoxFuture`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
