//! Sizes and models, as the hall has them and as they go over the wire.

use impresario_auction::hall;
use impresario_auction::speed::Speed;
use impresario_client::protocol::training::{Size, SpeedModel};

/// A size as the hall has it.
pub fn in_hall(size: Size) -> hall::Size {
    hall::Size { servers: size.parameter_servers, workers: size.trainers }
}

/// A size as it goes over the wire.
pub(super) fn on_wire(size: hall::Size) -> Size {
    Size { parameter_servers: size.servers, trainers: size.workers }
}

/// What a model on the wire says.
pub fn speed_of(model: &SpeedModel) -> Speed {
    match *model {
        SpeedModel::Asynchronous { a } => Speed::Asynchronous { a },
        SpeedModel::Synchronous { batch, a } => Speed::Synchronous { batch, a },
    }
}

/// A model as it goes over the wire.
pub fn model_of(speed: Speed) -> SpeedModel {
    match speed {
        Speed::Asynchronous { a } => SpeedModel::Asynchronous { a },
        Speed::Synchronous { batch, a } => SpeedModel::Synchronous { batch, a },
    }
}
