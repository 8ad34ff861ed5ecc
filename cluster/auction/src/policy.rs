//! What every policy is.

use crate::decision::Decision;
use crate::hall::{Hall, Size};
use crate::picture::Picture;
use crate::placement::{emptiest_first, gangs};
use crate::{Model, gpus};

/// Divides a cluster. The live scheduler clears a hall of pods with it and the simulator one of GPUs.
pub trait Policy {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether it chooses sizes; else jobs get what their users asked for, or nothing.
    fn is_elastic(&self) -> bool {
        true
    }

    /// Whether it chooses batches; else jobs train with what their users asked for.
    fn chooses_batch(&self) -> bool {
        false
    }

    /// The size of each job, in the order of the bids: nothing, or between its minimum and maximum. What
    /// jobs get beyond their floors never passes what there is, whatever the bids say.
    fn clear(&self, hall: &Hall<'_>) -> Vec<Size>;

    /// In which order jobs whose GPUs change are placed.
    fn placing_order(&self, _: &Hall<'_>, sizes: &[Size]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|job| sizes[*job].workers);
        order
    }

    /// Places sizes on nodes.
    fn place(&self, picture: &Picture, hall: &Hall<'_>, sizes: &[Size]) -> Decision {
        let wanted: Vec<u32> = sizes.iter().map(|size| size.workers).collect();
        gangs(picture, &self.placing_order(hall, sizes), &wanted, emptiest_first)
    }

    /// Decides from the picture, and from each job's models in the picture's order. Allocations
    /// never pass what a node has, whatever the picture.
    fn decide(&self, picture: &Picture, models: &[Model]) -> Decision {
        let hall = gpus::hall(picture, models, self.is_elastic(), self.chooses_batch());
        self.place(picture, &hall, &self.clear(&hall))
    }
}
