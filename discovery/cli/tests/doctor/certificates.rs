//! Certificates that are refused, each for a reason of its own.

use crate::{BROKEN, WARNINGS, consul, doctor, list, register, support::run, tls::Authority};

#[tokio::test]
async fn a_certificate_of_the_future_points_at_the_clocks() {
    let authority = Authority::named("CA");
    let file = authority.file().display().to_string();
    let address = authority.serve("127.0.0.1", 3, 48).await;
    let consul = consul().await;
    register(&consul, "skewed_service", address, "passing").await;
    let found = doctor(&consul, "skewed_service", &["--tls-ca", &file]).await;
    found.says(
        BROKEN,
        &[
            "the certificate is not yet valid: it begins at ",
            "and this machine's clock says ",
            "the registry's clock agrees with this machine's",
            "compare the clocks of this machine and of the issuer with `date -u`",
        ],
    );
    // 3 hours, less the time since the certificate was issued.
    assert!(found.stdout.contains(", 2h 59m"), "{found:#?}");
}

#[tokio::test]
async fn other_certificates_that_are_refused_have_their_own_cause() {
    let [authority, other, named] = ["CA", "CA", "Other CA"].map(Authority::named);
    let file = authority.file().display().to_string();
    let issuer = "issuer is not trusted";
    for (server, name, [begin, end], cause, remedy) in [
        (
            &authority,
            "127.0.0.1",
            [-48, -3],
            "the certificate expired at ",
            "renew the certificate",
        ),
        (&other, "127.0.0.1", [-1, 48], issuer, "--tls-ca"),
        (&named, "127.0.0.1", [-1, 48], issuer, "CN=Other CA"),
        (
            &authority,
            "trim.test",
            [-1, 48],
            "the certificate is for trim.test",
            "--tls-domain",
        ),
    ] {
        let url = list(server.serve(name, begin, end).await);
        let found = run(&["doctor", &url, "trim", "--tls-ca", &file]).await;
        found.says(BROKEN, &[cause, remedy]);
    }
    let url = list(authority.serve("127.0.0.1", -1, 3).await);
    let found = run(&["doctor", &url, "trim", "--tls-ca", &file]).await;
    found.says(
        WARNINGS,
        &[
            "HTTP/2 over TLS",
            "for another 2h 59m",
            "renew the certificate",
        ],
    );
    // Without TLS, the same server is the opposite mistake.
    let found = run(&["doctor", &url, "trim"]).await;
    found.says(
        BROKEN,
        &[
            "is an HTTP/2 server with TLS, and the channel uses none",
            "give --tls",
        ],
    );
}
