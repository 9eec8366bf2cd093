//! The name in a URL, with places for what a query selects.

use super::name::{Name, check_label};
use crate::registry::Query;

const SERVICE: &str = "{service}";
const TAG: &str = "{tag}";
const DATACENTER: &str = "{datacenter}";

/// A name, or the text that becomes one with a query's service, tag and datacenter. Empty: the service is
/// the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(String);

impl Template {
    /// Checks that it becomes a name for some query.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let template = Self(text.to_owned());
        if !text.is_empty() {
            let name = template.filled("service", Some("tag"), Some("datacenter"));
            if name.contains(['{', '}']) {
                return Err(format!(
                    "the name {text:?} has an unknown placeholder; expected {SERVICE}, {TAG} or \
                     {DATACENTER}"
                ));
            }
            Name::parse(&name)?;
        }
        Ok(template)
    }

    /// The name that answers a query.
    ///
    /// # Errors
    ///
    /// When the query selects by something that the name has no place for, or lacks what it has one for.
    pub(super) fn name(&self, query: &Query) -> Result<Name, String> {
        let tag = self.one(TAG, "tag", &query.tags)?;
        let datacenter = self.one(DATACENTER, "datacenter", query.datacenter.as_slice())?;
        let service = query.service.as_str();
        let uses_service = self.0.is_empty() || self.0.contains(SERVICE);
        if uses_service && let Err(reason) = Name::parse(service) {
            return Err(format!("the service cannot be part of a name: {reason}"));
        }
        Name::parse(&self.filled(service, tag, datacenter))
    }

    /// The one value of a placeholder. None if the name has no place for it and the query does not ask.
    fn one<'a>(
        &self,
        place: &str,
        what: &str,
        wanted: &'a [String],
    ) -> Result<Option<&'a str>, String> {
        match (self.0.contains(place), wanted) {
            (false, []) => Ok(None),
            (true, [one]) => match check_label(one) {
                Ok(()) => Ok(Some(one)),
                Err(reason) => Err(format!("the {what} {one:?} {reason}")),
            },
            (true, []) => Err(format!("the name has {place}, so a {what} must be given")),
            (true, several) => Err(format!(
                "the name has a place for one {what}, and {} are given",
                several.len()
            )),
            (false, several) => Err(format!(
                "DNS does not list a {what}; leave out {}, or write {place} where the name depends on \
                 it, for example _{SERVICE}._{TAG}.service.{DATACENTER}.consul",
                several.join(", ")
            )),
        }
    }

    fn filled(&self, service: &str, tag: Option<&str>, datacenter: Option<&str>) -> String {
        if self.0.is_empty() {
            return service.to_owned();
        }
        self.0
            .replace(SERVICE, service)
            .replace(TAG, tag.unwrap_or_default())
            .replace(DATACENTER, datacenter.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(template: &str, query: &Query) -> Result<String, String> {
        let name = Template::parse(template).unwrap().name(query)?;
        Ok(name.to_string())
    }

    #[test]
    fn the_name_is_the_urls_with_its_placeholders_filled_or_the_services() {
        let query = Query::new("Trim_service");
        for (template, expected) in [
            ("_trim._tcp.example.com", "_trim._tcp.example.com"),
            ("", "trim_service"),
            ("_{service}._tcp.x", "_trim_service._tcp.x"),
        ] {
            assert_eq!(name(template, &query).unwrap(), expected);
        }
        let query = query.with_tags(["blue"]).with_datacenter("dc2");
        let consul = "_{service}._{tag}.service.{datacenter}.consul";
        assert_eq!(
            name(consul, &query).unwrap(),
            "_trim_service._blue.service.dc2.consul"
        );
        let dotted = Query::new("trim.default");
        assert_eq!(name("{service}.svc", &dotted).unwrap(), "trim.default.svc");
    }

    #[test]
    fn what_the_name_has_no_place_for_is_refused() {
        let plain = || Query::new("trim");
        for (template, query, reason) in [
            ("x.y", plain().with_tags(["blue"]), "does not list a tag"),
            (
                "",
                plain().with_datacenter("dc1"),
                "does not list a datacenter",
            ),
            ("_x._{tag}.y", plain(), "a tag must be given"),
            ("_x._{tag}.y", plain().with_tags(["a", "b"]), "2 are given"),
            ("_x._{tag}.y", plain().with_tags(["a.b"]), "'.'"),
            ("{datacenter}.y", plain().with_datacenter("a,b"), "','"),
            ("{service}.y", Query::new("a b"), "' '"),
            ("{service}.y", Query::new(""), "is empty"),
            ("", Query::new(""), "is empty"),
        ] {
            let error = name(template, &query).unwrap_err();
            assert!(error.contains(reason), "{template:?} {query:?}: {error}");
        }
        assert!(
            Template::parse("{name}.x")
                .unwrap_err()
                .contains("{service}")
        );
        assert!(Template::parse("a..x").is_err());
    }
}
