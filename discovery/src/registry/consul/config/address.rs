//! Addresses of Consul.

use url::Url;

/// `HOST:PORT` of an authority that has no other part.
pub(super) fn host_and_port(authority: &str, default_port: u16) -> Result<String, &'static str> {
    if authority.contains('@') {
        return Err("credentials are not allowed in an address; use CONSUL_HTTP_TOKEN");
    }
    if authority.contains(['/', '?', '#', '\\']) {
        return Err("a path or query is not supported");
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
