//! The cause of a failed connection to an instance.

use discovery::{Instance, chain, connection::ConnectError};

use super::super::{Finding, StepContext, certificate, sniff::ProbeResult};

/// The finding about a connection that failed with `error`, or that took too long. `found` is the
/// protocol at the address.
pub(super) fn failed(
    context: &StepContext<'_>,
    instance: &Instance,
    error: Option<&ConnectError>,
    found: &ProbeResult,
) -> Finding {
    let is_tls = context.args.connection.is_tls();
    if is_tls
        && let ProbeResult::Tls { .. } = found
        && let Some(cause) = error.and_then(|error| certificate::cause(error))
        && let Some(finding) = certificate::refused("connection", &cause, found, context.skew)
    {
        return finding;
    }
    let message = error.map_or_else(
        || format!("no connection within {:?}", context.args.timeout),
        |error| chain(error),
    );
    explain(&instance.authority(), is_tls, found, &message)
}

fn explain(address: &str, is_tls: bool, found: &ProbeResult, message: &str) -> Finding {
    let there = found.describe();
    match found {
        ProbeResult::Refused => Finding::broken(
            "connection",
            "instance_refused",
            format!("nothing listens at {address} (connection refused), and the registry lists it"),
            "start the instance, or deregister it; check that it registers the address and the port on \
             which it listens",
        ),
        ProbeResult::NoSuchHost(error) => Finding::broken(
            "connection",
            "no_such_host",
            format!("{address}: the name has no address here ({error})"),
            "let the instance register an address that this machine can resolve, or correct this \
             machine's name servers",
        ),
        ProbeResult::Unreachable(error) => Finding::broken(
            "connection",
            "instance_unreachable",
            format!("no connection to {address}: {error}"),
            "check the route and the firewalls; an instance in a container may have registered an \
             address of its own network",
        ),
        ProbeResult::Http2 | ProbeResult::Http1 { .. } if is_tls => Finding::broken(
            "protocol",
            "instance_has_no_tls",
            format!("TLS to a plain port: {address} is {there}"),
            "leave out --tls and its files (in a program: Http2::with_tls), or turn on TLS in the server",
        ),
        ProbeResult::Http1 { .. } => Finding::broken(
            "protocol",
            "http1_server",
            format!("{address} is {there}; gRPC needs HTTP/2"),
            "register the server's gRPC port instead of its HTTP port; a proxy in front must speak HTTP/2 \
             without TLS (nginx: listen ... http2)",
        ),
        ProbeResult::Tls { alpn, .. } if is_tls && alpn.as_deref() != Some(b"h2") => {
            Finding::broken(
                "protocol",
                "no_http2_over_tls",
                format!("{address} does not offer HTTP/2 over TLS (ALPN): {message}"),
                "turn on HTTP/2 in the server, or register its gRPC port",
            )
        }
        ProbeResult::Tls { .. } if !is_tls => Finding::broken(
            "protocol",
            "instance_needs_tls",
            format!("{address} is {there}, and the channel uses none"),
            "give --tls, and --tls-ca for a certificate authority of your own (in a program: \
             Http2::with_tls)",
        ),
        ProbeResult::Silent => Finding::broken(
            "protocol",
            "instance_silent",
            format!("{address} accepts connections and does not answer: {message}"),
            "check whether the process hangs or is stopped; see its log",
        ),
        ProbeResult::Other(_) => Finding::broken(
            "protocol",
            "not_http2",
            format!("{address} does not speak HTTP/2: there is {there}"),
            "register the server's gRPC port; another program may have taken the address",
        ),
        ProbeResult::Http2 | ProbeResult::Tls { .. } => Finding::broken(
            "connection",
            "connection_fails",
            format!("{message} ({address} is {there})"),
            "see the server's log for the end of the connection; raise --timeout if it is slow",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_at_the_address_is_the_cause() {
        let http1 = || ProbeResult::Http1 { date: None };
        let tls = |alpn: &[u8]| ProbeResult::Tls {
            alpn: Some(alpn.to_vec()),
            certificate: None,
        };
        for (is_tls, found, cause) in [
            (false, ProbeResult::Refused, "instance_refused"),
            (true, ProbeResult::Refused, "instance_refused"),
            (false, http1(), "http1_server"),
            (true, http1(), "instance_has_no_tls"),
            (true, ProbeResult::Http2, "instance_has_no_tls"),
            (false, ProbeResult::Http2, "connection_fails"),
            (false, tls(b"h2"), "instance_needs_tls"),
            (true, tls(b"h2"), "connection_fails"),
            (true, tls(b"http/1.1"), "no_http2_over_tls"),
            (false, ProbeResult::Silent, "instance_silent"),
            (false, ProbeResult::Other(b"220 smtp".to_vec()), "not_http2"),
            (
                false,
                ProbeResult::NoSuchHost(String::new()),
                "no_such_host",
            ),
            (
                false,
                ProbeResult::Unreachable(String::new()),
                "instance_unreachable",
            ),
        ] {
            let finding = explain("h:1", is_tls, &found, "message");
            assert_eq!(finding.cause, cause, "{is_tls} {found:?}");
        }
    }
}
