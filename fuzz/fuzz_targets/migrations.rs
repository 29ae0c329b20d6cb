//! Old payloads are decoded in the first form that fits. A payload of a newer layout is rejected before any migration runs.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};
use threaded_sessions::Codec;
use threaded_sessions::codec::{Envelope, Format, JsonFormat, MessagePackFormat, SerdeCodec};
use threaded_sessions_fuzz::{Damage, borrowed, decode, encode, quotes_nothing, shown};

#[derive(Arbitrary, Debug, Deserialize, Serialize)]
struct First {
    name: String,
}

#[derive(Arbitrary, Debug, Deserialize, Serialize)]
struct Second {
    names: Vec<String>,
}

#[derive(Arbitrary, Debug, Deserialize, PartialEq, Serialize)]
struct Third {
    people: Vec<(String, u32)>,
}

#[derive(Arbitrary, Debug)]
enum Stored<'a> {
    Any(&'a [u8]),
    First(First),
    Second(Second),
    Third(Third),
    OfVersion(u64, Second),
}

impl Stored<'_> {
    fn bytes<F: Format>(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Other<'a> {
            v: u64,
            rev: u64,
            created: u64,
            data: &'a Second,
        }
        match self {
            Self::Any(bytes) => Ok(bytes.to_vec()),
            Self::First(data) => encode::<F, _>(Envelope::new(data)),
            Self::Second(data) => encode::<F, _>(Envelope::new(data)),
            Self::Third(data) => encode::<F, _>(Envelope::new(data)),
            Self::OfVersion(v, data) => F::to_vec(&Other { v: *v, rev: 1, created: 1, data }),
        }
        .unwrap()
    }
}

fuzz_target!(|input: (Stored<'_>, Vec<Damage>)| {
    check::<JsonFormat>(&input);
    check::<MessagePackFormat>(&input);
});

const NOBODY: &str = "nobody";

fn check<F: Format>((stored, damages): &(Stored<'_>, Vec<Damage>)) {
    let mut bytes = stored.bytes::<F>();
    damages.iter().for_each(|damage| damage.apply(&mut bytes));

    let codec = SerdeCodec::<F, Third>::new()
        .migrate(|Second { names }| match names.is_empty() {
            true => Err(NOBODY.into()),
            false => Ok(Third { people: names.into_iter().map(|name| (name, 2)).collect() }),
        })
        .migrate(|First { name }| Ok(Third { people: vec![(name, 1)] }));
    let plain = decode::<F, Third>(&bytes);
    let decoded = match codec.decode(&bytes) {
        Ok(decoded) => decoded,
        Err(error) if error.to_string() == NOBODY => {
            assert!(decode::<F, Second>(&bytes).unwrap().data.names.is_empty());
            return;
        }
        Err(error) => {
            quotes_nothing(&error);
            assert_eq!(error.to_string(), plain.unwrap_err().to_string());
            assert!(decode::<F, Second>(&bytes).is_err() && decode::<F, First>(&bytes).is_err());
            return;
        }
    };
    if let (Stored::OfVersion(v, _), []) = (stored, &damages[..]) {
        assert_eq!(*v, 1);
    }
    let again = encode::<F, _>(borrowed(&decoded)).unwrap();
    assert_eq!(shown(&decode::<F, Third>(&again).unwrap()), shown(&decoded));
    match plain {
        Ok(plain) => assert_eq!(shown(&decoded), shown(&plain)),
        Err(_) => match (decode::<F, Second>(&bytes), decode::<F, First>(&bytes)) {
            (Ok(old), _) => assert_eq!(old.data.names.len(), decoded.data.people.len()),
            (_, Ok(old)) => assert_eq!(decoded.data.people, [(old.data.name, 1)]),
            _ => panic!("made of nothing"),
        },
    }
}
