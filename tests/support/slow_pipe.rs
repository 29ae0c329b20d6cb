//! A slow connection to a server, for any protocol.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// A port that leads to another port, and delays all that comes back from there.
pub fn slow_pipe(to: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (ahead, back) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
            thread::spawn(move || copy(ahead.0, ahead.1, Duration::ZERO));
            thread::spawn(move || copy(back.0, back.1, delay));
        }
    });
    port
}

fn copy(mut from: TcpStream, mut to: TcpStream, delay: Duration) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) | Err(_) => return to.shutdown(Shutdown::Both),
            Ok(read) => read,
        };
        thread::sleep(delay);
        to.write_all(&chunk[..read])?;
    }
}
