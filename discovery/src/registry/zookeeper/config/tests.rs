use super::*;

fn read(url: &str) -> Config {
    Config::from_url(url).unwrap()
}

#[test]
fn a_url_without_settings_has_the_defaults_of_other_clients() {
    let defaults = Config::default();
    for url in [
        "zookeeper://",
        "zookeeper://localhost",
        "zookeeper://localhost:2181/",
    ] {
        assert_eq!(read(url), defaults, "{url}");
    }
    assert_eq!(defaults.name(), "zookeeper://localhost:2181/services");
    assert_eq!(defaults.rights(), Access::Open);
    assert_eq!(read("zookeepers://zk").servers, ["zk:2281"]);
}

#[test]
fn a_url_names_servers_credentials_path_and_settings() {
    let url = "zookeeper://me:p%3Aw@a,[::1]:2182/my/base/?layout=gokit&session_timeout=500ms";
    let config = read(url);
    assert_eq!(config.servers, ["a:2181", "[::1]:2182"]);
    assert_eq!(config.base_path, "/my/base");
    assert_eq!(config.layout, Layout::GoKit);
    assert_eq!(config.credentials.as_deref(), Some("me:p:w"));
    assert_eq!(config.session_timeout, Duration::from_millis(500));
    assert_eq!(config.rights(), Access::Creator);
    assert_eq!(
        config.name(),
        "zookeeper://a:2181,[::1]:2182/my/base?layout=gokit"
    );
    assert!(!format!("{config:?}").contains("p:w"));
    let servers = vec![("a".to_owned(), 2181), ("::1".to_owned(), 2182)];
    assert_eq!(config.validate().unwrap(), (servers, "/my/base".to_owned()));
    let open = read("zookeeper://me:pw@a?acl=others-read");
    assert_eq!(open.rights(), Access::OthersRead);
    let tls = read("zookeepers://a:1?ca=ca.pem&cert=c.pem&key=k.pem");
    assert_eq!(tls.client_key, Some("k.pem".into()));
}

#[test]
fn a_url_that_cannot_be_used_is_refused_by_name() {
    for (url, named) in [
        ("zookeeper://a?layout=json", "unknown layout \"json\""),
        (
            "zookeeper://a?session_timeout=10",
            "session_timeout is \"10\"",
        ),
        (
            "zookeeper://a?session_timeout=+1s",
            "session_timeout is \"+1s\"",
        ),
        ("zookeeper://a?session_timeout=0s", "outside 100ms to 1h"),
        ("zookeeper://a?acl=none", "unknown acl \"none\""),
        ("zookeeper://a?acl=creator", "need a user and a password"),
        ("zookeeper://me@a", "a user without a password"),
        ("zookeeper://a/b//c", "has an empty name"),
        ("zookeeper://a/zookeeper", "keeps for itself"),
        ("zookeeper://a?ca=x", "settings of zookeepers://"),
        ("zookeepers://a?cert=x", "given together"),
        ("zookeeper://a?x=y", "unknown setting \"x\""),
        ("zookeeper://a,,b", "the host is empty"),
        ("zk://a", "expected zookeeper://"),
    ] {
        let error = Config::from_url(url).unwrap_err().to_string();
        assert!(error.contains(named), "{url}: {error}");
    }
}
