//! Which epochs of shards are an activation's own.

/// Epochs of shards begin with the lease's: `lease · 2^32`. A later activation's are later than all before.
const EPOCHS_OF_LEASE: u32 = 32;

/// The epoch below all that an activation gives to shards.
pub(super) fn first_epoch(lease: u64) -> u64 {
    lease << EPOCHS_OF_LEASE
}
