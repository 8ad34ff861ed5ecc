//! Why a request was refused, in one word for clients.

/// Why a request was refused; each has one HTTP code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The request could not be understood.
    BadRequest,
    /// The caller did not say who they are, or not believably.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// There is no such object or path.
    NotFound,
    /// This resource has no such verb.
    MethodNotAllowed,
    /// None of the accepted forms can be produced.
    NotAcceptable,
    /// An object of this name is there already.
    AlreadyExists,
    /// The object is not as the request presumed.
    Conflict,
    /// The revision asked for is no longer kept, and never will be again.
    Expired,
    /// The same, as older clients know it.
    Gone,
    /// The body is over the limit.
    RequestEntityTooLarge,
    /// The body's content type is not one that can be read.
    UnsupportedMediaType,
    /// The object breaks a rule; the causes say which.
    Invalid,
    /// Ask again later.
    TooManyRequests,
    /// Something here failed.
    InternalError,
    /// No leader, no quorum or no server for the moment.
    ServiceUnavailable,
    /// The answer was not ready in time, and asking again is sensible.
    ServerTimeout,
    /// The answer was not ready in time.
    Timeout,
}

impl Reason {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired | Self::Gone => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::ServerTimeout | Self::Timeout => 504,
        }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::Gone => "Gone",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
        }
    }

    /// The reason of a refusal that somebody else worded: the one of this name if it has this code, else the one that is
    /// usual for the code; of codes without one the nearest, and never one of a success.
    pub fn nearest(code: u64, name: &str) -> Self {
        let of_code = |reason: &Self| u64::from(reason.code()) == code;
        let named = Self::ALL.into_iter().find(|reason| of_code(reason) && reason.as_str() == name);
        let usual = || Self::ALL.into_iter().find(of_code);
        let other = if code >= 500 { Self::InternalError } else { Self::BadRequest };
        named.or_else(usual).unwrap_or(other)
    }

    /// Every reason, the usual one of a code first.
    const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::Conflict,
        Self::AlreadyExists,
        Self::Gone,
        Self::Expired,
        Self::RequestEntityTooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::TooManyRequests,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::Timeout,
        Self::ServerTimeout,
    ];
}
