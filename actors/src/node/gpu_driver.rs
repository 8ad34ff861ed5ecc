//! Who knows how the GPUs of a machine are.

use impresario_host::devices::{Gpu, Gpus};

/// Knows how the GPUs of this machine are.
pub trait GpuDriver: Send + Sync + 'static {
    /// All of them, as they are now. May block.
    fn list(&self) -> Vec<Gpu>;
}

impl GpuDriver for Gpus {
    fn list(&self) -> Vec<Gpu> {
        Gpus::list(self)
    }
}
