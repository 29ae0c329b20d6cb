//! The feed of sessions that end, from the channels of a Redis store.
//!
//! A listener calls it in its thread. It holds one connection to each server that has channels of the store, and reconnects by
//! itself. Invariant: between two reports of [`EndNews::Ready`] without an error, every channel is subscribed.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::RedisSessionStore;
use super::net::error::connect_error;
use super::net::server::Server;
use super::net::subscription::{self, Subscription};
use crate::store::{EndFeed, EndNews, feed};
use crate::{EndReason, Ended, Error, ErrorKind, Handle, Result, jitter, operation};

/// The shortest and the longest pause after a connection was lost. Each pause is twice as long as the one before.
const FIRST_RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// How often the feed asks a cluster which nodes have the channels. A node that became a replica keeps its subscribers, and
/// passes on only a part of the messages.
const OWNER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A server, and the partitions whose channels it has.
type AtServer = (Arc<Server>, Vec<u32>);

/// The subscription to the channels of some partitions at their server.
struct Line {
    server: Arc<Server>,
    partitions: Vec<u32>,
    subscription: Subscription,
}

struct Feed {
    store: RedisSessionStore,
    lines: Vec<Line>,
    /// The partitions that no subscription has.
    missing: Vec<u32>,
    next_owner_check: Instant,
    next_attempt: Instant,
    pause: Duration,
    ended: VecDeque<Ended>,
    /// `true` after `Ready` was reported, until a subscription fails.
    is_ready: bool,
}

/// Opens the feed. The first call of `next` connects.
pub(super) fn open(store: &RedisSessionStore) -> Result<Box<dyn EndFeed>> {
    if store.ends.publish.is_none() {
        return Err(feed::unsupported());
    }
    store.pool.check_process(operation::LISTEN_FOR_ENDS)?;
    Ok(Box::new(Feed {
        store: store.clone(),
        lines: Vec::new(),
        next_owner_check: Instant::now(),
        missing: (0..store.keys.partitions()).collect(),
        next_attempt: Instant::now(),
        pause: FIRST_RESUBSCRIBE_PAUSE,
        ended: VecDeque::new(),
        is_ready: false,
    }))
}

impl EndFeed for Feed {
    fn next(&mut self, wait: Duration) -> Result<EndNews> {
        if let Some(ended) = self.ended.pop_front() {
            return Ok(EndNews::Ended(ended));
        }
        if !self.missing.is_empty() && Instant::now() >= self.next_attempt {
            self.subscribe()?;
        }
        if self.lines.is_empty() {
            thread::sleep(wait);
        } else {
            self.receive(wait)?;
        }
        self.check_owners()?;
        let is_confirmed = |line: &Line| line.subscription.is_confirmed();
        if !self.is_ready && self.missing.is_empty() && self.lines.iter().all(is_confirmed) {
            (self.is_ready, self.pause) = (true, FIRST_RESUBSCRIBE_PAUSE);
            return Ok(EndNews::Ready);
        }
        Ok(self.ended.pop_front().map_or(EndNews::Quiet, EndNews::Ended))
    }
}

impl Feed {
    /// Subscribes to the missing channels, over one connection to each server that has some of them.
    fn subscribe(&mut self) -> Result<()> {
        let mut failure = None;
        self.next_attempt = Instant::now() + self.pause + jitter::part_of(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RESUBSCRIBE_PAUSE);
        let sharded = self.store.pool.is_cluster();
        let (servers, unknown) = self.missing_by_server();
        for (server, partitions) in servers {
            let channels: Vec<String> =
                partitions.iter().map(|&partition| self.store.keys.channel(partition)).collect();
            match Subscription::open(&server.manager, sharded, &channels) {
                Ok(subscription) => {
                    self.missing.retain(|partition| !partitions.contains(partition));
                    self.lines.push(Line { server, partitions, subscription });
                }
                Err(error) => failure = Some(connect_error(operation::LISTEN_FOR_ENDS, &error)),
            }
        }
        failure.or(unknown).map_or(Ok(()), Err)
    }

    /// Returns the servers of the missing channels, and the error if the server of some channel is not known.
    fn missing_by_server(&self) -> (Vec<AtServer>, Option<Error>) {
        let mut groups = Vec::<AtServer>::new();
        for &partition in &self.missing {
            let channel = self.store.keys.channel(partition);
            let server = match self.store.pool.server_of(operation::LISTEN_FOR_ENDS, &channel) {
                Ok(server) => server,
                Err(error) => return (groups, Some(error)),
            };
            match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &server)) {
                Some((_, partitions)) => partitions.push(partition),
                None => groups.push((server, vec![partition])),
            }
        }
        (groups, None)
    }

    /// Receives from all subscriptions, and drops those that fail.
    fn receive(&mut self, wait: Duration) -> Result<()> {
        let ready = subscription::wait(self.lines.iter().map(|line| &line.subscription), wait)
            .map_err(|error| Error::new(ErrorKind::Other, operation::LISTEN_FOR_ENDS).with_source(error))?;
        let mut failure = None;
        for (mut line, is_ready) in mem::take(&mut self.lines).into_iter().zip(ready) {
            let ended = &mut self.ended;
            match line.subscription.receive(is_ready, |message| ended.extend(decode_end(&message))) {
                Ok(()) => self.lines.push(line),
                Err(error) => {
                    self.miss(line);
                    failure = Some(connect_error(operation::LISTEN_FOR_ENDS, &error));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Drops the subscriptions to nodes of a cluster that have no longer all of their channels.
    fn check_owners(&mut self) -> Result<()> {
        if !self.store.pool.is_cluster() || Instant::now() < self.next_owner_check {
            return Ok(());
        }
        self.next_owner_check = Instant::now() + OWNER_CHECK_INTERVAL;
        let mut failure = None;
        for line in mem::take(&mut self.lines) {
            if line.partitions.iter().all(|&partition| self.may_be_at(partition, &line.server)) {
                self.lines.push(line);
            } else {
                self.miss(line);
                let why = "another node of the cluster has the channel now";
                failure = Some(Error::new(ErrorKind::Unavailable, operation::LISTEN_FOR_ENDS).with_source(why));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Returns `false` if another server has the channel of this partition.
    fn may_be_at(&self, partition: u32, server: &Arc<Server>) -> bool {
        let owner = self.store.pool.server_of(operation::LISTEN_FOR_ENDS, &self.store.keys.channel(partition));
        owner.map_or(true, |owner| Arc::ptr_eq(&owner, server))
    }

    fn miss(&mut self, line: Line) {
        self.is_ready = false;
        self.missing.extend(line.partitions);
    }
}

/// Decodes a message of `note_end.lua`: the reason, the handle of the successor or `-`, and the key.
fn decode_end(message: &[u8]) -> Option<Ended> {
    let mut parts = message.splitn(3, |byte| *byte == b' ');
    let (reason, successor, key) = (parts.next()?, parts.next()?, parts.next()?);
    let ended = Ended::new(Handle::of_key(key), EndReason::of_text(reason));
    let successor = str::from_utf8(successor).ok().and_then(|handle| handle.parse().ok());
    Some(Ended { successor, ..ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_scripts_are_decoded() {
        let (old, new) = (Handle::of_key(b"a key"), Handle::of_key(b"new"));
        assert_eq!(decode_end(b"cap - a key"), Some(Ended::new(old, EndReason::Cap)));
        let renewed = format!("renewed {new} a key");
        let expected = Ended::new(old, EndReason::Renewed).with_successor(new);
        assert_eq!(decode_end(renewed.as_bytes()), Some(expected));
        assert_eq!(decode_end(b"later - a key"), Some(Ended::new(old, EndReason::Unknown)));
        for other in [&b""[..], b"cap", b"cap -"] {
            assert_eq!(decode_end(other), None);
        }
    }
}
