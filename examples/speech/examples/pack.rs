//! Packs a folder of recordings into `digits.wav` (8 kHz, 16 bit) and its index `digits.csv`.
//! Called by `data/make.sh`: `pack FOLDER TARGET`.

use impresario_speech::recording;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pack FOLDER TARGET".into());
    };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();

    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: recording::RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(target.join("digits.wav"), spec)?;
    let mut index = String::new();
    let mut start = 0;
    for file in &files {
        let one = recording::read(file)?;
        let samples = recording::trim(&one.samples);
        let peak = samples.iter().map(|s| s.abs()).fold(1e-6, f32::max);
        for sample in samples {
            wav.write_sample((sample / peak * 30_000.0) as i16)?;
        }
        writeln!(index, "{}_{}_{},{start},{}", one.digit, one.speaker, one.take, samples.len())?;
        start += samples.len();
    }
    wav.finalize()?;
    std::fs::write(target.join("digits.csv"), index)?;
    println!("{} recordings, {} s", files.len(), start / recording::RATE as usize);
    Ok(())
}
