//! The power of two choices, used by the policies that compare loads.
//!
//! Two endpoints are drawn at random and the better one is taken. This keeps the load of the most
//! loaded of `n` endpoints within `log log n` of the average (Mitzenmacher 1996). The cost does not
//! depend on `n`. A choice of the best of all would send all clients to the same endpoint at the same
//! time.
//!
//! The first endpoint is drawn by weight, the second uniformly from the others. The first is taken if
//! neither is better, so that the shares are the weights if there is no load.

use std::sync::Arc;

use super::{
    context::{Context, Half},
    weight::weight,
};
use crate::endpoint::{Endpoint, Stats};

/// Draws pairs from one set.
pub(super) struct Pairs {
    /// The statistics of the candidates, kept here to save an indirection through the endpoint.
    stats: Vec<Arc<Stats>>,
    /// `None` if all weights are equal.
    weights: Option<Weights>,
}

impl Pairs {
    pub(super) fn of(candidates: &[Arc<Endpoint>]) -> Self {
        let weights: Vec<u32> = candidates.iter().map(|e| weight(e)).collect();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            stats: candidates.iter().map(|e| e.shared_stats()).collect(),
            weights: (!equal).then(|| Weights::new(&weights)),
        }
    }

    /// Two different indexes below `count`, the first drawn by weight. Both are 0 if `count` is 1.
    pub(super) fn draw(&self, count: usize, context: &Context) -> (usize, usize) {
        let first = match &self.weights {
            None => context.below(count, Half::Lower),
            Some(weights) => weights.draw(context.further(0)),
        };
        let other = context.below(count - 1, Half::Upper);
        let second = if other >= first { other + 1 } else { other };
        (first, second.min(count - 1))
    }

    pub(super) fn stats(&self, index: usize) -> &Stats {
        &self.stats[index]
    }

    /// The weight of an endpoint relative to the average.
    pub(super) fn relative(&self, index: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w.relative[index])
    }
}

/// Draws indexes by weight in constant time (Vose's alias method, with integers).
struct Weights {
    relative: Vec<f64>,
    columns: Vec<Column>,
    total: u64,
}

/// One of the columns of the alias table. Of its `total` parts, `own` belong to the column's index and
/// the others to `other`.
#[derive(Clone, Copy)]
struct Column {
    own: u64,
    other: usize,
}

impl Weights {
    fn new(weights: &[u32]) -> Self {
        let count = weights.len() as u64;
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        // Each column has as many parts as the sum of the weights. Index `i` has `weight * count`
        // parts to distribute.
        let mut columns: Vec<Column> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Column {
                own: u64::from(*weight) * count,
                other: index,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..columns.len()).partition(|index| columns[*index].own < total);
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            columns[low].other = high;
            columns[high].own -= total - columns[low].own;
            if columns[high].own < total {
                large.pop();
                small.push(high);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "sums of weights are below 2^52")]
        let mean = total as f64 / count as f64;
        Self {
            relative: weights.iter().map(|w| f64::from(*w) / mean).collect(),
            columns,
            total,
        }
    }

    fn draw(&self, word: u64) -> usize {
        let scale = |bits: u64, bound: u64| (bits * bound) >> 32;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "below the number of columns"
        )]
        let index = scale(word >> 32, self.columns.len() as u64) as usize;
        let column = self.columns[index];
        if scale(word & 0xffff_ffff, self.total) < column.own {
            index
        } else {
            column.other
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::testing::{self, endpoints, weighted};

    #[test]
    fn draws_all_pairs_equally_often() {
        let set = endpoints(4);
        let pairs = Pairs::of(&set);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = [[0_u32; 4]; 4];
        for _ in 0..12_000 {
            let (first, second) = pairs.draw(4, &testing::context(&mut rng));
            counts[first][second] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, count) in row.iter().enumerate() {
                let expected = if first == second { 0..1 } else { 850..1_150 };
                assert!(expected.contains(count), "{first}, {second}: {count}");
            }
        }
    }

    proptest! {
        /// Each index has exactly its weight's share of the parts of all columns.
        #[test]
        fn columns_hold_the_weights_exactly(
            weights in prop::collection::vec(1_u32..=65_535, 1..300),
            seed: u64,
        ) {
            let table = Weights::new(&weights);
            let mut parts = vec![0; weights.len()];
            for (index, column) in table.columns.iter().enumerate() {
                prop_assert!(column.own <= table.total);
                parts[index] += column.own;
                parts[column.other] += table.total - column.own;
            }
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert_eq!(*part, u64::from(*weight) * weights.len() as u64);
            }
            let set = weighted(&weights);
            let mut rng = fastrand::Rng::with_seed(seed);
            let pairs = Pairs::of(&set);
            for _ in 0..50 {
                let (first, second) = pairs.draw(set.len(), &testing::context(&mut rng));
                prop_assert!(first < set.len() && second < set.len());
                prop_assert!(first != second || set.len() == 1);
            }
        }
    }
}
