//! The sessions of a principal, read in pages, and changed from outside.
//!
//! The store and its index call it for [`update_all`](crate::SessionManager::update_all). The invariant: a page is one script
//! in one hash slot, and a change moves neither the deadline nor the owner of a session.

use super::RedisSessionStore;
use super::keys;
use super::net::error::Effect;
use super::net::pool::To;
use super::reply::{decode_saved, decode_ttl};
use super::scripted::write_args;
use super::version::{compare_args, version_of};
use super::walk::text;
use crate::store::{Owned, OwnedPage, Saved, SessionKey, Version, Write};
use crate::{Handle, Result, operation};

/// The number of sessions that one page looks at.
const PAGE: usize = 100;

/// The reply of `owned_after.lua`: the time of the last session that the script looked at, and the live sessions. A session is its
/// key, its payload, the milliseconds that it has left, and the time at which the owner got it.
type Reply = (i64, Vec<(Vec<u8>, Vec<u8>, i64, u64)>);

/// Reads a page of the sessions of a principal in one partition.
pub(super) fn page(
    store: &RedisSessionStore,
    operation: &'static str,
    principal: &str,
    partition: u32,
    after: Option<u64>,
) -> Result<OwnedPage> {
    let (owner, page) = (keys::owner(principal), PAGE.to_string());
    let after = after.map(|after| after.to_string()).unwrap_or_default();
    let args = [owner.as_bytes(), page.as_bytes(), after.as_bytes()];
    let script = &store.scripts.owned_after;
    let (last, found): Reply = store.index_script(operation, Effect::Reads, script, partition, &args)?;
    store.foreign_keys.look(&store.keys, partition, found.iter().map(|(key, ..)| &**key));
    let found = found.into_iter().map(|(key, payload, left, since)| {
        let (key, version) = (SessionKey::new(Handle::of_key(&key), partition, key), version_of(&payload));
        Owned::new(key, payload, version, decode_ttl(left), since)
    });
    Ok(OwnedPage::new(found.collect(), u64::try_from(last).ok()))
}

/// Replaces the payload of a session, if it has the expected version.
pub(super) fn change(
    store: &RedisSessionStore,
    key: &SessionKey,
    write: Write<'_>,
    expected: &Version,
) -> Result<Saved> {
    let key = text(key)?;
    let _near = store.near.forgets(key);
    let mut args = write_args(store, Write { ttl: None, ..write })?;
    args.extend(compare_args(Some(expected)));
    let answer = store.pool.call(operation::UPDATE_ALL, Effect::Writes, To::Key(key), |connection| {
        store.scripts.change.call(connection, &[key], &args, None)
    })?;
    let repeated = answer.repeated;
    let saved = decode_saved(operation::UPDATE_ALL, answer, write.payload)?;
    store.unless_rotated(operation::UPDATE_ALL, key, saved, repeated)
}
