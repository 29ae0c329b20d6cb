//! An address that swallows every attempt to connect, as a dead host does.

use std::net::SocketAddr;
use std::time::Duration;

use threaded_sessions::redis::io::tcp::socket2::{Domain, Socket, Type};

/// A listener that accepts no connection and whose backlog is full.
pub struct DeadEnd {
    address: SocketAddr,
    _held: (Socket, Vec<Socket>),
}

impl DeadEnd {
    pub fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let is_full = client.connect_timeout(&address.into(), Duration::from_millis(200)).is_err();
            waiting.push(client);
            if is_full {
                return Self { address, _held: (listener, waiting) };
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
