//! A server that is no Redis: a function makes its replies.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

/// Starts a server at a free port, and returns the port. [`serve_replies`] describes the function.
pub fn reply_server(reply: impl FnMut(&[u8]) -> String + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve_replies(listener, reply);
    port
}

/// Serves the connections to a listener in the background. Each connection has a clone of the function, which gets the bytes that
/// arrived at a time, and returns the reply. Nothing is sent for an empty reply.
pub fn serve_replies(listener: TcpListener, reply: impl FnMut(&[u8]) -> String + Clone + Send + 'static) {
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reply = reply.clone();
            thread::spawn(move || {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(reply(&bytes[..count]).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}
