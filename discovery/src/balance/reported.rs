//! The weights that follow from load reports, beside those of the registry.

use std::sync::Arc;

use super::weight::weight;
use crate::endpoint::Endpoint;

/// The greatest weight.
const MAX: f64 = 65_535.0;
/// A weight is at most this many times the mean, and at least the second part of it: a report that is far
/// off must not starve an endpoint, or all others (as in gRPC's static stride scheduler).
const RANGE: (f64, f64) = (0.01, 10.0);

/// The weights of the candidates. Those of the registry, if fewer than two endpoints have a weight from
/// their reports (gRFC A58).
pub(super) fn weights(candidates: &[Arc<Endpoint>]) -> Vec<u32> {
    let registered: Vec<u32> = candidates.iter().map(|e| weight(e)).collect();
    let reported: Vec<Option<f64>> = candidates
        .iter()
        .map(|e| e.stats().reported_weight())
        .collect();
    combine(registered, &reported)
}

/// An endpoint without a report has the registry's weight, relative to those of the others.
fn combine(registered: Vec<u32>, reported: &[Option<f64>]) -> Vec<u32> {
    let both = || registered.iter().zip(reported);
    let known = || both().filter_map(|(weight, reported)| Some((f64::from(*weight), (*reported)?)));
    if known().count() < 2 {
        return registered;
    }
    let (weights, reports) = known().fold((0.0, 0.0), |(weights, reports), (weight, report)| {
        (weights + weight, reports + report)
    });
    let scale = reports / weights;
    let all: Vec<f64> = both()
        .map(|(weight, reported)| reported.unwrap_or(f64::from(*weight) * scale))
        .collect();
    #[allow(clippy::cast_precision_loss, reason = "far fewer endpoints than 2^52")]
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let limit = |weight: f64| weight.clamp(mean * RANGE.0, mean * RANGE.1);
    let greatest = all.iter().copied().map(limit).fold(0.0, f64::max);
    let rounded = |weight: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1 to the greatest weight"
        )]
        let weight = (limit(weight) / greatest * MAX).round().clamp(1.0, MAX) as u32;
        weight
    };
    all.into_iter().map(rounded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_replace_the_registrys_weights_from_the_second_on() {
        for (registered, reported, expected) in [
            (vec![1, 2, 3], vec![None, None, None], vec![1, 2, 3]),
            (vec![1, 2, 3], vec![Some(9.0), None, None], vec![1, 2, 3]),
            (
                vec![7, 1, 1],
                vec![Some(40.0), Some(20.0), Some(10.0)],
                vec![65_535, 32_768, 16_384],
            ),
            // As much as the mean of the others.
            (
                vec![1, 1, 1],
                vec![Some(10.0), Some(30.0), None],
                vec![21_845, 65_535, 43_690],
            ),
            // Twice as much as one of the others.
            (
                vec![1, 1, 2],
                vec![Some(10.0), Some(10.0), None],
                vec![32_768, 32_768, 65_535],
            ),
        ] {
            assert_eq!(combine(registered, &reported), expected, "{reported:?}");
        }
    }

    #[test]
    fn a_report_that_is_far_off_starves_no_endpoint() {
        let mut reported = vec![Some(1.0); 100];
        reported[0] = Some(1e12);
        reported[1] = Some(1e-12);
        let weights = combine(vec![1; 100], &reported);
        assert_eq!(weights[0], 65_535);
        assert!(
            weights[1..].iter().all(|weight| *weight >= 60),
            "{weights:?}"
        );
    }
}
