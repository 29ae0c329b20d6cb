//! The return values of handlers: a response, or a `Result` with an error of any type.
//!
//! Every adapter function with a handler as its parameter uses this module. Invariant: exactly one error type fits a handler that
//! uses `?`, so the compiler infers it and no closure needs an annotation.

use std::fmt;

use crate::BoxError;

/// A result of a handler, with [`HandlerError`] as its error type.
///
/// It is the return type for a function that a handler calls, or that is a handler.
pub type HandlerResult<R> = Result<R, HandlerError>;

/// The error of a handler: any error, of this crate or of the application.
///
/// In a handler, `?` converts every type that converts into a [`BoxError`]: every error type, boxed or not, that is `Send` and
/// `Sync`, such as [`Error`](crate::Error), and texts (`String` and `&str`). `HandlerError` itself does not implement
/// [`std::error::Error`], because this conversion would then collide with the one of a type to itself. Convert a
/// `Box<dyn std::error::Error>` without `Send` and `Sync` first, for example by `.map_err(|error| error.to_string())?`.
///
/// The adapters log the text of the error and of its causes, so neither may hold a secret. An [`Error`](crate::Error) of this
/// crate among the causes decides the status. The adapters find it by [`source`](std::error::Error::source).
///
/// # Examples
///
/// ```
/// use threaded_sessions::{Error, ErrorKind, HandlerError, HandlerResult};
///
/// fn page(text: &str) -> HandlerResult<u16> {
///     if text.is_empty() {
///         return Err("there is no page without a number".into());
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(page("7").unwrap(), 7);
/// assert_eq!(page("seven").unwrap_err().error().to_string(), "invalid digit found in string");
/// let error = HandlerError::from(Error::new(ErrorKind::TimedOut, "reading a session"));
/// assert!(error.error().downcast_ref::<Error>().is_some());
/// ```
pub struct HandlerError(BoxError);

impl HandlerError {
    /// Returns a reference to the error that the handler returned, for example to log it.
    pub fn error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }

    /// Takes the error out, to return it from a function that is no handler.
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A response of a framework that has an adapter. You cannot implement it.
pub trait HandlerResponse: sealed::Sealed {}

/// The return value of a handler: a response, or a [`HandlerResult`] of one. You cannot implement it.
///
/// A function with another error type is no handler. Call it with `?` in a closure: `|session| Ok(page(session)?)`. A closure
/// that never returns, such as one that only panics in a test, needs a return type: `|_| -> Response { panic!() }`.
#[diagnostic::on_unimplemented(
    message = "a handler returns a response, or a `Result` of one with `HandlerError`, and not `{Self}`",
    note = "`?` converts other errors: write `|session| Ok(page(session)?)`"
)]
pub trait IntoHandlerResult: sealed::Sealed {
    /// The response of the framework.
    type Response;

    /// Returns the response, or the error of the handler.
    fn into_handler_result(self) -> HandlerResult<Self::Response>;
}

impl<R: HandlerResponse> sealed::Sealed for HandlerResult<R> {}

impl<R: HandlerResponse> IntoHandlerResult for HandlerResult<R> {
    type Response = R;

    fn into_handler_result(self) -> HandlerResult<R> {
        self
    }
}

/// Lets a handler return a response of this framework.
macro_rules! response {
    ($response:ty $(, $body:ident $(: $bound:path)?)?) => {
        impl $(<$body $(: $bound)?>)? sealed::Sealed for $response {}

        impl $(<$body $(: $bound)?>)? HandlerResponse for $response {}

        impl $(<$body $(: $bound)?>)? IntoHandlerResult for $response {
            type Response = Self;

            fn into_handler_result(self) -> HandlerResult<Self> {
                Ok(self)
            }
        }
    };
}

#[cfg(feature = "http")]
response!(http::Response<B>, B);
#[cfg(feature = "rouille")]
response!(rouille::Response);
#[cfg(feature = "tiny-http")]
response!(tiny_http::Response<B>, B: std::io::Read);
