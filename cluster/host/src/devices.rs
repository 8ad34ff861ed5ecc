//! GPUs, through the driver's management library (NVML), wherever that is.
//!
//! A machine without the library, or whose driver does not answer, has no GPUs: that is no error.
//! One that stops answering later is unhealthy, not gone: its pods must be told.
//! Calls go to the driver and may block for a while: use a thread that may.

mod pool;

pub use pool::{GpuPool, GpuPoolError};

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{EccCounter, MemoryError},
    error::NvmlError,
};
use std::{ffi::OsStr, fmt};

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its place in the driver's list.
    pub index: u32,
    /// Its id over restarts and changes of place.
    pub uuid: String,
    /// Its model.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// What of it is in use.
    pub memory_used_bytes: u64,
    /// For how much of the last while it computed, in percent.
    pub utilization_percent: u32,
    /// Whether work may be given to it.
    pub health: GpuHealth,
}

/// Whether a GPU can be worked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuHealth {
    /// It can.
    Healthy,
    /// It cannot; the driver's words.
    Unhealthy(String),
}

/// The GPUs of this machine.
pub struct Gpus {
    nvml: Option<Nvml>,
    absent: Option<String>,
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpus").field("absent", &self.absent).finish_non_exhaustive()
    }
}

impl Gpus {
    /// Looks for the driver: at `library` when given, else where the system has it.
    pub fn discover(library: Option<&OsStr>) -> Self {
        let mut builder = Nvml::builder();
        if let Some(library) = library {
            builder.lib_path(library);
        }
        match builder.init() {
            Ok(nvml) => Self { nvml: Some(nvml), absent: None },
            Err(error) => Self { nvml: None, absent: Some(error.to_string()) },
        }
    }

    /// Why there are none, when no driver was found.
    pub fn absent(&self) -> Option<&str> {
        self.absent.as_deref()
    }

    /// What they are now. One that does not answer is in the list, unhealthy.
    pub fn list(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let count = nvml.device_count().unwrap_or_else(|error| {
            tracing::warn!(%error, "the GPU driver does not count its devices");
            0
        });
        (0..count).map(|index| look(nvml, index)).collect()
    }
}

fn look(nvml: &Nvml, index: u32) -> Gpu {
    let mut gpu = Gpu {
        index,
        uuid: String::new(),
        name: String::new(),
        memory_bytes: 0,
        memory_used_bytes: 0,
        utilization_percent: 0,
        health: GpuHealth::Healthy,
    };
    let looked = nvml.device_by_index(index).and_then(|device| fill(&mut gpu, &device));
    if let Err(error) = looked {
        gpu.health = GpuHealth::Unhealthy(error.to_string());
    }
    gpu
}

fn fill(gpu: &mut Gpu, device: &Device<'_>) -> Result<(), NvmlError> {
    gpu.uuid = device.uuid()?;
    gpu.name = device.name()?;
    let memory = device.memory_info()?;
    gpu.memory_bytes = memory.total;
    gpu.memory_used_bytes = memory.used;
    gpu.utilization_percent = optional(device.utilization_rates())?.map_or(0, |rates| rates.gpu);
    let errors = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    if let Some(count) = optional(errors)?.filter(|count| *count > 0) {
        let what = format!("{count} memory errors since the driver was loaded: reset the GPU");
        gpu.health = GpuHealth::Unhealthy(what);
    }
    Ok(())
}

/// What not every model or driver can say.
fn optional<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
