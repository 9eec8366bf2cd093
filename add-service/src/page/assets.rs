//! The page's files, part of the binary. The page loads nothing else.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use crate::failure::Failure;

/// No script, style or request but the page's own files and streams.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = include_str!("page.html");
const CSS: (&str, &str) = ("text/css; charset=utf-8", include_str!("page.css"));
const ICON: (&str, &str) = ("image/svg+xml", include_str!("icon.svg"));
const ENGLISH: (&str, &str) = ("application/json", include_str!("en.json"));
const CHINESE: (&str, &str) = ("application/json", include_str!("zh.json"));
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The file with this name: its type and its text.
fn file(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "page.css" => CSS,
        "page.js" => (JAVASCRIPT, include_str!("page.js")),
        "flow.js" => (JAVASCRIPT, include_str!("flow.js")),
        "instances.js" => (JAVASCRIPT, include_str!("instances.js")),
        "charts.js" => (JAVASCRIPT, include_str!("charts.js")),
        "try.js" => (JAVASCRIPT, include_str!("try.js")),
        "text.js" => (JAVASCRIPT, include_str!("text.js")),
        "icon.svg" => ICON,
        "en.json" => ENGLISH,
        "zh.json" => CHINESE,
        _ => return None,
    })
}

pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ];
    (headers, HTML).into_response()
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match file(&name) {
        Some((content_type, text)) => {
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        None => Failure::new(StatusCode::NOT_FOUND, "no such file").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const SCRIPTS: [&str; 6] = [
        "page.js",
        "flow.js",
        "instances.js",
        "charts.js",
        "try.js",
        "text.js",
    ];

    fn texts((_, json): (&str, &str)) -> BTreeMap<String, String> {
        serde_json::from_str(json).unwrap()
    }

    /// The names in braces.
    fn placeholders(text: &str) -> BTreeSet<&str> {
        let parts = text.split('{').skip(1);
        parts.filter_map(|part| part.split('}').next()).collect()
    }

    /// The parts of a text between `begin` and `end`.
    fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
        let parts = text.split(begin).skip(1);
        parts.filter_map(|part| part.split(end).next()).collect()
    }

    #[test]
    fn both_languages_have_the_same_texts_and_none_is_empty() {
        let (english, chinese) = (texts(ENGLISH), texts(CHINESE));
        let keys = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&english), keys(&chinese));
        for (key, text) in &english {
            let other = &chinese[key];
            assert!(!text.is_empty() && !other.is_empty(), "{key}");
            assert_eq!(placeholders(text), placeholders(other), "{key}");
        }
    }

    #[test]
    fn every_text_that_the_page_names_is_there_and_every_text_is_used() {
        let english = texts(ENGLISH);
        let mut used = BTreeSet::new();
        for attribute in ["data-text=\"", "data-label=\"", "data-placeholder=\""] {
            used.extend(between(HTML, attribute, "\""));
        }
        for script in SCRIPTS {
            let (_, source) = file(script).unwrap();
            for (at, _) in source.match_indices("t(\"") {
                let is_call = !source[..at].ends_with(char::is_alphanumeric);
                let key = source[at + 3..].split('"').next();
                used.extend(key.filter(|_| is_call));
            }
        }
        for key in &used {
            assert!(english.contains_key(*key), "no text for {key:?}");
        }
        for key in english.keys() {
            // Built from a state, an event or a reason.
            let built = ["state.", "event.", "reason.", "phase.", "withdrawal."];
            let is_built = built.iter().any(|begin| key.starts_with(begin));
            assert!(
                is_built || used.contains(key.as_str()),
                "{key:?} is not used"
            );
        }
    }

    #[test]
    fn the_page_has_nothing_inline_and_loads_nothing_from_elsewhere() {
        assert!(!HTML.contains(" style="), "a style attribute");
        assert!(!HTML.contains("<style"), "a style element");
        for tag in between(HTML, "<", ">") {
            let mut attributes = tag.split_whitespace().skip(1);
            assert!(!attributes.any(|name| name.starts_with("on")), "{tag}");
        }
        for script in between(HTML, "<script", ">") {
            assert!(script.contains(" src=\""), "{script}");
        }
        let mut sources: Vec<_> = SCRIPTS.iter().map(|name| file(name).unwrap().1).collect();
        sources.extend([HTML, CSS.1]);
        for source in sources {
            let others = source.replace("http://www.w3.org/2000/svg", "");
            assert!(!others.contains("://"), "an address of another site");
            assert!(!source.contains("innerHTML") && !source.contains("eval("));
        }
    }
}
