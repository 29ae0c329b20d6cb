//! The cryptography of rustls, which the program may choose.
//!
//! The connector calls this before each TLS connection. Invariant: rustls never connects without a crypto provider, because it
//! would panic.

use rustls::crypto::{CryptoProvider, ring};

/// Installs ring as the crypto provider of the process, unless the program has chosen one.
pub(crate) fn provide() {
    if CryptoProvider::get_default().is_none() {
        // This fails only if another thread installed a provider in the meantime, which is just as good.
        let _ = ring::default_provider().install_default();
    }
}
