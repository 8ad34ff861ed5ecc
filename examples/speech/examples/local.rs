//! Trains in one process, without a cluster: `local [FOLDER]`. Shows what the network can do.

use impresario_actors::training::model::Model;
use impresario_actors::training::{data_plan, optimizer};
use impresario_client::protocol::training::{Applied, ShardRange};
use impresario_speech::network::{self, Digits};
use impresario_speech::recording::DataSet;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

const EPOCHS: u64 = 24;

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let data = match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(folder) => DataSet::folder(&folder)?,
        None => DataSet::shipped()?,
    };
    let mut model = Digits::new(&data);
    let values = model.initial(1);
    let range = ShardRange { shard: 0, start: 0, length: values.len() as u64 };
    let mut state = optimizer::fresh(range, values, 0, Applied::default(), network::OPTIMIZER);
    println!(
        "{} samples, {} parameters, ready after {:.1?}",
        model.samples(),
        range.length,
        started.elapsed()
    );
    for epoch in 0..EPOCHS {
        let (mut sum, order) = (0.0, data_plan::order(1, epoch, model.samples()));
        for samples in order.chunks(network::BATCH) {
            let gradient =
                model.gradient(&state.values, samples, data_plan::mix(1, state.version))?;
            sum += gradient.loss * samples.len() as f32;
            optimizer::apply(&mut state, &gradient.values);
        }
        let tested = model.evaluate(&state.average)?;
        println!(
            "epoch {epoch}, step {}: loss {:.3}, on unheard recordings {:.3}, accuracy {:.2} %, after {:.1?}",
            state.version,
            sum / order.len() as f32,
            tested.loss,
            tested.accuracy * 100.0,
            started.elapsed()
        );
    }
    Ok(())
}
