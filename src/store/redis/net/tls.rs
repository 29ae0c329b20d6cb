//! TLS by rustls: which authorities a connection trusts, and the handshake.
//!
//! The connector uses it. Without a configuration of the program, a server needs a certificate of an authority of the system,
//! or of Mozilla's list with the feature `tls-rustls-webpki-roots`, for the name or address that the program connects to.

use redis::{ConnectionAddr, ErrorKind, RedisResult};

#[cfg(feature = "tls-rustls")]
pub(crate) use by_rustls::Trust;

use super::stream::{Socket, Stream};

/// Without TLS there is nothing to trust.
#[cfg(not(feature = "tls-rustls"))]
#[derive(Clone, Default)]
pub(crate) struct Trust {}

#[cfg(not(feature = "tls-rustls"))]
impl Trust {
    pub(crate) fn is_custom(&self) -> bool {
        false
    }

    pub(crate) fn handshake(&self, _: Socket, _: &str) -> RedisResult<Stream> {
        Err((ErrorKind::InvalidClientConfig, NO_FEATURE).into())
    }
}

/// The error text for an address with TLS in a program without the feature.
pub(super) const NO_FEATURE: &str =
    "TLS needs the feature `tls-rustls` or `tls-rustls-webpki-roots` of the crate `threaded-sessions`";

/// Rejects TLS settings of a client that cannot be carried out, so that none is silently ignored.
pub(crate) fn check(server: &ConnectionAddr) -> Result<(), &'static str> {
    match server {
        ConnectionAddr::TcpTls { .. } if cfg!(not(feature = "tls-rustls")) => Err(NO_FEATURE),
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err("TLS without verification (#insecure) is not supported: set tls_config to trust another authority")
        }
        ConnectionAddr::TcpTls { tls_params: Some(_), .. } => {
            Err("the certificates of a client cannot be read: give them to tls_config, and the client without them")
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "tls-rustls")]
mod by_rustls {
    use std::io;
    use std::sync::{Arc, OnceLock};

    use rustls::crypto::{CryptoProvider, ring};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;

    /// Which certificates a connection accepts, and which one it shows.
    #[derive(Clone, Default)]
    pub(crate) struct Trust(Option<Arc<ClientConfig>>);

    impl Trust {
        pub(crate) fn custom(config: Arc<ClientConfig>) -> Self {
            Self(Some(config))
        }

        /// `true` if the program has set a configuration.
        pub(crate) fn is_custom(&self) -> bool {
            self.0.is_some()
        }

        /// Begins TLS on a socket, within the limit of the socket. The certificate of the server must be for `host`.
        pub(crate) fn handshake(&self, socket: Socket, host: &str) -> RedisResult<Stream> {
            let config = self.0.clone().map_or_else(default_config, Ok)?;
            let Ok(name) = ServerName::try_from(host.to_owned()) else {
                return Err((ErrorKind::InvalidClientConfig, "TLS needs a host name or an IP address").into());
            };
            let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
            let mut tls = StreamOwned::new(connection, socket);
            while tls.conn.is_handshaking() {
                tls.conn.complete_io(&mut tls.sock)?;
            }
            Ok(Stream::Tls(Box::new(tls)))
        }
    }

    /// The configuration of programs that set none. The authorities are read once, because the list of a system is large.
    fn default_config() -> io::Result<Arc<ClientConfig>> {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = CONFIG.get() {
            return Ok(config.clone());
        }
        let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots()?)
            .with_no_client_auth();
        Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
    }

    #[cfg(feature = "tls-rustls-webpki-roots")]
    fn roots() -> io::Result<RootCertStore> {
        Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
    }

    #[cfg(not(feature = "tls-rustls-webpki-roots"))]
    fn roots() -> io::Result<RootCertStore> {
        let mut found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        match found.errors.pop() {
            Some(error) if added == 0 => Err(io::Error::other(error)),
            _ => Ok(roots),
        }
    }
}
