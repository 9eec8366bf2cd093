//! The embedded registry: folders on a real file system, and real processes that die.

#![cfg(all(feature = "embedded", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use discovery::watch::Receiver;
use discovery::{
    Instance, Registrar, RegistrationState,
    registry::{
        Check, InstanceSet, Instancer, Query, Registration, Registry, RegistryError, connect,
        embedded::Embedded,
    },
};
use tempfile::TempDir;
use testkit::{Signal, TrimService, eventually, trim_service};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(60);

struct Watched {
    /// Keeps the watch running.
    _instancer: Arc<dyn Instancer>,
    sets: Receiver<InstanceSet>,
}

impl Watched {
    fn of(registry: &Embedded, query: &Query) -> Self {
        let instancer = registry.instancer(query).unwrap();
        Self {
            sets: instancer.watch(),
            _instancer: instancer,
        }
    }

    fn start(folder: &Path) -> Self {
        Self::of(&Embedded::new(folder), &Query::new("trim_service"))
    }

    fn ids(&self) -> BTreeSet<String> {
        let set = self.sets.borrow();
        set.instances.iter().map(|i| i.id.clone()).collect()
    }

    /// Waits until these IDs are listed, and no others.
    async fn until<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        let wanted: BTreeSet<_> = ids.into_iter().map(str::to_owned).collect();
        let seen = async || match self.ids() {
            ids if ids == wanted && self.sets.borrow().confirmed.is_some() => Ok(()),
            other => Err(other),
        };
        eventually("the listed instances", LIMIT, seen)
            .await
            .unwrap();
    }
}

fn instance(port: u16) -> Instance {
    Instance::named("trim_service", [127, 0, 0, 1].into(), port).unwrap()
}

fn registrar(folder: &Path, instance: Instance) -> Registrar {
    let registration = Registration::new(instance, Check::Default);
    let client = Embedded::new(folder).registration(registration).unwrap();
    Registrar::start(client).unwrap()
}

async fn registered(folder: &Path, instance: Instance) -> Registrar {
    let registrar = registrar(folder, instance);
    let mut state = registrar.state();
    state
        .wait_for(RegistrationState::is_registered)
        .await
        .unwrap();
    drop(state);
    registrar
}

fn files(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("trim_service")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.collect()
}

async fn service(folder: &Path) -> TrimService {
    let url = format!("embedded://{}", folder.display());
    trim_service(&["--registry", &url, "--ip", "127.0.0.1", "--drain", "200ms"])
        .await
        .unwrap()
}

#[tokio::test]
async fn an_instance_is_listed_with_all_its_fields_until_it_is_deregistered() {
    let folder = TempDir::new().unwrap();
    let mut watched = Watched::start(folder.path());
    watched.until([]).await;
    let full = instance(8975)
        .with_tags(["blue"])
        .with_meta([("version", "2")])
        .with_weight(7)
        .with_zone("a")
        .with_datacenter("dc1");
    let registrar = registered(folder.path(), full.clone()).await;
    watched.until([full.id.as_str()]).await;
    assert_eq!(*watched.sets.borrow().instances[0], full);
    registrar.deregister(LIMIT).await.unwrap();
    watched.until([]).await;
    assert!(files(folder.path()).is_empty());
}

#[tokio::test]
async fn a_killed_process_is_gone_and_a_stopped_one_stays() {
    let folder = TempDir::new().unwrap();
    let mut watched = Watched::start(folder.path());
    let stopped = service(folder.path()).await;
    let killed = service(folder.path()).await;
    watched.until([stopped.id.as_str(), &killed.id]).await;
    stopped.process.signal(Signal::SIGSTOP).unwrap();
    killed.process.signal(Signal::SIGKILL).unwrap();
    watched.until([stopped.id.as_str()]).await;
    // The dead process's file is removed.
    assert_eq!(files(folder.path()).len(), 1);
    stopped.process.signal(Signal::SIGCONT).unwrap();
    stopped.process.signal(Signal::SIGTERM).unwrap();
    watched.until([]).await;
}

#[tokio::test]
async fn twenty_processes_that_start_at_once_are_all_listed() {
    let folder = TempDir::new().unwrap();
    let mut starting = JoinSet::new();
    for _ in 0..20 {
        let folder = folder.path().to_owned();
        starting.spawn(async move { service(&folder).await });
    }
    let services = starting.join_all().await;
    let mut watched = Watched::start(folder.path());
    watched.until(services.iter().map(|s| s.id.as_str())).await;
    for service in &services {
        service.process.signal(Signal::SIGTERM).unwrap();
    }
    watched.until([]).await;
}

#[tokio::test]
async fn a_removed_file_or_folder_is_registered_again() {
    let folder = TempDir::new().unwrap();
    let mut watched = Watched::start(folder.path());
    let id = instance(8975).id;
    let _registrar = registered(folder.path(), instance(8975)).await;
    watched.until([id.as_str()]).await;
    fs::remove_file(folder.path().join(format!("trim_service/{id}.json"))).unwrap();
    let back = async || files(folder.path()) == [format!("{id}.json")];
    eventually("the file", LIMIT, back).await.unwrap();
    watched.until([id.as_str()]).await;
    fs::remove_dir_all(folder.path().join("trim_service")).unwrap();
    let back = async || {
        folder
            .path()
            .join(format!("trim_service/{id}.json"))
            .exists()
    };
    eventually("the folder", LIMIT, back).await.unwrap();
    watched.until([id.as_str()]).await;
    let _second = registered(folder.path(), instance(8976)).await;
    watched.until([id.as_str(), &instance(8976).id]).await;
}

#[tokio::test]
async fn an_id_belongs_to_one_live_process() {
    let folder = TempDir::new().unwrap();
    let first = registered(folder.path(), instance(8975)).await;
    let second = Embedded::new(folder.path())
        .registration(Registration::new(instance(8975), Check::Default))
        .unwrap();
    let error = second.register().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Overwritten { .. }),
        "{error}"
    );
    // It is not the second's to remove.
    second.deregister().await.unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    first.deregister(LIMIT).await.unwrap();
    second.register().await.unwrap();
}

#[tokio::test]
async fn unusable_files_hide_no_instance() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().join("trim_service");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("leftover.json"), r#"{"host": "h", "port": 1}"#).unwrap();
    fs::write(place.join("README"), "not an entry").unwrap();
    fs::create_dir(place.join("folder.json")).unwrap();
    fs::write(place.join("broken.static.json"), "[{").unwrap();
    let list = r#"[{"targets": ["10.0.0.1:8975", "10.0.0.2:0"], "labels": {"zone": "a"}}]"#;
    fs::write(place.join("hosts.static.json"), list).unwrap();
    // A live process's file with a bad entry.
    let bad = fs::File::create(place.join("bad.json")).unwrap();
    bad.lock().unwrap();
    let id = instance(8975).id;
    let _registrar = registered(folder.path(), instance(8975)).await;
    let mut watched = Watched::start(folder.path());
    watched.until([id.as_str(), "10.0.0.1:8975"]).await;
    assert!(!place.join("leftover.json").exists());
    fs::remove_file(place.join("hosts.static.json")).unwrap();
    watched.until([id.as_str()]).await;
}

#[tokio::test]
async fn tags_and_datacenter_select() {
    let folder = TempDir::new().unwrap();
    let blue = instance(1).with_tags(["Blue"]).with_datacenter("dc1");
    let _blue = registered(folder.path(), blue.clone()).await;
    let _plain = registered(folder.path(), instance(2)).await;
    let query = Query::new("trim_service");
    for query in [
        query.clone().with_tags(["blue"]),
        query.clone().with_datacenter("dc1"),
    ] {
        let mut watched = Watched::of(&Embedded::new(folder.path()), &query);
        watched.until([blue.id.as_str()]).await;
    }
}

#[tokio::test]
async fn a_thousand_instances_are_listed() {
    let folder = TempDir::new().unwrap();
    let mut registering = JoinSet::new();
    for port in 1..=1_000 {
        let folder = folder.path().to_owned();
        registering.spawn(async move {
            let registration = Registration::new(instance(port), Check::Default);
            let client = Embedded::new(folder).registration(registration).unwrap();
            client.register().await.unwrap();
            client
        });
    }
    let clients = registering.join_all().await;
    let mut watched = Watched::start(folder.path());
    watched
        .until(clients.iter().map(|client| client.id()))
        .await;
    drop(clients);
    watched.until([]).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_and_later_a_set() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().join("services");
    fs::write(&place, "a file").unwrap();
    let watched = Watched::start(&place);
    let error = async || watched.sets.borrow().error.is_some();
    eventually("the error", LIMIT, error).await.unwrap();
    assert!(watched.sets.borrow().confirmed.is_none());
    fs::remove_file(&place).unwrap();
    let mut watched = watched;
    watched.until([]).await;
    assert!(watched.sets.borrow().error.is_none());
}

#[tokio::test]
async fn a_url_names_the_folder() {
    assert_eq!(
        connect("embedded:///a/b").unwrap().name(),
        "embedded:///a/b"
    );
    let refused = |url: &str| connect(url).map(|_| ()).unwrap_err().to_string();
    assert!(refused("embedded://me@/a").contains("no user"));
    assert!(refused("embedded:///a?x=1").contains("unknown setting \"x\""));
    let registry = Embedded::new("/nowhere");
    let grpc = Registration::new(instance(1), Check::grpc());
    let error = registry.registration(grpc).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("gRPC check"), "{error}");
}
