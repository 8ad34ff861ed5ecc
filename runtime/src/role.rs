//! What an address can be asked.
//!
//! A role is a marker type with a list of messages. A reference is typed by its role, not by the actor behind it, so
//! that a client links the messages alone. An actor serves a role when it handles every message of it; the compiler
//! says which one is missing.

use crate::{
    door::Doors,
    mailbox::Mailbox,
    message::{Message, StreamMessage},
};
use actix::{Actor, Context};

/// A set of messages that an actor answers. Declared by [`role!`](crate::role!).
pub trait Role: Send + Sync + 'static {
    /// The role's name, for logs and errors.
    const NAME: &'static str;
    /// The names of the messages and streams of the role.
    const MESSAGES: &'static [&'static str];
}

/// The role answers `M`.
pub trait Accepts<M: Message>: Role {}

/// The role answers `M` with a stream.
pub trait Streams<M: StreamMessage>: Role {}

/// The actor `A` can be addressed by this role.
pub trait ServedBy<A: Actor<Context = Context<A>>>: Role {
    /// One door for each message of the role, all leading to `mailbox`.
    fn doors(mailbox: &Mailbox<A>) -> Doors;
}

/// [`ServedBy`], said of the actor: `A: Serves<NodeRole>`.
pub trait Serves<R: Role>: Actor<Context = Context<Self>> {}

impl<R: ServedBy<A>, A: Actor<Context = Context<A>>> Serves<R> for A {}

/// Declares a role: `role! { /// docs
/// pub NodeRole = "node" { asks: [Reserve, Release], streams: [Logs] } }`.
#[macro_export]
macro_rules! role {
    ($(#[$docs:meta])* $vis:vis $role:ident = $name:literal {
        asks: [$($ask:ty),* $(,)?] $(, streams: [$($stream:ty),* $(,)?])? $(,)?
    }) => {
        $(#[$docs])*
        #[derive(Debug, Clone, Copy)]
        $vis struct $role;

        impl $crate::Role for $role {
            const NAME: &'static str = $name;
            const MESSAGES: &'static [&'static str] = &[
                $(<$ask as $crate::Message>::NAME,)*
                $($(<$stream as $crate::StreamMessage>::NAME,)*)?
            ];
        }

        $(impl $crate::Accepts<$ask> for $role {})*
        $($(impl $crate::Streams<$stream> for $role {})*)?

        impl<A> $crate::ServedBy<A> for $role
        where
            A: $crate::macros::actix::Actor<Context = $crate::macros::actix::Context<A>>
                $(+ $crate::macros::actix::Handler<$ask>)*
                $($(+ $crate::macros::actix::Handler<$crate::Open<$stream>>)*)?,
        {
            #[allow(unused_mut, unused_variables)]
            fn doors(mailbox: &$crate::Mailbox<A>) -> $crate::Doors {
                let mut doors = $crate::Doors::default();
                $(doors.ask::<$ask, A>(mailbox);)*
                $($(doors.stream::<$stream, A>(mailbox);)*)?
                doors
            }
        }
    };
}
