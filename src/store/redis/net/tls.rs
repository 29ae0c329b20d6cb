use rustls::crypto::{CryptoProvider, ring};

/// Sees to it that rustls has cryptography, without which connecting would panic: what the program has chosen, or ring.
pub(crate) fn provide() {
    if CryptoProvider::get_default().is_none() {
        // Fails if somebody else chose one just now.
        let _ = ring::default_provider().install_default();
    }
}
