//! What is answered where no more is taken for a moment.

use crate::budget::Over;
use impresario_api::status::Status;

/// What is answered in place of an answer for which there is no room.
pub(crate) fn unread(over: Over) -> Status {
    match over {
        Over::Now => busy("answers that are not read yet"),
        Over::Ever(most) => {
            let mut status = Status::too_large(most);
            status.message = format!(
                "the answer is larger than the {most} bytes that one user may have waiting"
            );
            status
        }
    }
}

/// 429: so much is going on that no more is taken for a moment.
pub(crate) fn busy(with: &str) -> Status {
    Status::too_many_requests(format!("the server is busy with {with}: try again"), 1)
}
