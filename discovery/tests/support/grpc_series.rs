//! The metrics of gRPC's own names, as a scrape has them.

use discovery::metrics::grpc_text;

/// The value of the series of a target with these labels; 0 if there is none.
pub(crate) fn value(service: &str, name: &str, labels: &[&str]) -> f64 {
    let text = grpc_text();
    let target = format!("/{service}\"");
    let mut lines = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{'))
            && line.contains(&target)
            && labels.iter().all(|label| line.contains(label))
    });
    let value = lines.next().map_or(0.0, |line| {
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    });
    assert_eq!(lines.next(), None, "more labels are needed");
    value
}

/// A count, which is exact.
pub(crate) fn count(service: &str, name: &str, labels: &[&str]) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = value(service, name, labels) as u64;
    count
}
