use std::{ffi::OsString, time::Duration};

use super::*;

fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    |name| {
        let pair = pairs.iter().find(|(key, _)| *key == name);
        pair.map(|(_, value)| value.into())
    }
}

fn of(url: &str, pairs: &'static [(&str, &str)]) -> Config {
    Config::from_url(url, env(pairs)).unwrap()
}

#[test]
fn without_anything_it_is_localhost_and_go_kits_layout() {
    assert_eq!(Config::from_env(env(&[])).unwrap(), Config::default());
    let config = of("etcd://", &[("ETCDCTL_ENDPOINTS", "")]);
    assert_eq!(config.name(), "etcd://127.0.0.1:2379/services");
    assert_eq!(config.layout, Layout::GoKit);
}

#[test]
fn the_path_is_the_prefix_as_each_layouts_users_write_it() {
    for (url, prefix) in [
        ("etcd://a", "/services"),
        ("etcd://a/", "/services"),
        ("etcd://a/apps/", "/apps"),
        ("etcd://a/?layout=gokit", "/services"),
        ("etcd://a?layout=grpc", "services"),
        ("etcd://a/naming?layout=grpc", "naming"),
        ("etcd://a//naming/x?layout=grpc", "/naming/x"),
    ] {
        let config = of(url, &[]);
        assert_eq!(config.key_prefix(), prefix, "{url}");
        config.validate().unwrap();
    }
}

#[test]
fn reads_several_members_with_their_default_port() {
    let config = of("etcds://me:p%40ss@a,[::1]:1,c:2380/x?layout=grpc", &[]);
    assert_eq!(config.name(), "etcds://a:2379,[::1]:1,c:2380/x");
    assert_eq!(config.user.as_deref(), Some("me"));
    assert_eq!(config.password.as_deref(), Some("p@ss"));
}

#[test]
fn reads_etcdctls_variables() {
    let config = of(
        "etcd://",
        &[
            ("ETCDCTL_ENDPOINTS", "https://a:2379, https://b:2379/"),
            ("ETCDCTL_USER", "root:secret:1"),
            ("ETCDCTL_CACERT", "/ca.pem"),
            ("ETCDCTL_CERT", "/client.pem"),
            ("ETCDCTL_KEY", "/client.key"),
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true"),
            ("ETCDCTL_DIAL_TIMEOUT", "500ms"),
            ("ETCDCTL_COMMAND_TIMEOUT", "1m"),
        ],
    );
    let expected = Config::new(["a:2379", "b:2379"])
        .with_tls(true)
        .with_user("root", "secret:1")
        .with_ca_file("/ca.pem")
        .with_client_cert("/client.pem", "/client.key")
        .with_tls_verify(false)
        .with_connect_timeout(Duration::from_millis(500))
        .with_request_timeout(Duration::from_secs(60));
    assert!(config == expected, "{config:?}");
    // A password of its own leaves the user's colons alone.
    let config = of(
        "etcd://",
        &[("ETCDCTL_USER", "a:b"), ("ETCDCTL_PASSWORD", "c")],
    );
    assert_eq!(config.user.as_deref(), Some("a:b"));
    assert_eq!(config.password.as_deref(), Some("c"));
}

#[test]
fn certificates_mean_tls_unless_the_members_say_http() {
    for (endpoints, tls) in [("a:1", true), ("http://a:1", false), ("https://a:1", true)] {
        let config = Config::from_env(|name| match name {
            "ETCDCTL_CACERT" => Some("/ca.pem".into()),
            "ETCDCTL_ENDPOINTS" => Some(endpoints.into()),
            _ => None,
        });
        assert_eq!(config.unwrap().tls, tls, "{endpoints}");
    }
    assert!(of("etcd://a", &[("ETCDCTL_INSECURE_TRANSPORT", "false")]).tls);
    assert!(of("etcd://a", &[("ETCDCTL_CACERT", "/ca.pem")]).tls);
}

#[test]
fn the_url_beats_the_environment_and_keeps_the_rest() {
    let pairs = &[
        ("ETCDCTL_ENDPOINTS", "elsewhere:1"),
        ("ETCDCTL_DISCOVERY_SRV", "example"),
        ("ETCDCTL_USER", "other:hidden"),
        ("ETCDCTL_PASSWORD", "secret"),
    ];
    let config = of("etcd://me@here:1", pairs);
    assert_eq!(config.endpoints, ["here:1"]);
    assert_eq!(config.user.as_deref(), Some("me"));
    assert_eq!(config.password.as_deref(), Some("secret"));
    config.validate().unwrap();
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value) in [
        ("ETCDCTL_ENDPOINTS", "unix:///etcd.sock"),
        ("ETCDCTL_ENDPOINTS", "a"),
        ("ETCDCTL_ENDPOINTS", "http://a:1,https://b:1"),
        ("ETCDCTL_ENDPOINTS", "a:1,,b:1"),
        ("ETCDCTL_DISCOVERY_SRV", "example"),
        ("ETCDCTL_INSECURE_TRANSPORT", "no"),
        ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "2"),
        ("ETCDCTL_DIAL_TIMEOUT", "5"),
        ("ETCDCTL_COMMAND_TIMEOUT", "soon"),
    ] {
        let error = Config::from_env(|n| (n == name).then(|| value.into())).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_wrong_url_is_refused_without_showing_a_password() {
    for url in [
        "etcd",
        "http://localhost:2379",
        "etcd://host:0",
        "etcd://host:70000",
        "etcd://a,,b",
        "etcd://host?layout=zookeeper",
        "etcd://me:hunter2@host?token=a",
        "etcd://me:hunter2@host:port",
    ] {
        let error = Config::from_url(url, env(&[])).unwrap_err();
        assert!(matches!(error, RegistryError::InvalidUrl { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn never_shows_a_secret() {
    let config = Config::default()
        .with_user("root", "hunter2")
        .with_token("hunter2");
    assert!(!format!("{config:?} {}", config.name()).contains("hunter2"));
}

/// A change of the settings, and what the message about it must contain.
type Refused = (fn(&mut Config), &'static str);

#[test]
fn refuses_settings_that_cannot_work() {
    let changes: [Refused; 8] = [
        (|c| c.endpoints.clear(), "ETCDCTL_ENDPOINTS"),
        (|c| c.endpoints[0] = "localhost".to_owned(), "\"localhost\""),
        (|c| c.user = Some("root".to_owned()), "ETCDCTL_PASSWORD"),
        (
            |c| *c = c.clone().with_user("root", "secret").with_token("t"),
            "ETCDCTL_AUTH_JWT_TOKEN",
        ),
        (|c| c.client_cert = Some("cert.pem".into()), "ETCDCTL_KEY"),
        (|c| c.prefix = Some(String::new()), "prefix is \"\""),
        (|c| c.prefix = Some("/a/".to_owned()), "prefix is \"/a/\""),
        (|c| c.confirm_interval = Duration::ZERO, "confirm_interval"),
    ];
    for (change, named) in changes {
        let mut config = Config::default();
        assert!(config.validate().is_ok());
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
