//! How values without a serialization of their own are written: times as numbers of seconds, errors as
//! one line of text.

#![allow(
    clippy::ref_option,
    reason = "serde calls these with a reference to the field"
)]

use std::{
    collections::HashSet,
    error::Error,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Serialize as _, Serializer};

use crate::{
    clock,
    error::{BoxError, chain},
};

pub(crate) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

pub(crate) fn optional_seconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

/// Seconds since 1970, UTC.
pub(crate) fn unix_seconds<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    seconds(&since.unwrap_or_default(), serializer)
}

fn passed_since(time: Instant) -> Duration {
    clock::now().saturating_duration_since(time)
}

/// Seconds that have passed since then.
pub(crate) fn seconds_since<S: Serializer>(
    time: &Instant,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    seconds(&passed_since(*time), serializer)
}

/// Seconds that have passed since then.
pub(crate) fn optional_seconds_since<S: Serializer>(
    time: &Option<Instant>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    optional_seconds(&time.map(passed_since), serializer)
}

/// Seconds until then; zero if it has passed.
pub(crate) fn optional_seconds_until<S: Serializer>(
    time: &Option<Instant>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let left = time.map(|time| time.saturating_duration_since(clock::now()));
    optional_seconds(&left, serializer)
}

pub(crate) fn optional_error<E, S>(error: &Option<Arc<E>>, serializer: S) -> Result<S::Ok, S::Error>
where
    E: Error + 'static,
    S: Serializer,
{
    let text = error.as_ref().map(|error| chain(&**error));
    text.serialize(serializer)
}

pub(crate) fn optional_box_error<S: Serializer>(
    error: &Option<Arc<BoxError>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = error.as_ref().map(|error| chain(error.deref().deref()));
    text.serialize(serializer)
}

pub(crate) fn sorted<S: Serializer>(
    texts: &HashSet<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut texts: Vec<_> = texts.iter().collect();
    texts.sort_unstable();
    texts.serialize(serializer)
}
