//! The names of operations, as errors show them.
//!
//! Every module that makes an error takes the name from here, so that one operation has one name wherever it fails.

// Some operations exist only with a feature.
#![allow(dead_code)]

pub(crate) const ACCEPT: &str = "accepting connections";
pub(crate) const BUILD_MANAGER: &str = "building a manager";
pub(crate) const BUILD_POOL: &str = "building a pool";
pub(crate) const BUILD_STORE: &str = "building a store";
pub(crate) const CHECK: &str = "checking Redis";
pub(crate) const CHECK_CROSS_ORIGIN: &str = "checking the origin of a request";
pub(crate) const CONNECT: &str = "connecting to Redis";
pub(crate) const COUNT: &str = "counting sessions";
pub(crate) const CREATE: &str = "creating a session";
pub(crate) const DECODE: &str = "decoding a session";
pub(crate) const DECRYPT: &str = "decrypting a session";
pub(crate) const DELETE: &str = "deleting a session";
pub(crate) const ENCODE: &str = "encoding a session";
pub(crate) const ENCRYPT: &str = "encrypting a session";
pub(crate) const END: &str = "ending sessions";
pub(crate) const END_ALL_SESSIONS: &str = "ending all sessions";
pub(crate) const ENFORCE_CAP: &str = "enforcing the cap";
pub(crate) const END_RIVALS: &str = "ending the visitor's other sessions";
pub(crate) const KEEP_COMPANIONS: &str = "preparing companions";
pub(crate) const LISTEN_FOR_ENDS: &str = "listening for ended sessions";
pub(crate) const LISTEN_FOR_SIGNALS: &str = "listening for signals";
pub(crate) const LIST_BY_PRINCIPAL: &str = "listing the sessions of a principal";
pub(crate) const MAKE_CSRF_TOKEN: &str = "making a CSRF token";
pub(crate) const MERGE: &str = "merging two changes";
pub(crate) const NAME_COOKIE: &str = "naming the cookie";
pub(crate) const NAME_KEYS: &str = "naming keys";
pub(crate) const OPEN: &str = "opening a session";
pub(crate) const PAGE: &str = "listing sessions";
pub(crate) const READ: &str = "reading a session";
pub(crate) const READ_ADDRESS: &str = "reading the address of Redis";
pub(crate) const READ_ATTRIBUTE: &str = "reading an attribute";
pub(crate) const READ_BACK: &str = "reading back a session before it is stored";
pub(crate) const READ_COMPANION: &str = "reading a companion";
pub(crate) const READ_ENCRYPTION_KEY: &str = "reading an encryption key";
pub(crate) const READ_KIND: &str = "reading the kind of store";
pub(crate) const READ_WRITTEN_AT: &str = "reading when a session was written";
pub(crate) const REAP: &str = "reaping sessions";
pub(crate) const RESTORE: &str = "restoring a payload";
pub(crate) const ROTATE: &str = "renewing a session";
pub(crate) const SAVE: &str = "saving a session";
pub(crate) const SET_ATTRIBUTE: &str = "setting an attribute";
pub(crate) const SET_DEADLINE: &str = "setting a deadline";
pub(crate) const START_REAPER: &str = "starting a reaper";
pub(crate) const UPDATE_ALL: &str = "changing the sessions of a principal";
pub(crate) const VERIFY: &str = "verifying the index";
pub(crate) const WALK: &str = "walking all sessions";
pub(crate) const WATCH: &str = "watching the store";
pub(crate) const WRITE_COMPANION: &str = "writing a companion";
