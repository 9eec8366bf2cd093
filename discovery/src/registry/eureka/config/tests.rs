use super::*;

fn read(url: &str) -> Config {
    Config::from_url(url, |_| None).unwrap()
}

fn with_variable(url: &str, value: &'static str) -> Result<Config, RegistryError> {
    Config::from_url(url, |name| {
        (name == "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE").then(|| value.into())
    })
}

#[test]
fn a_url_without_settings_has_the_defaults_of_spring_cloud() {
    let defaults = Config::default();
    for url in [
        "eureka://",
        "eureka://localhost",
        "eureka://localhost/",
        "eureka://localhost:8761/eureka",
        "eureka://localhost:8761/eureka/",
    ] {
        assert_eq!(read(url), defaults, "{url}");
    }
    assert_eq!(defaults.name(), "eureka://localhost:8761/eureka");
}

#[test]
fn a_url_names_peers_credentials_path_and_settings() {
    let url = "eureka://me:p%3Aw@a,[::1]:8762/my/eureka/v2/?vip=true&interval=500ms&lease=10s";
    let config = read(url);
    assert_eq!(config.servers, ["a:8761", "[::1]:8762"]);
    assert_eq!(config.base_path, "/my/eureka/v2");
    assert_eq!(config.user.as_deref(), Some("me"));
    assert_eq!(config.password.as_deref(), Some("p:w"));
    assert!(config.vip);
    assert_eq!(config.interval, Duration::from_millis(500));
    assert_eq!(config.lease, Duration::from_secs(10));
    let name = "eureka://a:8761,[::1]:8762/my/eureka/v2?vip=true";
    assert_eq!(config.name(), name);
    assert!(!format!("{config:?}").contains("p:w"));
    assert!(!read("eureka://a?vip=false").vip);
    assert!(read("eureka://a?vip").vip);
}

#[test]
fn the_path_stands_after_the_last_server_or_after_each() {
    for url in [
        "eureka://a,b:2/x",
        "eureka://a/x,b:2",
        "eureka://a/x,b:2/x/",
    ] {
        let config = read(url);
        assert_eq!(config.servers, ["a:8761", "b:2"], "{url}");
        assert_eq!(config.base_path, "/x", "{url}");
    }
}

#[test]
fn a_url_without_a_host_takes_the_variable_of_spring_clouds_clients() {
    let list = "http://me:pw@a:8761/eureka/, http://me:pw@b/eureka/";
    let config = with_variable("eureka://?vip", list).unwrap();
    assert_eq!(config.name(), "eureka://a:8761,b:80/eureka?vip=true");
    assert_eq!(config.password.as_deref(), Some("pw"));
    let config = with_variable("eureka://", "https://a/").unwrap();
    assert_eq!(config.name(), "eurekas://a:443");
    let config = with_variable("eureka://other", list).unwrap();
    assert_eq!(config.name(), "eureka://other:8761/eureka");
    assert_eq!(config.user, None);
    assert_eq!(with_variable("eureka://", "").unwrap(), Config::default());
    for (value, reason) in [
        ("a:8761", "expected SCHEME://"),
        ("ftp://a", "expected http://HOST:PORT/eureka/"),
        ("http://a:1/x,http://b:1/y", "all servers have the same"),
        ("http://a:1/,https://b:1/", "all servers have the same"),
        ("http://a:0/", "a:0"),
    ] {
        let error = with_variable("eureka://", value).unwrap_err().to_string();
        assert!(error.contains("DEFAULTZONE"), "{value}: {error}");
        assert!(error.contains(reason), "{value}: {error}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn https_takes_an_authority_and_a_client_certificate() {
    let config = read("eurekas://a:1?ca=ca.pem&cert=c.pem&key=k.pem");
    assert!(config.tls);
    assert_eq!(config.name(), "eurekas://a:1/eureka");
    assert_eq!(config.ca_file, Some("ca.pem".into()));
    assert_eq!(config.client_key, Some("k.pem".into()));
}

#[test]
fn a_url_that_cannot_be_used_is_refused_without_showing_a_password() {
    for (url, named) in [
        ("eurek://a", "expected eureka://HOST:PORT"),
        ("eureka:///eureka", "the host is missing"),
        ("eureka://me:hunter2@", "the host is missing"),
        ("eureka://me@a", "a user without a password"),
        ("eureka://a:0", "a:0"),
        ("eureka://a:70000", "a:70000"),
        ("eureka://a,,b", "the host is empty"),
        ("eureka://a/x,b/y", "all servers have the same path"),
        ("eureka://a//x", "has a part that is empty"),
        ("eureka://a/../x", "has a part that is empty"),
        ("eureka://a?vip=perhaps", "vip is \"perhaps\""),
        ("eureka://a?interval=2", "interval is \"2\""),
        ("eureka://a?interval=10ms", "interval is 10ms"),
        ("eureka://a?interval=601s", "interval is 601s"),
        ("eureka://a?lease=1s", "lease is 1s"),
        ("eureka://a?lease=99999999s", "expected 2s to 24h"),
        ("eureka://a?lease=-1s", "lease is \"-1s\""),
        ("eureka://a?ca=x", "settings of eurekas://"),
        ("eureka://a?layout=x", "unknown setting \"layout\""),
        ("eurekas://a?cert=x", "given together"),
        ("eureka://me:hunter2@a:b", "a:b"),
        ("eureka://m%3Ae:hunter2@a", "contains a colon"),
    ] {
        let error = Config::from_url(url, |_| None).unwrap_err();
        assert!(matches!(error, RegistryError::InvalidUrl { .. }), "{error}");
        assert!(error.to_string().contains(named), "{url}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn refuses_settings_that_cannot_work() {
    let change: [fn(&mut Config); 7] = [
        |c| c.servers.clear(),
        |c| c.servers.push("a".to_owned()),
        |c| c.base_path = "eureka".to_owned(),
        |c| c.user = Some("me".to_owned()),
        |c| c.client_key = Some("key.pem".into()),
        |c| c.connect_timeout = Duration::ZERO,
        |c| c.request_timeout = Duration::ZERO,
    ];
    for change in change {
        let mut config = Config::default();
        assert!(config.validate().is_ok());
        change(&mut config);
        assert!(config.validate().is_err(), "{config:?}");
    }
    assert!(Config::default().with_base_path("").validate().is_ok());
}
