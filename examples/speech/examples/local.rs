//! Trains in one process, without a cluster: `local [FOLDER]`. Shows what the network can do.

use impresario_actors::training::model::Model;
use impresario_actors::training::optimizer::{Optimizer, OptimizerKind};
use impresario_speech::network::Digits;
use impresario_speech::recording::DataSet;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut arguments = std::env::args_os().skip(1);
    let data = match arguments.next().map(PathBuf::from) {
        Some(folder) if folder.as_os_str() != "-" => DataSet::folder(&folder)?,
        _ => DataSet::shipped()?,
    };
    let number = |text: Option<std::ffi::OsString>, or: f32| {
        text.and_then(|t| t.to_string_lossy().parse().ok()).unwrap_or(or)
    };
    let rate = number(arguments.next(), 0.002);
    let batch = number(arguments.next(), 64.0) as usize;
    let epochs = number(arguments.next(), 30.0) as usize;
    let mut model = Digits::new(&data);
    if let Ok(text) = std::env::var("AUG") {
        let v: Vec<f32> = text.split(',').map(|x| x.parse().unwrap()).collect();
        model.augment = impresario_speech::features::Augment { bands: v[0], time: v[1], tilt: v[2], noise: v[3], mask: v[4] as usize };
    }
    let decay: f32 = std::env::var("DECAY").map_or(0.0, |t| t.parse().unwrap());
    let mut parameters = model.initial(1);
    let mut average = parameters.clone();
    let mut optimizer = Optimizer::new(OptimizerKind::adam(rate), parameters.len());
    let mut order: Vec<u64> = (0..model.samples()).collect();
    let mut random = StdRng::seed_from_u64(1);
    println!("{} samples, {} parameters, ready after {:.1?}", order.len(), parameters.len(), started.elapsed());
    let mut step = 0;
    for epoch in 1..=epochs {
        order.shuffle(&mut random);
        let mut sum = 0.0;
        for samples in order.chunks(batch) {
            step += 1;
            let gradient = model.gradient(&parameters, samples, step)?;
            sum += gradient.loss * samples.len() as f32;
            optimizer.set_rate(rate / (1.0 + decay * step as f32));
            optimizer.apply(&mut parameters, &gradient.values);
            let keep = (1.0 - 1.0 / step as f32).min(0.98);
            for (mean, value) in average.iter_mut().zip(&parameters) {
                *mean = *mean * keep + value * (1.0 - keep);
            }
        }
        let tested = model.evaluate(&average)?;
        let raw = model.evaluate(&parameters)?.accuracy;
        println!(
            "epoch {epoch} step {step} loss {:.3} test loss {:.3} accuracy {:.2} % raw {raw:.3} after {:.1?}",
            sum / order.len() as f32, tested.loss, tested.accuracy * 100.0, started.elapsed()
        );
    }
    Ok(())
}
