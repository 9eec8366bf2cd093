//! Servers that fail, shown with a scripted one.

use std::time::Duration;

use discovery::watch::Receiver;
use discovery::{
    Instance,
    registry::{Check, InstanceSet, Registration, RegistryError, connect},
};
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    addresses,
    scripted::{NS, Over, Reply, SRV, Scripted, address, name, srv},
    sets::until,
    watch,
};

const NAME: &str = "_trim._tcp.x";

fn listed(port: u16) -> Reply {
    Reply::answers([srv(NAME, [1, 1, port], "a.x")]).with_additional([address("a.x", "10.0.0.1")])
}

async fn until_error(sets: &mut Receiver<InstanceSet>) -> (InstanceSet, String) {
    let set = until(sets, |set| set.error.is_some()).await;
    let error = discovery::chain(&**set.error.as_ref().unwrap());
    (set, error)
}

#[tokio::test]
async fn a_failing_server_leaves_the_last_set_with_the_reason() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let referral = ("x".to_owned(), NS, 60, name("ns.y"));
    let other_id = Reply {
        id_offset: 1,
        ..listed(80)
    };
    let other_name = Reply {
        about: Some("_b._tcp.x"),
        ..listed(80)
    };
    let silent = Reply {
        silent: true,
        ..Reply::default()
    };
    let truncated = Reply {
        truncated: true,
        ..listed(80)
    };
    let (_watch, mut sets) = watch(&server.url(NAME));
    for (failure, reason) in [
        (Reply::code(2), "SERVFAIL"),
        (Reply::code(5), "REFUSED"),
        (Reply::code(4), "NOTIMP"),
        (Reply::code(11), "RCODE11"),
        (silent, "no answer within 400ms"),
        (truncated, "truncated"),
        (other_id, "another question"),
        (other_name, "another question"),
        (Reply::default().with_authority([referral]), "referral"),
    ] {
        server.set(NAME, SRV, listed(80));
        until(&mut sets, |set| {
            addresses(set) == ["10.0.0.1:80"] && set.error.is_none()
        })
        .await;
        server.set(NAME, SRV, failure);
        let (set, error) = until_error(&mut sets).await;
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(error.contains(NAME) && error.contains("SRV"), "{error}");
        assert_eq!(addresses(&set), ["10.0.0.1:80"], "{reason}");
        assert!(set.error.unwrap().is_transient(), "{reason}");
    }
}

#[tokio::test]
async fn a_new_watch_of_a_failing_server_has_no_answer() {
    let server = Scripted::start(&[Over::Tcp]).await;
    server.set_otherwise(Reply::code(5));
    let (_watch, mut sets) = watch(&server.url(NAME));
    let (set, _) = until_error(&mut sets).await;
    assert!(set.confirmed.is_none());
    assert!(
        matches!(&*set.error.unwrap(), RegistryError::Refused { code, .. } if code == "REFUSED")
    );
}

#[tokio::test]
async fn udp_is_used_only_where_tcp_is_refused() {
    let both = Scripted::start(&[Over::Tcp, Over::Udp]).await;
    both.set(NAME, SRV, listed(80));
    let (_watch, mut sets) = watch(&both.url(NAME));
    until(&mut sets, |set| set.instances.len() == 1).await;
    assert!(both.asked().iter().all(|(_, _, over)| *over == Over::Tcp));
    // The same port over UDP alone.
    let udp = Scripted::start(&[Over::Udp]).await;
    udp.set(NAME, SRV, listed(81));
    let (_watch, mut sets) = watch(&udp.url(NAME));
    until(&mut sets, |set| addresses(set) == ["10.0.0.1:81"]).await;
    // Not the answer to the question: ignored, as a forged one is.
    let forged = Reply {
        id_offset: 1,
        ..listed(82)
    };
    udp.set(NAME, SRV, forged);
    let (set, error) = until_error(&mut sets).await;
    assert!(error.contains("no answer within"), "{error}");
    assert_eq!(addresses(&set), ["10.0.0.1:81"]);
    let truncated = Reply {
        truncated: true,
        ..listed(82)
    };
    udp.set(NAME, SRV, truncated);
    let error = |set: &InstanceSet| {
        set.error
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let set = until(&mut sets, |set| {
        error(set).contains("does not fit into UDP")
    })
    .await;
    assert_eq!(addresses(&set), ["10.0.0.1:81"]);
}

#[tokio::test]
async fn a_server_that_is_down_is_an_error_and_the_next_one_is_asked() {
    let down = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let (_watch, mut sets) = watch(&format!("dns://{down}/{NAME}?timeout=400ms"));
    let (_, error) = until_error(&mut sets).await;
    assert!(error.contains(&down.to_string()), "{error}");
    // One that accepts connections and says nothing.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = hanging
        .local_addr()
        .map(|address| (hanging, address))
        .unwrap();
    let refusing = Scripted::start(&[Over::Tcp]).await;
    refusing.set_otherwise(Reply::code(5));
    let good = Scripted::start(&[Over::Tcp]).await;
    good.set(NAME, SRV, listed(80));
    let servers = format!("{down},{},{},{}", hanging.1, refusing.address, good.address);
    let url = format!("dns://{servers}/{NAME}?timeout=400ms&min_refresh=100ms&max_refresh=100ms");
    let (_watch, mut sets) = watch(&url);
    let set = until(&mut sets, |set| set.instances.len() == 1).await;
    assert!(set.error.is_none());
    // The one that answered is asked first from then on.
    let before = refusing.asked().len();
    good.set(NAME, SRV, listed(81));
    until(&mut sets, |set| addresses(set) == ["10.0.0.1:81"]).await;
    assert_eq!(refusing.asked().len(), before);
}

#[tokio::test]
async fn the_order_of_the_records_changes_nothing() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let records = [
        srv(NAME, [1, 1, 80], "a.x"),
        // The same address twice: the greater weight counts, wherever it stands.
        srv(NAME, [1, 9, 80], "b.x"),
        srv(NAME, [1, 1, 81], "a.x"),
    ];
    let known = [address("a.x", "10.0.0.1"), address("b.x", "10.0.0.1")];
    server.set(
        NAME,
        SRV,
        Reply::answers(records.clone()).with_additional(known.clone()),
    );
    let (_watch, mut sets) = watch(&server.url(NAME));
    let first = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(first.instances[0].weight, 9);
    let reversed =
        Reply::answers(records.into_iter().rev()).with_additional(known.into_iter().rev());
    server.set(NAME, SRV, reversed);
    let asked = server.asked().len();
    crate::sets::eventually("two more refreshes", async || {
        (server.asked().len() >= asked + 2).then_some(())
    })
    .await;
    assert!(!sets.has_changed().unwrap(), "published again");
}

#[tokio::test]
async fn a_registration_is_refused_with_what_to_do() {
    let instance = Instance::new("10.0.0.1", 80).unwrap();
    let registration = Registration::new(instance, Check::ttl(Duration::from_secs(10)));
    let dns = connect("dns:///trim.x").unwrap();
    let error = dns.registration(registration).map(|_| ()).unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }));
    let error = error.to_string();
    assert!(
        error.contains("dns:///trim.x") && error.contains("DNS only lists instances"),
        "{error}"
    );
    assert!(error.contains("consul://"), "{error}");
}
