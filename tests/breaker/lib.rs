//! The circuit breaker of the crate, compiled with locks, atomics and a clock that the model checker `shuttle` controls.
//!
//! The tests in `model.rs` use it through [`world`]. `breaker.rs` and `circuit.rs` are the files of the crate, unchanged. The other
//! modules stand in the places of the modules that the two files name.

#[path = "../../src/store/redis/net/breaker.rs"]
#[allow(dead_code)]
#[rustfmt::skip]
mod breaker;
#[path = "../../src/store/redis/net/circuit.rs"]
#[allow(dead_code)]
#[rustfmt::skip]
mod circuit;
pub mod world;

/// Error texts, which the model does not need.
mod error {
    use std::fmt;

    use redis::RedisError;

    pub(crate) struct Cause;

    impl Cause {
        pub(crate) fn of(_: &RedisError) -> Self {
            Self
        }
    }

    impl fmt::Display for Cause {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a cause")
        }
    }

    pub(crate) fn outage(_: &RedisError) -> String {
        "is away".to_owned()
    }
}

/// Calls and logs without a fence: a panic is a failure of the model.
mod fence {
    pub(crate) fn call<R>(code: impl FnOnce() -> R) -> Option<R> {
        Some(code())
    }

    macro_rules! log {
        ($level:ident, $($name:ident = $value:expr),* ; $($message:tt)+) => {{
            $(let _ = &$value;)*
            let _ = format!($($message)+);
        }};
    }

    pub(crate) use log;
}

/// Observers, which the model does not have.
mod observer {
    use std::time::Duration;

    #[derive(Clone, Copy, Default, PartialEq)]
    pub(crate) enum CircuitState {
        #[default]
        Closed,
        HalfOpen,
        Open,
    }

    pub(crate) struct CircuitEvent;

    impl CircuitEvent {
        pub(crate) fn new(_: &str, _: CircuitState) -> Self {
            Self
        }
    }

    pub(crate) enum CloseReason {
        Spoiled,
        Suspect,
        Retired,
    }

    #[allow(dead_code)]
    pub(crate) enum ConnectionEvent<'a> {
        Opened { server: &'a str, took: Duration },
        Failed { server: &'a str },
        Closed { server: &'a str, reason: CloseReason },
    }

    pub(crate) struct Observer;

    impl Observer {
        pub(crate) fn on_circuit(&self, _: &CircuitEvent) {}

        pub(crate) fn on_connection(&self, _: &ConnectionEvent<'_>) {}
    }

    #[derive(Clone, Default)]
    pub(crate) struct Watchers(());

    impl Watchers {
        pub(crate) fn tell(&self, event: impl Fn(&Observer)) {
            event(&Observer);
        }
    }
}

/// Locks, atomics and a clock under the control of the model checker.
mod sync {
    use modelled::{Mutex, MutexGuard};

    pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) mod modelled {
        pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
        pub(crate) use shuttle::sync::{Mutex, MutexGuard};

        pub(crate) use crate::world::{Instant, sleep};
    }
}
