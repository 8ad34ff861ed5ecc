//! A picture of who held how many GPUs, as SVG without scripts.

use crate::Report;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 480.0;
const COLUMNS: usize = 600;
const COLOURS: [&str; 8] =
    ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f"];

/// GPUs held over time, one area an application, stacked.
#[must_use]
pub fn svg(report: &Report, gpus: u32) -> String {
    let end = report.makespan().max(1.0);
    let mut applications: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for job in report.jobs.values() {
        applications.entry(&job.application).or_insert_with(|| vec![0.0; COLUMNS]);
    }
    let mut held: BTreeMap<&str, (f64, u32)> = BTreeMap::new();
    let mut add = |name: &str, from: f64, to: f64, gpus: u32| {
        let Some(job) = report.jobs.get(name) else { return };
        let Some(columns) = applications.get_mut(job.application.as_str()) else { return };
        let width = end / COLUMNS as f64;
        let (first, last) = ((from / width) as usize, (to / width) as usize);
        for (index, column) in columns.iter_mut().enumerate().take(last + 1).skip(first) {
            let (left, right) = (index as f64 * width, (index + 1) as f64 * width);
            let share = (to.min(right) - from.max(left)).max(0.0) / width;
            *column += share * f64::from(gpus);
        }
    };
    for (time, name, gpus) in &report.history {
        if let Some((since, before)) = held.insert(name, (*time, *gpus)) {
            add(name, since, *time, before);
        }
    }
    for (name, (since, gpus)) in held {
        add(name, since, end, gpus);
    }
    let mut out = String::new();
    let (total_width, total_height) = (WIDTH + 220.0, HEIGHT + 60.0);
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/><text x="50" y="18">GPUs held, policy {}: mean completion {:.0} s, last {:.0} s</text>"##,
        escape(&report.policy),
        report.average_completion(),
        end,
    );
    let x = |column: usize| 50.0 + WIDTH * column as f64 / COLUMNS as f64;
    let y = |value: f64| 30.0 + HEIGHT * (1.0 - value / f64::from(gpus.max(1)));
    let mut below = vec![0.0; COLUMNS];
    for (index, (application, columns)) in applications.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for column in 0..COLUMNS {
            let _ = write!(path, "{:.1},{:.1} ", x(column), y(below[column] + columns[column]));
        }
        for column in (0..COLUMNS).rev() {
            let _ = write!(path, "{:.1},{:.1} ", x(column), y(below[column]));
        }
        let _ = write!(out, r#"<polygon points="{}" fill="{colour}"/>"#, path.trim_end());
        let legend = 40.0 + 22.0 * index as f64;
        let _ = write!(
            out,
            r#"<rect x="{0}" y="{legend}" width="14" height="14" fill="{colour}"/><text x="{1}" y="{2}">{3}</text>"#,
            WIDTH + 70.0,
            WIDTH + 90.0,
            legend + 12.0,
            escape(application),
        );
        for (sum, more) in below.iter_mut().zip(columns) {
            *sum += more;
        }
    }
    let bottom = 30.0 + HEIGHT;
    let _ = write!(
        out,
        r##"<path d="M50 30V{bottom}H{}" fill="none" stroke="#333"/><text x="20" y="40">{gpus}</text><text x="30" y="{bottom}">0</text>"##,
        50.0 + WIDTH,
    );
    for hour in 0..=(end / 3600.0) as u32 {
        let every = ((end / 3600.0) as u32 / 16).max(1);
        if hour % every == 0 {
            let at = 50.0 + WIDTH * f64::from(hour) * 3600.0 / end;
            let _ = write!(out, r#"<text x="{at:.1}" y="{}">{hour} h</text>"#, bottom + 18.0);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
