//! Least squares with coefficients that may not be negative, for a handful of unknowns.
//!
//! With so few, trying every set of unknowns that are not zero is exact and simple. Among sets that
//! fit equally well the one with fewer and earlier unknowns wins, so that few points give the
//! simplest model.

/// Coefficients `x ≥ 0` that minimise `Σ (row·x − target)²`.
pub fn solve<const N: usize>(rows: &[([f64; N], f64)]) -> [f64; N] {
    let mut best = [0.0; N];
    let scale: f64 = rows.iter().map(|(_, target)| target * target).sum();
    let mut best_error = scale;
    let mut sets: Vec<u32> = (1..1u32 << N).collect();
    sets.sort_by_key(|set| (set.count_ones(), *set));
    for set in sets {
        let Some(x) = unconstrained(rows, set) else { continue };
        if x.iter().any(|value| *value < 0.0) {
            continue;
        }
        let error = squared_error(rows, &x);
        if error < best_error - 1e-9 * scale {
            (best, best_error) = (x, error);
        }
    }
    best
}

fn squared_error<const N: usize>(rows: &[([f64; N], f64)], x: &[f64; N]) -> f64 {
    rows.iter()
        .map(|(row, target)| {
            let found: f64 = row.iter().zip(x).map(|(a, b)| a * b).sum();
            (found - target).powi(2)
        })
        .sum()
}

/// The normal equations for the unknowns in `set`, by elimination with pivoting.
fn unconstrained<const N: usize>(rows: &[([f64; N], f64)], set: u32) -> Option<[f64; N]> {
    let chosen: Vec<usize> = (0..N).filter(|index| set & (1 << index) != 0).collect();
    let size = chosen.len();
    let mut matrix: Vec<Vec<f64>> = chosen
        .iter()
        .map(|i| {
            let sum = |other: &[f64]| -> f64 {
                rows.iter().zip(other).map(|((row, _), other)| row[*i] * other).sum()
            };
            let column = |j: &usize| rows.iter().map(|(row, _)| row[*j]).collect::<Vec<f64>>();
            let mut line: Vec<f64> = chosen.iter().map(|j| sum(&column(j))).collect();
            line.push(sum(&rows.iter().map(|(_, target)| *target).collect::<Vec<f64>>()));
            line
        })
        .collect();
    let scales: Vec<f64> = (0..size).map(|i| matrix[i][i].max(f64::MIN_POSITIVE)).collect();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-10 * scales[column] {
            return None;
        }
        matrix.swap(column, pivot);
        let lead = matrix[column].clone();
        for (index, row) in matrix.iter_mut().enumerate() {
            if index != column {
                let factor = row[column] / lead[column];
                row.iter_mut().zip(&lead).for_each(|(value, above)| *value -= factor * above);
            }
        }
    }
    let mut x = [0.0; N];
    for (index, unknown) in chosen.into_iter().enumerate() {
        x[unknown] = matrix[index][size] / matrix[index][index];
    }
    x.iter().all(|value| value.is_finite()).then_some(x)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these are exact")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_point_is_explained_by_the_first_unknown_alone() {
        assert_eq!(solve(&[([1.0, 1.0, 1.0], 4.0)]), [4.0, 0.0, 0.0]);
        assert_eq!(solve::<2>(&[]), [0.0, 0.0]);
    }

    #[test]
    fn a_coefficient_that_wants_to_be_negative_is_zero() {
        let rows: Vec<_> = (0..5).map(|k| ([1.0, f64::from(k)], 10.0 - f64::from(k))).collect();
        let [level, slope] = solve(&rows);
        assert_eq!(slope, 0.0);
        assert!((level - 8.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn coefficients_are_found_again(x in prop::array::uniform3(0.0f64..10.0)) {
            let rows: Vec<([f64; 3], f64)> = (1..10)
                .map(|k| {
                    let row = [1.0, f64::from(k), f64::from(k * k % 7)];
                    (row, row.iter().zip(&x).map(|(a, b)| a * b).sum())
                })
                .collect();
            let found = solve(&rows);
            let scale: f64 = rows.iter().map(|(_, target)| target * target).sum();
            prop_assert!(squared_error(&rows, &found) <= 2e-9 * scale, "{:?}", found);
        }
    }
}
