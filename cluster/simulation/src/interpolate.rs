//! Piecewise-linear interpolation over scattered points, exactly as over their Delaunay
//! triangulation, without building it.
//!
//! The Delaunay triangulation is the lower hull of the points lifted to the paraboloid `|x|²`.
//! So the weights of the simplex around `x` are the answer of a small linear programme: minimise
//! `Σ λi·|xi|²` with `Σ λi = 1`, `Σ λi·xi = x`, `λ ≥ 0`. It has four rows, and a simplex method
//! over a basis of four columns ends after a few pivots.

const ROWS: usize = 4;
/// Pivots after which the smallest index is taken, so that no cycle lasts; and after which the
/// search ends.
const FREE_PIVOTS: usize = 500;
const MOST_PIVOTS: usize = 5_000;

/// The points that `x` lies between and their weights; `None` where it lies outside of the hull.
pub(crate) fn weights(points: &[[f64; 3]], x: [f64; 3]) -> Option<Vec<(usize, f64)>> {
    // Moved so that x is the origin: the costs differ by a constant, and nothing cancels. Each
    // axis' row is divided by its extent, which changes no solution.
    let extent: [f64; 3] = std::array::from_fn(|axis| {
        points.iter().map(|point| (point[axis] - x[axis]).abs()).fold(1e-12, f64::max)
    });
    let column = |index: usize| -> [f64; ROWS] {
        let axis = |axis: usize| (points[index][axis] - x[axis]) / extent[axis];
        [axis(0), axis(1), axis(2), 1.0]
    };
    let lifted =
        |index: usize| -> f64 { (0..3).map(|axis| (points[index][axis] - x[axis]).powi(2)).sum() };
    let costs: Vec<f64> = (0..points.len()).map(lifted).collect();
    let scale = costs.iter().copied().fold(1.0, f64::max);
    let dear = scale * 1e5;
    let count = points.len();
    // Four artificial columns, dear ones, make the first basis.
    let mut basis: [usize; ROWS] = std::array::from_fn(|row| count + row);
    let mut inverse = [[0.0; ROWS]; ROWS];
    for (row, line) in inverse.iter_mut().enumerate() {
        line[row] = 1.0;
    }
    let mut values = [0.0, 0.0, 0.0, 1.0];
    let cost = |index: usize| if index < count { costs[index] } else { dear };
    for pivot in 0..MOST_PIVOTS {
        let prices: [f64; ROWS] =
            std::array::from_fn(|row| (0..ROWS).map(|k| cost(basis[k]) * inverse[k][row]).sum());
        let mut entering: Option<(usize, f64)> = None;
        for (index, own) in costs.iter().enumerate() {
            let column = column(index);
            let reduced = own - (0..ROWS).map(|row| prices[row] * column[row]).sum::<f64>();
            if reduced < -1e-9 * scale && entering.is_none_or(|(_, best)| reduced < best) {
                entering = Some((index, reduced));
                if pivot > FREE_PIVOTS {
                    break;
                }
            }
        }
        let Some((entering, _)) = entering else { break };
        let column = column(entering);
        let direction: [f64; ROWS] =
            std::array::from_fn(|row| (0..ROWS).map(|k| inverse[row][k] * column[k]).sum());
        let leaving = (0..ROWS).filter(|row| direction[*row] > 1e-11).min_by(|a, b| {
            let ratio = |row: usize| values[row] / direction[row];
            ratio(*a).total_cmp(&ratio(*b)).then(basis[*b].cmp(&basis[*a]))
        })?;
        let step = values[leaving] / direction[leaving];
        for row in 0..ROWS {
            if row != leaving {
                values[row] = (values[row] - step * direction[row]).max(0.0);
                let factor = direction[row] / direction[leaving];
                let pivot = inverse[leaving];
                for (entry, of_pivot) in inverse[row].iter_mut().zip(pivot) {
                    *entry -= factor * of_pivot;
                }
            }
        }
        for entry in &mut inverse[leaving] {
            *entry /= direction[leaving];
        }
        values[leaving] = step;
        basis[leaving] = entering;
    }
    let outside: f64 = (0..ROWS).filter(|k| basis[*k] >= count).map(|k| values[k]).sum();
    if outside > 1e-6 {
        return None;
    }
    Some((0..ROWS).filter(|k| basis[*k] < count).map(|k| (basis[k], values[k])).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp)]
mod tests {
    use super::*;

    fn at(points: &[[f64; 3]], values: &[f64], x: [f64; 3]) -> Option<f64> {
        let weights = weights(points, x)?;
        Some(weights.iter().map(|(index, weight)| values[*index] * weight).sum())
    }

    #[test]
    fn a_linear_function_is_met_exactly_within_the_hull_and_nothing_is_said_outside() {
        let mut points = Vec::new();
        for a in 0..5 {
            for b in 0..5 {
                for c in [1.0, 7.0, 30.0, 200.0] {
                    points.push([f64::from(a), f64::from(b * b), c]);
                }
            }
        }
        let linear = |x: [f64; 3]| 3.0 * x[0] - x[1] + 0.25 * x[2] + 7.0;
        let values: Vec<f64> = points.iter().map(|point| linear(*point)).collect();
        for x in [[0.5, 3.5, 100.0], [4.0, 16.0, 200.0], [2.0, 4.0, 7.0], [3.99, 0.01, 1.0]] {
            let found = at(&points, &values, x).unwrap();
            assert!((found - linear(x)).abs() < 1e-6, "{x:?}: {found}");
        }
        assert_eq!(at(&points, &values, [5.0, 3.0, 10.0]), None);
    }

    #[test]
    fn the_simplex_is_the_one_whose_sphere_is_empty() {
        // Two triangulations of this kite are possible in the plane z = 0; Delaunay takes the
        // short diagonal (points 0 and 1), on which the middle lies.
        let points = [
            [0., -1., 0.],
            [0., 1., 0.],
            [-3., 0., 0.],
            [3., 0., 0.],
            [0., 0., 50.],
            [0., 0., -50.],
        ];
        let found = at(&points, &[1., 1., 0., 0., 9., 9.], [0.0, 0.0, 0.0]).unwrap();
        assert!((found - 1.0).abs() < 1e-9, "{found}");
    }
}
