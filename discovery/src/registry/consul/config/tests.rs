use std::{ffi::OsString, time::Duration};

use super::*;

fn env(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    |name| {
        let pair = pairs.iter().find(|(key, _)| *key == name);
        pair.map(|(_, value)| value.into())
    }
}

#[test]
fn without_anything_it_is_localhost() {
    assert_eq!(Config::from_env(env(&[])).unwrap(), Config::default());
    let config = Config::from_url("consul://", env(&[("CONSUL_HTTP_ADDR", "")])).unwrap();
    assert_eq!(config.name(), "consul://localhost:8500");
}

#[test]
fn reads_addresses_as_consul_does() {
    for (value, name) in [
        ("10.0.0.1:8500", "consul://10.0.0.1:8500"),
        ("http://10.0.0.1:8500", "consul://10.0.0.1:8500"),
        ("https://consul.example/", "consuls://consul.example:443"),
        ("http://consul.example", "consul://consul.example:80"),
        ("[::1]:8501", "consul://[::1]:8501"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        (
            "https://a.example/consul/",
            "consuls://a.example:443/consul",
        ),
        ("10.0.0.1:80/a/b", "consul://10.0.0.1:80/a/b"),
    ] {
        let config = Config::from_env(|n| (n == "CONSUL_HTTP_ADDR").then(|| value.into()));
        assert_eq!(config.unwrap().name(), name);
    }
}

#[test]
fn an_explicit_address_beats_the_environment_and_keeps_the_rest() {
    let lookup = env(&[
        ("CONSUL_HTTP_ADDR", "https://elsewhere:1"),
        ("CONSUL_HTTP_TOKEN", "secret"),
    ]);
    let config = Config::from_url("consul://here:80", &lookup).unwrap();
    assert_eq!(config.name(), "consul://here:80");
    assert_eq!(config.token.as_deref(), Some("secret"));
    let config = Config::from_url("consuls://here", &lookup).unwrap();
    assert_eq!(config.name(), "consuls://here:8501");
    let config = Config::from_url("consul://", &lookup).unwrap();
    assert_eq!(config.name(), "consuls://elsewhere:1");
    let config = Config::from_url("consul://[::1]/", env(&[("CONSUL_HTTP_SSL", "true")]));
    assert_eq!(config.unwrap().name(), "consuls://[::1]:8501");
}

#[test]
fn a_url_has_a_path_and_settings() {
    let url = "consuls://proxy/consul/?dc=a,b&filter=Service.Meta.v == \"2%26\"";
    let config = Config::from_url(url, env(&[])).unwrap();
    assert_eq!(config.name(), "consuls://proxy:8501/consul");
    assert_eq!(config.datacenter.as_deref(), Some("a,b"));
    assert_eq!(config.filter.as_deref(), Some("Service.Meta.v == \"2&\""));
    assert!(!config.prepared);
    for (setting, prepared) in [
        ("prepared", true),
        ("prepared=true", true),
        ("prepared=0", false),
    ] {
        let config = Config::from_url(&format!("consul://h?{setting}"), env(&[])).unwrap();
        assert_eq!(config.prepared, prepared);
    }
    // The address of the environment keeps its path.
    let lookup = env(&[("CONSUL_HTTP_ADDR", "http://proxy:80/consul")]);
    let config = Config::from_url("consul://?dc=a", &lookup).unwrap();
    assert_eq!(config.name(), "consul://proxy:80/consul");
    let config = Config::from_url("consul://other", &lookup).unwrap();
    assert_eq!(config.name(), "consul://other:8500");
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value) in [
        ("CONSUL_HTTP_ADDR", "unix://consul.sock"),
        ("CONSUL_HTTP_ADDR", "ftp://a:1"),
        ("CONSUL_HTTP_ADDR", "a:b"),
        ("CONSUL_HTTP_SSL", "yes"),
        ("CONSUL_HTTP_SSL_VERIFY", "2"),
    ] {
        let error = Config::from_env(|n| (n == name).then(|| value.into())).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_wrong_url_is_refused_without_showing_a_password() {
    for url in [
        "consul",
        "http://localhost:8500",
        "consul://host:0",
        "consul://host:70000",
        "consul://host:port",
        "consul://:8500",
        "consul://host/a//b",
        "consul://host/..",
        "consul://a:8500,b:8500",
        "consul://host?dc=",
        "consul://host?dc=a,,b",
        "consul://host?dc=a,a",
        "consul://host?filter=",
        "consul://host?prepared=perhaps",
        "consul://host?token=a",
        "consul://a b:8500",
        "consul://user:hunter2@host:8500",
    ] {
        let error = Config::from_url(url, env(&[])).unwrap_err();
        assert!(matches!(error, RegistryError::InvalidUrl { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn never_shows_a_secret() {
    let config = Config::default()
        .with_token("hunter2")
        .with_http_auth("me:hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// A change of the settings, and what the message about it must contain.
type Refused = (fn(&mut Config), &'static str);

#[test]
fn refuses_settings_that_cannot_work() {
    let changes: [Refused; 9] = [
        (|c| c.path = "consul".to_owned(), "path"),
        (|c| c.datacenter = Some("a,".to_owned()), "datacenter"),
        (
            |c| *c = c.clone().with_filter("a == b").with_prepared(true),
            "prepared query takes no filter",
        ),
        (|c| c.address = "localhost".to_owned(), "HOST:PORT"),
        (
            |c| c.address = "unix://consul.sock".to_owned(),
            "unix:///PATH",
        ),
        (
            |c| c.client_cert = Some("cert.pem".into()),
            "CONSUL_CLIENT_KEY",
        ),
        (|c| c.wait = Duration::from_millis(999), "wait is 999ms"),
        (|c| c.wait = Duration::from_secs(601), "wait is 601s"),
        (|c| c.connect_timeout = Duration::ZERO, "connect_timeout"),
    ];
    for (change, named) in changes {
        let mut config = Config::default();
        assert!(config.validate().is_ok());
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
