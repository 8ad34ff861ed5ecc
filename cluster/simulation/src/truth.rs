//! What an application really does, by the measured tables.

use crate::interpolate;
use crate::table::{Column, Table, TraceError};
use impresario_auction::Gradient;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Epochs that users of the published applications declare, and the largest local batch where it
/// is less than what was measured. Another application trains for as many epochs as its shortest
/// validation table has.
const DECLARED: &[(&str, u32, Option<u32>)] = &[
    ("bert", 2, None),
    ("cifar10", 100, None),
    ("ncf", 10, None),
    ("imagenet", 90, None),
    ("deepspeech2", 80, None),
    ("yolov3", 50, Some(8)),
];

/// The batch that an elastic policy leaves as it is, and one GPU for it: ncf does not scale.
const NOT_ELASTIC: &[(&str, u32)] = &[("ncf", 32_768)];

/// More nodes than this were never measured.
const MOST_NODES: u32 = 16;

/// Seconds a step and seconds of it that synchronise.
pub type StepAndSync = (f64, f64);

#[derive(Debug)]
struct Epoch {
    progress: f64,
    iteration: f64,
    gradient: Gradient,
}

/// The tables of one application.
#[derive(Debug)]
pub struct Application {
    /// Its name: its folder's.
    pub name: String,
    /// The smallest batch: its steps are the unit of progress.
    pub initial_batch: u32,
    /// The largest batch.
    pub max_batch: u32,
    /// The smallest batch of a GPU.
    pub min_local_batch: u32,
    /// The largest.
    pub max_local_batch: u32,
    /// The epochs that its users declare.
    pub epochs: u32,
    /// The total batch that an elastic policy leaves as it is, on one GPU.
    pub inelastic_batch: Option<u32>,
    validation: BTreeMap<u32, Vec<Epoch>>,
    placements: HashMap<String, Vec<(f64, StepAndSync)>>,
    points: Vec<[f64; 3]>,
    times: Vec<StepAndSync>,
    seen: RefCell<HashMap<(String, u32), StepAndSync>>,
}

/// Reads all applications of a trace folder (`applications/NAME/…`).
///
/// # Errors
/// [`TraceError`] names the file, the line and the field.
pub fn read_applications(folder: &Path) -> Result<BTreeMap<String, Application>, TraceError> {
    let folder = folder.join("applications");
    let failed = |source| TraceError::Read { path: folder.clone(), source };
    let mut applications = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            let application = Application::read(&path)?;
            applications.insert(application.name.clone(), application);
        }
    }
    if applications.is_empty() {
        return Err(TraceError::Empty { path: folder, what: "no application" });
    }
    Ok(applications)
}

impl Application {
    fn read(folder: &Path) -> Result<Self, TraceError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let empty = |what| TraceError::Empty { path: folder.to_owned(), what };
        let validation = read_validation(folder)?;
        let shortest = validation.values().map(Vec::len).min().unwrap_or(0) as u32;
        let (Some(initial_batch), Some(max_batch)) =
            (validation.keys().next().copied(), validation.keys().last().copied())
        else {
            return Err(empty("no validation-BATCH.csv"));
        };
        let declared = DECLARED.iter().find(|(known, ..)| *known == name);
        let epochs = declared.map_or(shortest, |(_, epochs, _)| *epochs).min(shortest);
        if epochs == 0 {
            return Err(empty("a validation table without a line"));
        }
        let measured = Measured::read(folder)?;
        let batches = || measured.placements.values().flatten().map(|(batch, _)| *batch as u32);
        let (Some(min_local_batch), Some(max_local_batch)) = (batches().min(), batches().max())
        else {
            return Err(empty("placements.csv has no line"));
        };
        Ok(Self {
            initial_batch,
            max_batch,
            min_local_batch,
            max_local_batch: declared.and_then(|(.., cap)| *cap).unwrap_or(max_local_batch),
            epochs,
            inelastic_batch: NOT_ELASTIC
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, batch)| (*batch).clamp(initial_batch, max_batch)),
            validation,
            placements: measured.placements,
            points: measured.points,
            times: measured.times,
            seen: RefCell::default(),
            name,
        })
    }

    /// True seconds a step and of its synchronisation for GPUs per node and a local batch.
    #[must_use]
    pub fn step_time(&self, placement: &[u32], local_batch: u32) -> StepAndSync {
        let id = smallest_rotation(placement);
        let key = (id, local_batch);
        if let Some(known) = self.seen.borrow().get(&key) {
            return *known;
        }
        let found = match self.placements.get(&key.0) {
            Some(measured) => along(measured, f64::from(local_batch)),
            None => self.between(placement, f64::from(local_batch)),
        };
        self.seen.borrow_mut().insert(key, found);
        found
    }

    fn between(&self, placement: &[u32], local_batch: f64) -> StepAndSync {
        let nodes = (placement.len() as u32).min(MOST_NODES);
        let replicas: u32 = placement.iter().sum();
        let x = [f64::from(nodes), f64::from(replicas), local_batch];
        if let Some(weights) = interpolate::weights(&self.points, x) {
            let sum = |part: fn(&StepAndSync) -> f64| -> f64 {
                weights.iter().map(|(index, weight)| part(&self.times[*index]) * weight).sum()
            };
            return (sum(|time| time.0), sum(|time| time.1));
        }
        // Outside of what was measured: as the nearest measurement, each axis by its extent.
        let distance = |point: &[f64; 3]| -> f64 {
            let extent = [16.0, 64.0, f64::from(self.max_local_batch)];
            (0..3).map(|axis| ((point[axis] - x[axis]) / extent[axis]).powi(2)).sum()
        };
        let nearest = (0..self.points.len())
            .min_by(|a, b| distance(&self.points[*a]).total_cmp(&distance(&self.points[*b])));
        nearest.map_or((1.0, 0.0), |index| self.times[index])
    }

    /// True gradient statistics of an epoch with a total batch.
    #[must_use]
    pub fn gradient(&self, batch: f64, epoch: u32) -> Gradient {
        let at = |rows: &Vec<Epoch>| rows[(epoch as usize).min(rows.len() - 1)].gradient;
        let ((low, lower), (high, upper)) = self.around(batch);
        let share = if high > low { (batch - low) / (high - low) } else { 0.0 };
        let (lower, upper) = (at(lower), at(upper));
        Gradient {
            sqr: lower.sqr + (upper.sqr - lower.sqr) * share,
            var: lower.var + (upper.var - lower.var) * share,
        }
    }

    /// Iterations that `epoch + 1` epochs take with a total batch: only an oracle knows.
    #[must_use]
    pub fn iterations(&self, batch: f64, epoch: u32) -> f64 {
        let at = |rows: &Vec<Epoch>| rows[(epoch as usize).min(rows.len() - 1)].iteration;
        let ((low, lower), (high, upper)) = self.around(batch);
        let share = if high > low { (batch - low) / (high - low) } else { 0.0 };
        at(lower) + (at(upper) - at(lower)) * share
    }

    #[allow(clippy::type_complexity)]
    fn around(&self, batch: f64) -> ((f64, &Vec<Epoch>), (f64, &Vec<Epoch>)) {
        let batch = batch.clamp(f64::from(self.initial_batch), f64::from(self.max_batch));
        let rows = || self.validation.iter().map(|(size, rows)| (f64::from(*size), rows));
        let low = rows().take_while(|(size, _)| *size <= batch + 1e-9).last();
        let high = rows().find(|(size, _)| *size >= batch - 1e-9);
        let any = || rows().next().unwrap_or_else(|| unreachable!("read() refuses an empty table"));
        (low.unwrap_or_else(any), high.unwrap_or_else(any))
    }

    /// Progress at which `epoch` epochs are done.
    #[must_use]
    pub fn progress_at(&self, epoch: u32) -> f64 {
        let Some(row) = epoch.checked_sub(1) else { return 0.0 };
        let ends = self.validation.values().filter_map(|rows| rows.get(row as usize));
        ends.map(|end| end.progress).fold(f64::INFINITY, f64::min)
    }
}

struct Measured {
    placements: HashMap<String, Vec<(f64, StepAndSync)>>,
    points: Vec<[f64; 3]>,
    times: Vec<StepAndSync>,
}

impl Measured {
    fn read(folder: &Path) -> Result<Self, TraceError> {
        let table = Table::read(&folder.join("placements.csv"))?;
        let placement = table.column("placement")?;
        let (local, step, sync) =
            (table.column("local_bsz")?, table.column("step_time")?, table.column("sync_time")?);
        let mut placements: HashMap<String, Vec<(f64, StepAndSync)>> = HashMap::new();
        let mut groups: BTreeMap<(u32, u32, u32), Vec<StepAndSync>> = BTreeMap::new();
        for row in 0..table.len() {
            let id = placement.text(row);
            let digits: Option<Vec<u32>> = id.chars().map(|digit| digit.to_digit(10)).collect();
            let digits = digits
                .filter(|digits| !digits.is_empty() && digits.len() <= 64 && !digits.contains(&0))
                .ok_or_else(|| placement.wrong(row, "digits from 1 to 9, one a node,"))?;
            let time = read_times(&step, &sync, row)?;
            let batch = local.count(row)?;
            placements.entry(id.to_owned()).or_default().push((f64::from(batch), time));
            let key = (digits.len() as u32, digits.iter().sum(), batch);
            groups.entry(key).or_default().push(time);
        }
        for rows in placements.values_mut() {
            rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let mut points = Vec::new();
        let mut times = Vec::new();
        for ((nodes, replicas, batch), group) in groups {
            let mean = |part: fn(&StepAndSync) -> f64| {
                group.iter().map(part).sum::<f64>() / group.len() as f64
            };
            points.push([f64::from(nodes), f64::from(replicas), f64::from(batch)]);
            times.push((mean(|time| time.0), mean(|time| time.1)));
        }
        let table = Table::read(&folder.join("scalability.csv"))?;
        let (nodes, replicas) = (table.column("num_nodes")?, table.column("num_replicas")?);
        let (local, step, sync) =
            (table.column("local_bsz")?, table.column("step_time")?, table.column("sync_time")?);
        for row in 0..table.len() {
            let count = |column: &Column<'_>| column.count(row).map(f64::from);
            points.push([count(&nodes)?, count(&replicas)?, count(&local)?]);
            times.push(read_times(&step, &sync, row)?);
        }
        Ok(Self { placements, points, times })
    }
}

fn read_times(step: &Column<'_>, sync: &Column<'_>, row: usize) -> Result<StepAndSync, TraceError> {
    let time = (step.number(row)?, sync.number(row)?);
    if time.0 <= 0.0 {
        return Err(step.wrong(row, "a time above 0"));
    }
    if time.1 > time.0 {
        return Err(sync.wrong(row, "no more than step_time"));
    }
    Ok(time)
}

fn read_validation(folder: &Path) -> Result<BTreeMap<u32, Vec<Epoch>>, TraceError> {
    let failed = |source| TraceError::Read { path: folder.to_owned(), source };
    let mut validation = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(batch) = name.strip_prefix("validation-").and_then(|n| n.strip_suffix(".csv"))
        else {
            continue;
        };
        let batch: u32 = batch.parse().map_err(|_| TraceError::Empty {
            path: path.clone(),
            what: "a validation table is named validation-BATCH.csv",
        })?;
        let table = Table::read(&path)?;
        let (progress, iteration) = (table.column("progress")?, table.column("iteration")?);
        let (sqr, var) = (table.column("grad_sqr")?, table.column("grad_var")?);
        let mut rows: Vec<Epoch> = Vec::with_capacity(table.len());
        for row in 0..table.len() {
            let epoch = Epoch {
                progress: progress.number(row)?,
                iteration: iteration.number(row)?,
                gradient: Gradient { sqr: sqr.number(row)?, var: var.number(row)? },
            };
            if rows.last().is_some_and(|before| before.progress >= epoch.progress) {
                return Err(progress.wrong(row, "more than in the line before"));
            }
            rows.push(epoch);
        }
        if rows.is_empty() || batch == 0 {
            return Err(TraceError::Empty { path, what: "no epoch" });
        }
        validation.insert(batch, rows);
    }
    Ok(validation)
}

/// Placements that are rotations of each other are one: the smallest is measured.
fn smallest_rotation(placement: &[u32]) -> String {
    (0..placement.len())
        .map(|start| placement[start..].iter().chain(&placement[..start]).collect::<Vec<_>>())
        .min()
        .map(|digits| digits.iter().map(ToString::to_string).collect())
        .unwrap_or_default()
}

fn along(measured: &[(f64, StepAndSync)], batch: f64) -> StepAndSync {
    let after = measured.partition_point(|(size, _)| *size < batch);
    match (after.checked_sub(1).and_then(|index| measured.get(index)), measured.get(after)) {
        (Some((low, a)), Some((high, b))) => {
            let share = (batch - low) / (high - low);
            (a.0 + (b.0 - a.0) * share, a.1 + (b.1 - a.1) * share)
        }
        (Some((_, time)), None) | (None, Some((_, time))) => *time,
        (None, None) => (1.0, 0.0),
    }
}
