//! A list of datacenters.

/// The names in a list that is separated by commas.
pub(in super::super) fn datacenters(list: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for name in list.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(format!("a datacenter in {list:?} is empty"));
        }
        if names.iter().any(|known| known == name) {
            return Err(format!("the datacenter {name} stands twice in {list:?}"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}
