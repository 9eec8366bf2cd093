//! The list of a service's entries in an answer.
//!
//! Eureka checks few of the values that it registers. So each entry is decoded on its own: an entry that
//! cannot be used is counted and left out, and the others count.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{application, read::Entry};
use crate::{
    instance::Instance,
    registry::{Listing, Query},
};

/// How the entries of a service are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// By the application's name.
    Application,
    /// By a VIP address, which instances of several applications may have.
    Vip,
}

/// The answer to a request for one application.
#[derive(Deserialize)]
struct OneApplication<'a> {
    #[serde(borrow)]
    application: Application<'a>,
}

/// The answer to a request for a VIP address.
#[derive(Deserialize)]
struct SeveralApplications<'a> {
    #[serde(borrow)]
    applications: Applications<'a>,
}

#[derive(Deserialize)]
struct Applications<'a> {
    #[serde(borrow, default, deserialize_with = "one_or_several")]
    application: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Application<'a> {
    #[serde(borrow, default, deserialize_with = "one_or_several")]
    instance: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// A list, or its only element without the list, as Eureka's XML encoding of JSON writes it.
fn one_or_several<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<&'de RawValue>, D::Error> {
    use serde::de::Error as _;
    let raw = <&RawValue>::deserialize(deserializer)?;
    match raw.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(raw.get()).map_err(D::Error::custom),
        Some(b'{') => Ok(vec![raw]),
        _ if raw.get() == "null" => Ok(Vec::new()),
        _ => Err(D::Error::custom("expected a list")),
    }
}

/// The names in the answer to a request for all applications, sorted. Fails with the reason if it is not
/// such an answer.
pub(crate) fn applications(body: &[u8]) -> Result<Vec<String>, String> {
    let text = String::from_utf8_lossy(body);
    let all = parse::<SeveralApplications<'_>>(&text)?.applications;
    let applications = all.application.iter();
    let applications = applications.filter_map(|raw| serde_json::from_str::<Named>(raw.get()).ok());
    let mut sorted: Vec<_> = applications.map(|application| application.name).collect();
    sorted.sort_unstable();
    Ok(sorted)
}

/// Decodes the answer to a request for the query's service. Fails with the reason if it is not such an
/// answer. Entries that cannot be used are not a failure.
pub(crate) fn decode(body: &[u8], lookup: Lookup, query: &Query) -> Result<Listing, String> {
    // A broken character in one instance's metadata must not hide the other instances.
    let text: Cow<'_, str> = String::from_utf8_lossy(body);
    let mut listing = Listing::default();
    let mut add = |application: Application<'_>| {
        for entry in application.instance {
            match read(entry.get(), lookup, query) {
                Ok(instance) => listing.push(instance),
                Err(reason) => listing.reject(reason),
            }
        }
    };
    let mut broken = Vec::new();
    match lookup {
        Lookup::Application => add(parse::<OneApplication<'_>>(&text)?.application),
        Lookup::Vip => {
            for raw in parse::<SeveralApplications<'_>>(&text)?
                .applications
                .application
            {
                match serde_json::from_str(raw.get()) {
                    Ok(application) => add(application),
                    Err(error) => broken.push(format!("an application: {error}")),
                }
            }
        }
    }
    for reason in broken {
        listing.reject(reason);
    }
    Ok(query.select(listing))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    let begin = |error| format!("{error}; the answer begins with {:?}", start(text));
    serde_json::from_str(text).map_err(begin)
}

/// The beginning of a text, for messages.
fn start(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// One entry. Fails with its name and the reason.
fn read(json: &str, lookup: Lookup, query: &Query) -> Result<Instance, String> {
    let unreadable = |error| format!("{}: {error}", start(json));
    let entry: Entry = serde_json::from_str(json).map_err(unreadable)?;
    let named = entry.name().to_owned();
    // IDs are unique within an application only.
    let other = |name: &&str| application(name) != application(&query.service);
    let suffix = match lookup {
        Lookup::Vip => entry
            .application()
            .filter(other)
            .map(|name| format!("@{name}")),
        Lookup::Application => None,
    };
    let mut instance = entry
        .into_instance()
        .map_err(|reason| format!("{named}: {reason}"))?
        .with_service(&query.service);
    instance.id.extend(suffix);
    Ok(instance)
}
