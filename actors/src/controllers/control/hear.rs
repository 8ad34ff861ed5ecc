//! What a control actor does about what it is told of one object: it has its look read that object, one at a time.
//!
//! What is new goes into the mirror, whose change wakes the actor, as a change does that the watch brings. What is not
//! so changes nothing.

use super::Control;
use actix::prelude::*;
use impresario_client::protocol::control::Told;

impl Handler<Told> for Control {
    type Result = ();

    fn handle(&mut self, told: Told, context: &mut Self::Context) {
        self.heard.put(told);
        self.read_next(context);
    }
}

impl Control {
    fn read_next(&mut self, context: &mut Context<Self>) {
        if self.is_reading {
            return;
        }
        let Some(told) = self.heard.next() else { return };
        self.is_reading = true;
        let look = self.look.clone();
        let read = async move { look.told(&told).await };
        context.spawn(read.into_actor(self).map(|_, this, context| {
            this.is_reading = false;
            this.read_next(context);
        }));
    }
}
