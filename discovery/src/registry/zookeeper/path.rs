//! Paths of nodes: what ZooKeeper takes as a path and as a name.

/// The path of a child of `parent`, which is `/` or has no slash at its end.
///
/// # Errors
///
/// The reason why ZooKeeper does not take `name`, to be put after the name of the setting.
pub(super) fn child(parent: &str, name: &str) -> Result<String, String> {
    check_name(name)?;
    let parent = parent.strip_suffix('/').unwrap_or(parent);
    Ok(format!("{parent}/{name}"))
}

/// Checks a base path: `/`, or `/NAME/NAME...`. A slash at its end is dropped.
pub(super) fn base(path: &str) -> Result<String, String> {
    let names = path.strip_prefix('/').ok_or("must begin with a slash")?;
    let names = names.strip_suffix('/').unwrap_or(names);
    if names.is_empty() {
        return Ok("/".to_owned());
    }
    names.split('/').try_for_each(check_name)?;
    if names.split('/').next() == Some("zookeeper") {
        return Err("is below /zookeeper, which ZooKeeper keeps for itself".to_owned());
    }
    Ok(format!("/{names}"))
}

/// The path's parents, from the root down, without the root itself.
pub(super) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .map(|(at, _)| &path[..at])
        .filter(|parent| !parent.is_empty())
}

/// `PathUtils.validatePath` in ZooKeeper's source.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("has an empty name".to_owned());
    }
    if matches!(name, "." | "..") {
        return Err(format!(
            "has the name {name:?}, which ZooKeeper does not take"
        ));
    }
    let refused = |c: char| {
        c == '/' || c.is_control() || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
    };
    match name.chars().find(|&c| refused(c)) {
        Some(c) => Err(format!("contains {c:?}, which ZooKeeper does not take")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_zookeeper_takes() {
        assert_eq!(child("/services", "trim").as_deref(), Ok("/services/trim"));
        assert_eq!(child("/", "trim").as_deref(), Ok("/trim"));
        for name in ["", ".", "..", "a/b", "a\0", "a\n", "\u{f000}", "\u{ffff}"] {
            assert!(child("/services", name).is_err(), "{name:?} was taken");
        }
        assert_eq!(base("/").as_deref(), Ok("/"));
        assert_eq!(base("/a/b/").as_deref(), Ok("/a/b"));
        for path in ["", "a", "/a//", "/a//b", "/a/../b", "/zookeeper/config"] {
            assert!(base(path).is_err(), "{path:?} was taken");
        }
    }

    #[test]
    fn parents_come_from_the_root_down() {
        let all: Vec<_> = parents("/a/b/c").collect();
        assert_eq!(all, ["/a", "/a/b"]);
        assert_eq!(parents("/a").count(), 0);
    }
}
