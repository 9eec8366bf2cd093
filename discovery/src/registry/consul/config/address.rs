//! Addresses of Consul.

use url::Url;

use crate::registry::consul::path::pathable;

pub(super) const CREDENTIALS: &str =
    "credentials are not allowed in an address; use CONSUL_HTTP_TOKEN";

/// Checks a path before `/v1`: empty, or with a slash at its start and none at its end.
pub(super) fn path(path: &str) -> Result<(), &'static str> {
    let Some(rest) = path.strip_prefix('/') else {
        return if path.is_empty() {
            Ok(())
        } else {
            Err("the path must begin with a slash")
        };
    };
    pathable(rest).map_err(|_| "the path has an empty, `.` or `..` part")
}

/// `HOST:PORT` of an authority that has no other part.
pub(super) fn host_and_port(authority: &str, default_port: u16) -> Result<String, &'static str> {
    if authority.contains('@') {
        return Err(CREDENTIALS);
    }
    if authority.contains(',') {
        return Err("only one address is supported");
    }
    if authority.contains(['/', '?', '#', '\\']) {
        return Err("expected HOST:PORT before the path");
    }
    // Url checks and normalizes the host of an http:// URL, but drops `:80`.
    let checked =
        Url::parse(&format!("http://{authority}")).map_err(|_| "the host or port is invalid")?;
    let host = checked.host_str().ok_or("the host is missing")?;
    let explicit_80 = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse() == Ok(80));
    match checked
        .port()
        .or(explicit_80.then_some(80))
        .unwrap_or(default_port)
    {
        0 => Err("port 0 cannot be connected to"),
        port => Ok(format!("{host}:{port}")),
    }
}
