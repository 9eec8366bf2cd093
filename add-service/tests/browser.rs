//! The live page in a real browser, with real services and the registry in a folder.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Browser, Signal, TrimService, add_service, eventually, trim_service};

use crate::support::{Http, LIMIT, add_alone, trim_config};

/// The key that `WebDriver` calls Enter.
const ENTER: &str = "\u{e007}";

/// Waits until a script in the page returns true.
async fn until(browser: &Browser, what: &str, condition: &str) {
    let script = format!("return Boolean({condition})");
    let look = async || match browser.run(&script).await.unwrap() {
        Value::Bool(true) => Ok(()),
        _ => Err(browser
            .run("return document.querySelector('main').innerText")
            .await),
    };
    eventually(what, LIMIT, look).await.unwrap();
}

/// The row of an instance, as an expression.
fn row(trim: &TrimService) -> String {
    format!(
        "[...document.querySelectorAll('#rows tr')].find(row => row.innerText.includes('{}'))",
        trim.id
    )
}

/// True if the row of an instance shows all of these texts.
fn shows(trim: &TrimService, texts: &[&str]) -> String {
    let row = row(trim);
    let each = texts
        .iter()
        .map(|text| format!("{row}.innerText.includes({text:?})"));
    [row.clone()]
        .into_iter()
        .chain(each)
        .collect::<Vec<_>>()
        .join(" && ")
}

/// True if an element shows this text.
fn has(element: &str, text: &str) -> String {
    format!("document.querySelector({element:?})?.innerText.includes({text:?})")
}

async fn quiet(browser: &Browser) {
    let messages = browser.console().await.unwrap();
    assert!(messages.is_empty(), "{messages:#?}");
}

#[tokio::test]
async fn the_page_shows_what_happens_to_instances_and_calls() {
    let Some(browser) = Browser::start("en").await.unwrap() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let registry = format!("embedded://{}", folder.path().display());
    let start = async |flags: &[&str]| {
        let flags = [&["--registry", registry.as_str()], flags].concat();
        trim_service(&flags).await.unwrap()
    };
    let good = start(&["--tag", "blue"]).await;
    let ejection = r#"{"consecutiveStatus": 3, "failingShare": 1, "baseTime": "60s"}"#;
    let config = trim_config(&format!(r#"{{"discovery": {{"ejection": {ejection}}}}}"#));
    let config = config.path().to_str().unwrap();
    let flags = ["--registry", &registry, "--trim-config", config];
    let mut add = add_service(&flags).await.unwrap();
    let http = Http::new(&add);
    http.until_ready(1).await;
    browser
        .open(&format!("http://{}/", add.http))
        .await
        .unwrap();
    until(
        &browser,
        "the instance",
        &shows(&good, &["Serving", "blue"]),
    )
    .await;
    until(&browser, "the connection", &has("#connection", "Live")).await;

    // One appears, and is killed.
    let mut killed = start(&[]).await;
    until(&browser, "the new instance", &shows(&killed, &["Serving"])).await;
    killed.process.signal(Signal::SIGKILL).unwrap();
    killed.process.exit(LIMIT).await.unwrap();
    until(
        &browser,
        "the killed instance is marked",
        &shows(&killed, &["Gone"]),
    )
    .await;
    let removed = has("#events", &format!("{} removed", killed.id));
    until(&browser, "its removal is an event", &removed).await;
    let announced = has("#announcements", &killed.id);
    until(&browser, "announced to a screen reader", &announced).await;

    // A faulty one is ejected, with the reason.
    let faulty = start(&["--fault", "error=unavailable,rate=1"]).await;
    until(&browser, "the faulty instance", &row(&faulty)).await;
    let reason = "Too many error statuses in a row";
    let condition = format!("return Boolean({})", shows(&faulty, &["Ejected", reason]));
    let look = async || {
        assert_eq!(http.post("/concat", r#"{"a":"x"}"#).await.status, 200);
        browser.run(&condition).await.unwrap() == true
    };
    eventually("the ejection", LIMIT, look).await.unwrap();
    let ejected = has("#events", &format!("{} ejected for", faulty.id));
    until(&browser, "the ejection is an event", &ejected).await;
    until(
        &browser,
        "the retries",
        "document.querySelector('[data-chart=retries]').innerText.match(/at most [^0]/)",
    )
    .await;

    // The box to try a call, with the keyboard alone.
    let reached = tab_through(&browser, Some("call")).await;
    assert!(
        reached.contains("a") && reached.contains("b"),
        "{reached:?}"
    );
    browser.press(ENTER).await.unwrap();
    until(&browser, "the result", &has("#result .value", "1020")).await;
    until(
        &browser,
        "who answered",
        &has("#result", &format!("{} answered", good.id)),
    )
    .await;

    // The other language.
    let choose = "const choice = document.getElementById('language'); choice.value = 'zh'; \
                  choice.dispatchEvent(new Event('change'))";
    browser.run(choose).await.unwrap();
    until(
        &browser,
        "the state in Chinese",
        &shows(&faulty, &["已剔除", "连续多次返回错误状态"]),
    )
    .await;
    until(
        &browser,
        "the headings in Chinese",
        &has("#events-heading", "事件"),
    )
    .await;
    until(
        &browser,
        "the language of the page",
        "document.documentElement.lang === 'zh-CN'",
    )
    .await;
    quiet(&browser).await;

    // The stream ends with the service, and says so.
    add.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
    until(&browser, "the end", &has("#connection", "已断开")).await;
    browser.close().await.unwrap();
}

/// Presses Tab until the button or the end of the page is reached. Returns the elements that had the focus,
/// by ID, name or address.
async fn tab_through(browser: &Browser, until: Option<&str>) -> BTreeSet<String> {
    browser
        .run("document.activeElement.blur(); window.scrollTo(0, 0); getSelection().removeAllRanges()")
        .await
        .unwrap();
    let focused = "const e = document.activeElement; \
        if (e === document.body) return null; \
        const name = e.id || e.getAttribute('href') || (e.type === 'submit' ? 'call' : e.tagName); \
        const shown = getComputedStyle(e).outlineStyle !== 'none'; \
        return shown ? name : name + ' without an outline'";
    let mut reached = BTreeSet::new();
    loop {
        browser.press_tab().await.unwrap();
        let Value::String(name) = browser.run(focused).await.unwrap() else {
            return reached;
        };
        let is_last = until == Some(&name);
        if !reached.insert(name) || is_last {
            return reached;
        }
    }
}

#[tokio::test]
async fn a_reader_of_chinese_on_a_phone_has_all_of_it_in_reach_of_the_keyboard() {
    let Some(browser) = Browser::start("zh-CN").await.unwrap() else {
        return;
    };
    let add = add_alone(&[]).await;
    browser.resize(390, 844).await.unwrap();
    browser
        .open(&format!("http://{}/", add.http))
        .await
        .unwrap();
    until(
        &browser,
        "the empty set in Chinese",
        &has("#none", "注册中心尚未应答"),
    )
    .await;
    let width = "return [document.documentElement.scrollWidth, innerWidth]";
    let width = browser.run(width).await.unwrap();
    assert_eq!(width[0], width[1], "it scrolls sideways");

    let reached = tab_through(&browser, None).await;
    let expected = [
        "#instances",
        "a",
        "b",
        "call",
        "debug/channel",
        "language",
        "method",
        "metrics",
        "readyz",
        "theme",
    ];
    let reached: Vec<_> = reached.iter().filter(|name| *name != "events").collect();
    assert_eq!(reached, expected);

    // Every control has a name, and every figure of the table a header.
    let unnamed = "return [...document.querySelectorAll('select, input, button')] \
        .filter(e => !(e.labels?.[0]?.textContent.trim() || e.textContent.trim())).map(e => e.outerHTML)";
    assert_eq!(
        browser.run(unnamed).await.unwrap(),
        Value::Array(Vec::new())
    );
    let landmarks = "return ['header', 'main', 'footer', 'nav', 'h1'] \
        .map(tag => document.querySelectorAll(tag).length)";
    let landmarks = browser.run(landmarks).await.unwrap();
    assert_eq!(landmarks, serde_json::json!([1, 1, 1, 1, 1]));
    quiet(&browser).await;
    browser.close().await.unwrap();
}

/// A static file of the folder registry: instances that are not running, in two zones.
fn unreachable_instances(folder: &Path, zones: &[(&str, u16)]) {
    let mut port = 0;
    let lists = zones.iter().map(|(zone, count)| {
        let targets = (0..*count).map(|_| {
            port += 1;
            // Nothing listens on the lowest ports of this address.
            format!("127.0.0.2:{port}")
        });
        json!({"targets": targets.collect::<Vec<_>>(), "labels": {"zone": zone}})
    });
    let service = folder.join("trim_service");
    fs::create_dir_all(&service).unwrap();
    let file = service.join("fleet.static.json");
    let json = Value::Array(lists.collect()).to_string();
    fs::write(file.with_extension("new"), json).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

/// The table, as the text of each row.
async fn rows(browser: &Browser) -> Vec<String> {
    let rows = "return [...document.querySelectorAll('#rows tr')].map(row => row.innerText)";
    serde_json::from_value(browser.run(rows).await.unwrap()).unwrap()
}

#[tokio::test]
async fn many_instances_are_grouped_by_zone_and_a_changed_policy_is_an_event() {
    let Some(browser) = Browser::start("en").await.unwrap() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    unreachable_instances(folder.path(), &[("east", 30), ("west", 20)]);
    let registry = format!("embedded://{}", folder.path().display());
    let good = trim_service(&["--registry", &registry]).await.unwrap();
    let config = folder.path().join("trim-config.json");
    fs::write(&config, "{}").unwrap();
    let config_flag = config.to_str().unwrap();
    let add = add_service(&["--registry", &registry, "--trim-config", config_flag])
        .await
        .unwrap();
    browser
        .open(&format!("http://{}/", add.http))
        .await
        .unwrap();
    let grouped = has("#more", "51 instances, grouped by zone");
    until(&browser, "the groups", &grouped).await;
    let row = |name: &str, texts: &[&str]| {
        let texts = texts
            .iter()
            .map(|text| format!("row.innerText.includes({text:?})"));
        let all: Vec<_> = texts.collect();
        format!(
            "[...document.querySelectorAll('#rows tr')].some(row => \
             row.querySelector('.id').innerText === {name:?} && {})",
            all.join(" && ")
        )
    };
    for (zone, texts) in [
        ("east", ["30 instances", "30 Unreachable"]),
        ("west", ["20 instances", "20 Unreachable"]),
        ("Without a zone, and others", ["1 instances", "1 Serving"]),
    ] {
        until(&browser, zone, &row(zone, &texts)).await;
    }
    // Three groups, and the most of those that receive no calls that are listed one by one.
    let seen = rows(&browser).await;
    assert_eq!(seen.len(), 3 + 16, "{seen:#?}");
    assert!(seen.iter().all(|row| !row.contains(&good.id)), "{seen:#?}");

    // A smaller fleet has a row for each.
    unreachable_instances(folder.path(), &[("east", 3)]);
    until(
        &browser,
        "no groups",
        "document.getElementById('more').hidden && document.querySelectorAll('#rows tr').length === 4",
    )
    .await;
    until(
        &browser,
        "the zone",
        &row("127.0.0.2:1", &["east", "Unreachable"]),
    )
    .await;
    until(&browser, "the instance", &shows(&good, &["Serving"])).await;

    fs::write(
        &config,
        r#"{"loadBalancingConfig": [{"least_request_experimental": {}}]}"#,
    )
    .unwrap();
    let changed = has("#events", "The configuration was changed");
    until(&browser, "the event", &changed).await;
    until(&browser, "the balancer", &has("#facts", "least-request")).await;
    quiet(&browser).await;
    browser.close().await.unwrap();
}
