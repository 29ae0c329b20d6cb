//! The step [`Encrypted`], which encrypts payloads with XChaCha20-Poly1305.
//!
//! Applications add it to a [`StepStore`](crate::StepStore). A payload decrypts only with its key and under its own session, and
//! one payload of one session always encrypts to the same bytes, because a store recognises a repeated write by its bytes.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Next, Step, Subject, WriteOperation, Written};
use crate::store::Bytes;
use crate::{Error, ErrorKind, Handle, Reason, Result, codec, operation};

/// The first byte of an encrypted payload. No JSON or MessagePack envelope begins with it.
const FORMAT_VERSION: u8 = codec::ENCRYPTED;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;

/// A step that encrypts payloads with XChaCha20-Poly1305, so that a copy of the database does not reveal the sessions.
///
/// An encrypted payload is bound to the key under which its session is stored. [`ErrorKind::Payload`] rejects a payload that
/// was altered or moved to another session, or whose encryption key is missing. The stored payload is not changed, and can be
/// read as soon as the right key is back.
///
/// The size of a payload, the time it has left, and companions are not hidden. Neither is the id, which gives access to the
/// session, unless keys are [hashed](crate::RedisSessionStoreBuilder::hashed_keys); so combine the two. An attacker who can
/// write to the database can restore an old payload of the same session.
///
/// # Changing the key
///
/// Put the new key first, and keep the old one with [`with_old`](Self::with_old) until the sessions that it encrypted have been
/// written again or have expired. With several processes, first deploy the new key as an old one everywhere, so that each
/// process can read what the others write.
///
/// # Examples
///
/// ```
/// use threaded_sessions::step::{Encrypted, EncryptionKey};
/// use threaded_sessions::{MemorySessionStore, SessionManager, StepStore};
///
/// # let hex_of_32_bytes = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// let key = EncryptionKey::from_hex(hex_of_32_bytes)?;
/// let store = StepStore::builder(MemorySessionStore::new()).step(Encrypted::new(key)).build()?;
/// let sessions = SessionManager::<u32>::new(store);
/// # let _ = sessions;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encrypted {
    newest: EncryptionKey,
    old: Vec<EncryptionKey>,
}

impl Encrypted {
    /// Creates a step that encrypts with this key.
    pub fn new(key: EncryptionKey) -> Self {
        Self { newest: key, old: Vec::new() }
    }

    /// Adds a key that is only used to decrypt. Defaults to none.
    ///
    /// # Examples
    ///
    /// ```
    /// use threaded_sessions::step::{Encrypted, EncryptionKey};
    ///
    /// let step = Encrypted::new(EncryptionKey::from_bytes([2; 32])).with_old(EncryptionKey::from_bytes([1; 32]));
    /// # let _ = step;
    /// ```
    pub fn with_old(mut self, key: EncryptionKey) -> Self {
        self.old.push(key);
        self
    }
}

impl Step for Encrypted {
    fn write(&self, operation: &mut WriteOperation<'_>, next: Next<'_>) -> Result<Written> {
        operation.set_payload(self.newest.encrypt(operation.handle(), operation.payload())?);
        next.write(operation)
    }

    fn restore(&self, session: &Subject<'_>, payload: Bytes) -> Result<Bytes> {
        let Some((&[FORMAT_VERSION, a, b, c, d], sealed)) = payload.split_first_chunk() else {
            return Err(undecryptable("it is not encrypted"));
        };
        let mut keys = std::iter::once(&self.newest).chain(&self.old).filter(|key| key.id == [a, b, c, d]).peekable();
        if keys.peek().is_none() {
            return Err(undecryptable("it is encrypted with a key that is not here"));
        }
        let decrypted = keys.find_map(|key| key.decrypt(session.handle(), sealed));
        decrypted.map(Into::into).ok_or_else(|| undecryptable("it was altered, or belongs to another session"))
    }
}

/// A key of 256 bits for [`Encrypted`]. Its `Debug` shows only the short id that payloads carry.
#[derive(Clone)]
pub struct EncryptionKey {
    id: [u8; KEY_ID_BYTES],
    cipher: XChaCha20Poly1305,
    nonces: Hmac<Sha256>,
}

impl EncryptionKey {
    /// Creates a key of these bytes, which must be random, such as those of `openssl rand -hex 32`.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        // Derive one key for each purpose, so that no key reveals anything about the others.
        let part = |name: &[u8]| -> [u8; 32] { mac(&hmac(&bytes), &[b"threaded-sessions ", name]) };
        let [a, b, c, d, ..] = part(b"id");
        Self {
            id: [a, b, c, d],
            cipher: XChaCha20Poly1305::new(&part(b"payloads").into()),
            nonces: hmac(&part(b"nonces")),
        }
    }

    /// Creates a key of 64 hexadecimal digits, as in a setting.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`] if the text has another form.
    pub fn from_hex(digits: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map(|()| Self::from_bytes(bytes)).map_err(|_| {
            let why = "an encryption key must be 64 hexadecimal digits";
            Error::misconfigured(operation::READ_ENCRYPTION_KEY, why)
        })
    }

    /// Encrypts deterministically: the nonce follows from session and payload, as in SIV modes. A store recognises a repeated
    /// write by its bytes, so one payload of one session must always encrypt to the same bytes. Different payloads get
    /// different nonces. Determinism reveals nothing, because no two payloads of a session are equal.
    fn encrypt(&self, handle: Handle, payload: &[u8]) -> Result<Vec<u8>> {
        let bound_to = self.bound_to(handle);
        let [nonce @ .., _, _, _, _, _, _, _, _] = mac(&self.nonces, &[&bound_to, payload]);
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: payload, aad: &bound_to });
        let sealed = sealed.map_err(|_| Error::new(ErrorKind::Payload, operation::ENCRYPT))?;
        Ok([&[FORMAT_VERSION], &self.id[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, handle: Handle, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let message = Payload { msg: sealed, aad: &self.bound_to(handle) };
        self.cipher.decrypt(&XNonce::from(*nonce), message).ok()
    }

    /// The associated data: a payload decrypts only with this version, this key and this handle.
    fn bound_to(&self, handle: Handle) -> Vec<u8> {
        [&[FORMAT_VERSION], &self.id[..], handle.as_bytes()].concat()
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({}, ..)", hex::encode(self.id))
    }
}

fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac(hmac: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = hmac.clone();
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

fn undecryptable(why: &'static str) -> Error {
    Error::new(ErrorKind::Payload, operation::DECRYPT).with_source(Reason::new(why))
}
