use super::*;

fn read(url: &str) -> Config {
    Config::from_url(url).unwrap()
}

#[test]
fn the_forms_of_a_url_are_read() {
    let srv =
        read("dns://127.0.0.1:8600,[::1]/_trim._tcp.x?min_refresh=2s&max_refresh=5s&timeout=500ms");
    assert_eq!(srv.resolvers, ["127.0.0.1:8600", "[::1]:53"]);
    assert_eq!(
        (srv.name.as_str(), srv.records),
        ("_trim._tcp.x", Records::Srv)
    );
    assert_eq!(
        [srv.min_refresh, srv.max_refresh, srv.timeout],
        [2000, 5000, 500].map(Duration::from_millis)
    );
    let system = read("dns:///trim.example.com");
    assert_eq!(system, Config::srv("trim.example.com"));
    assert_eq!(
        read("dns://consul:8600"),
        Config::srv("").with_resolvers(["consul:8600"])
    );
    let headless = Config::addresses("trim.default.svc", 8975);
    for url in [
        "dns+a://trim.default.svc:8975",
        "dns+a:///trim.default.svc:8975",
    ] {
        assert_eq!(read(url), headless);
    }
    assert_eq!(
        read("dns+a://10.0.0.2/{service}.svc:80"),
        Config::addresses("{service}.svc", 80).with_resolvers(["10.0.0.2:53"])
    );
}

#[test]
fn the_name_of_a_registry_is_its_url() {
    for url in [
        "dns://127.0.0.1:8600/_trim._tcp.x",
        "dns:///_trim._tcp.x",
        "dns://127.0.0.1:53",
        "dns+a:///trim.x:80",
        "dns+a://127.0.0.1:53/trim.x:80",
    ] {
        assert_eq!(read(url).url(), url);
        assert_eq!(read(&read(url).url()), read(url));
    }
}

#[test]
fn a_url_that_cannot_be_used_is_refused_with_the_reason() {
    for (url, reason) in [
        ("dns://trim.example.com", "dns:///NAME"),
        ("dns://", "has no name"),
        ("dns:///", "has no name"),
        ("dns://me:hunter2@h:53/x.y", "no user and password"),
        ("dns://h:0/x.y", "port 0"),
        ("dns:///x.y:80", "dns+a://"),
        ("dns:///x..y", "an empty part"),
        ("dns:///{name}.y", "unknown placeholder"),
        ("dns:///x.y?ttl=1s", "unknown setting \"ttl\""),
        ("dns:///x.y?timeout=1", "timeout is \"1\""),
        ("dns:///x.y?min_refresh=1ms", "min_refresh is 1ms"),
        ("dns:///x.y?max_refresh=2h", "max_refresh"),
        (
            "dns:///x.y?min_refresh=5s&max_refresh=2s",
            "less than min_refresh",
        ),
        ("dns+a://", "NAME:PORT"),
        ("dns+a://trim.x", "NAME:PORT"),
        ("dns+a://trim.x:+80", "NAME:PORT"),
        ("dns+a://trim.x:70000", "NAME:PORT"),
        ("dns+a://trim.x:0", "port 0"),
        ("dns+a://:80", "name is empty"),
        ("dns+a:///10.0.0.1:80", "use static://10.0.0.1:80"),
    ] {
        let error = Config::from_url(url).unwrap_err().to_string();
        assert!(error.contains(reason), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert!(Config::srv("x.y").with_resolvers(["h"]).validate().is_err());
}
