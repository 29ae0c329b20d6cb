//! Encodes and decodes envelopes of both formats. All targets use it.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use threaded_sessions::codec::{Envelope, Format, SerdeCodec};
use threaded_sessions::{BoxError, Codec};

pub fn encode<F: Format, T: Serialize + DeserializeOwned + 'static>(
    envelope: Envelope<&T>,
) -> Result<Vec<u8>, BoxError> {
    SerdeCodec::<F, T>::new().encode(&envelope)
}

pub fn decode<F: Format, T: Serialize + DeserializeOwned + 'static>(bytes: &[u8]) -> Result<Envelope<T>, BoxError> {
    SerdeCodec::<F, T>::new().decode(bytes)
}

/// The same envelope around a reference.
pub fn borrowed<T>(envelope: &Envelope<T>) -> Envelope<&T> {
    let mut borrowed = Envelope::new(&envelope.data);
    (borrowed.revision, borrowed.created) = (envelope.revision, envelope.created);
    (borrowed.remembered, borrowed.bound) = (envelope.remembered, envelope.bound.clone());
    borrowed
}

/// The content of an envelope as text, because NaN is not equal to itself and the `Debug` of an envelope shows no value.
pub fn shown<T: Debug>(envelope: &Envelope<T>) -> String {
    let bound = envelope.bound.as_ref().map(|bound| (&bound.principal, &bound.label));
    format!("{:?} {:?} {:?} {bound:?} {:?}", envelope.revision, envelope.created, envelope.remembered, envelope.data)
}

/// Errors have few texts, and nothing of the payload in them but the version of its layout.
pub fn quotes_nothing(error: &BoxError) {
    let text = error.to_string();
    let words: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    let known = [
        "the payload is not JSON, line  column ",
        "the payload is JSON that was cut short, line  column ",
        "the payload is JSON of another shape, line  column ",
        "the payload is not MessagePack of the right shape",
        "the payload has layout version , this program reads version ",
    ];
    assert!(known.contains(&&*words), "{text}");
}
