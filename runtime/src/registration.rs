//! A name given to an actor that someone else started; dropping it takes the name back.

use crate::{
    cell::{Cell, Cells},
    watch::Reason,
};
use std::sync::Arc;

/// Keeps a registered name; dropping it unregisters, and watchers hear `Stopped`.
#[must_use = "dropping it unregisters the actor"]
pub struct Registration {
    pub(crate) cells: Arc<Cells>,
    pub(crate) cell: Arc<Cell>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registration").field(&self.cell.name).finish()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cells.end(&self.cell, Reason::Stopped);
    }
}
