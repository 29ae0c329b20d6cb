//! A merge applies the changes of one side and keeps all other fields of the stored value.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use threaded_sessions::Codec;
use threaded_sessions::codec::{Envelope, Format, JsonFormat, MessagePackFormat, SerdeCodec};
use threaded_sessions_fuzz::{Draft, Edit, Fields, Payload, borrowed, decode, encode, shown};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// As a manager has it: both encoded here, and what is stored now, by whomever.
    Likely(Draft, Vec<Edit>, Payload<'a>),
    /// The same where they began with what I began with.
    Fork(Draft, Vec<Edit>, Vec<Edit>),
    Wild([Payload<'a>; 3]),
}

fuzz_target!(|input: Input<'_>| {
    check::<JsonFormat>(&input);
    check::<MessagePackFormat>(&input);
});

fn check<F: Format>(input: &Input<'_>) {
    match input {
        Input::Likely(base, edits, theirs) => {
            let Some(theirs) = theirs.bytes::<F>() else { return };
            check_merge::<F>(&base.envelope(), edits, &theirs);
        }
        Input::Fork(base, mine, theirs) => {
            let base = base.envelope();
            if let Ok(theirs) = encode::<F, _>(borrowed(&edited(&base, theirs))) {
                check_merge::<F>(&base, mine, &theirs);
            }
        }
        Input::Wild([base, mine, theirs]) => {
            let (Some(base), Some(mine), Some(theirs)) = (base.bytes::<F>(), mine.bytes::<F>(), theirs.bytes::<F>())
            else {
                return;
            };
            let _ = merge::<F>(&base, &mine, &theirs);
        }
    }
}

fn check_merge<F: Format>(base: &Envelope<Fields>, edits: &[Edit], theirs: &[u8]) {
    let mine = edited(base, edits);
    let (Ok(before), Ok(after)) = (encode::<F, _>(borrowed(base)), encode::<F, _>(borrowed(&mine))) else { return };
    let merged = merge::<F>(&before, &after, theirs);
    let Ok(there) = decode::<F, Fields>(theirs) else { return };
    // A merge is rejected if it would lose fields of the other side, or if both sides changed a list that may be a set.
    let Some(merged) = merged else { return };
    let merged = decode::<F, Fields>(&merged).unwrap();

    let mut expected = decode::<F, Fields>(theirs).unwrap();
    let names: Vec<&String> = base.data.keys().chain(mine.data.keys()).collect();
    for name in names {
        let [was, is] = [&base.data, &mine.data].map(|fields| fields.get(name));
        // As text, for NaN is not equal to itself.
        if format!("{was:?}") == format!("{is:?}") {
            continue;
        }
        match is {
            Some(node) => drop(expected.data.insert(name.clone(), node.clone())),
            None => drop(expected.data.remove(name)),
        }
    }
    if mine.created != base.created {
        expected.created = mine.created;
    }
    let is_forgotten = base.remembered.is_some() && mine.remembered.is_some() && there.remembered.is_none();
    if mine.remembered != base.remembered && !is_forgotten {
        expected.remembered = mine.remembered;
    }
    // A new label does not undo a change of the owner.
    let [was, is, theirs] = [base, &mine, &there].map(|session| session.bound.as_ref().map(|bound| &bound.principal));
    if mine.bound != base.bound && (was != is || theirs == is) {
        expected.bound = mine.bound.clone();
    }
    assert!(![base.revision, there.revision].contains(&merged.revision));
    expected.revision = merged.revision;
    assert_eq!(shown(&merged), shown(&expected));
}

/// Merges, and checks that the result can be decoded.
fn merge<F: Format>(base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    let merged = SerdeCodec::<F, Fields>::new().merge(base, mine, theirs)?;
    F::from_slice::<Envelope<BTreeMap<String, IgnoredAny>>>(&merged).unwrap();
    Some(merged)
}

fn edited(base: &Envelope<Fields>, edits: &[Edit]) -> Envelope<Fields> {
    let mut edited = base.clone();
    edits.iter().for_each(|edit| edit.apply(&mut edited));
    edited
}
