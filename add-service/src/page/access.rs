//! The requests that may see the page: it names instances, addresses and the registry, which are not for
//! callers.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use clap::ValueEnum;

use crate::failure::Failure;

/// Headers that a proxy adds.
const FORWARDED: [&str; 5] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
];

/// The listeners that show the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// On --admin-listen; without it, if --listen is a loopback address, and not through a proxy
    Auto,
    /// On --admin-listen or, without it, on the HTTP port, to every caller
    On,
    /// Nowhere
    Off,
}

/// The requests that may see the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// All that arrive.
    All,
    /// Requests of a program on this machine, to an address or to `localhost`.
    Local,
}

impl Show {
    /// The access on a listener at `ip`; `None` to show nothing there. `own` is true for a port that
    /// only operators reach.
    pub(crate) fn access(self, ip: IpAddr, own: bool) -> Option<Access> {
        match self {
            Self::Off => None,
            Self::On => Some(Access::All),
            Self::Auto if ip.is_loopback() => Some(Access::Local),
            Self::Auto => own.then_some(Access::All),
        }
    }
}

/// Refuses the requests that may not see the page.
pub(crate) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    match refusal(access, request.headers(), request.uri().host()) {
        None => next.run(request).await,
        Some(reason) => Failure::new(StatusCode::FORBIDDEN, reason).into_response(),
    }
}

/// The reason why a request may not see the page.
fn refusal(access: Access, headers: &HeaderMap, uri_host: Option<&str>) -> Option<&'static str> {
    // A page of another site must not make a browser send calls.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return Some("not for requests of other sites");
    }
    if access == Access::All {
        return None;
    }
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return Some("not through a proxy; set --page on, or use --admin-listen");
    }
    // A name that another site has pointed to this machine (DNS rebinding) is not an address.
    let header = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if uri_host.or(header).is_some_and(is_local) {
        None
    } else {
        Some("only as localhost or by a loopback address; set --page on to allow other names")
    }
}

/// True for `localhost` and loopback addresses, with or without a port.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_flag_only_operators_see_the_page() {
        let (everywhere, loopback) = ([0, 0, 0, 0].into(), [127, 0, 0, 1].into());
        for (show, ip, own, expected) in [
            (Show::Auto, everywhere, false, None),
            (Show::Auto, loopback, false, Some(Access::Local)),
            (Show::Auto, everywhere, true, Some(Access::All)),
            (Show::Auto, loopback, true, Some(Access::Local)),
            (Show::On, everywhere, false, Some(Access::All)),
            (Show::Off, loopback, true, None),
        ] {
            assert_eq!(show.access(ip, own), expected, "{show:?} {ip} {own}");
        }
    }

    #[test]
    fn a_stranger_through_a_proxy_or_another_name_is_refused() {
        let refused = |access, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            refusal(access, &map, None).is_some()
        };
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:80",
            "LOCALHOST",
            "127.1.2.3",
        ] {
            assert!(!refused(Access::Local, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "10.0.0.1:8080",
            "",
            "localhost.evil.example:80",
        ] {
            assert!(refused(Access::Local, &[("host", host)]), "{host}");
            assert!(!refused(Access::All, &[("host", host)]), "{host}");
        }
        let local = ("host", "127.0.0.1");
        for forwarded in FORWARDED {
            assert!(refused(Access::Local, &[local, (forwarded, "1.2.3.4")]));
        }
        for (site, expected) in [
            ("cross-site", true),
            ("same-site", true),
            ("same-origin", false),
            ("none", false),
        ] {
            let headers = [local, ("sec-fetch-site", site)];
            assert_eq!(refused(Access::Local, &headers), expected, "{site}");
            assert_eq!(refused(Access::All, &headers), expected, "{site}");
        }
    }
}
