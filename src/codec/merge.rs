//! Merging: the changes of one request, put onto the session that another request stored.
//!
//! [`SerdeCodec`](super::SerdeCodec) uses it. The result of a merge must be a value that encodes to exactly
//! the merged fields; otherwise the merge is rejected. So a merge never makes a value that neither request meant, and never drops an
//! unknown field.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shape::{Shape, Tree};
use super::{Codec, Envelope, Format, SerdeCodec};

type Fields<F> = BTreeMap<String, <F as Format>::Value>;

/// A text that is the name of no variant.
const NO_VARIANT: &str = "\u{1}no variant";

/// The codec, as merging uses it.
pub(super) struct Merger<'c, F, T>(pub(super) &'c SerdeCodec<F, T>);

impl<F: Format, T: Serialize + DeserializeOwned + 'static> Merger<'_, F, T> {
    /// Puts what changed from `base` to `mine` onto `theirs`. Returns `None` if that is not possible without a doubt.
    pub(super) fn merge(&self, base: &[u8], mine: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        if self.loses(theirs) {
            return None;
        }
        // Decode and encode what is stored, so that migrations run before fields are compared by name.
        let stored = self.0.decode(theirs).ok()?;
        let theirs = F::to_vec(&stored.by_ref()).ok()?;
        let [base, mine, theirs] = [base, mine, &*theirs].map(|payload| F::from_slice::<Envelope<Fields<F>>>(payload));
        let (base, mine, mut merged) = (base.ok()?, mine.ok()?, theirs.ok()?);
        merged.apply_head(&base.head(), &mine.head());
        merged.data = self.merge_fields(&base.data, &mine.data, &merged.data)?;
        merged.revise();
        F::to_vec(&merged).ok()
    }

    fn merge_fields(&self, base: &Fields<F>, mine: &Fields<F>, theirs: &Fields<F>) -> Option<Fields<F>> {
        let (my_changes, their_changes) = (changes::<F>(base, mine), changes::<F>(base, theirs));
        if my_changes.is_empty() {
            return copy::<F>(theirs);
        }
        if their_changes.is_empty() {
            return copy::<F>(mine);
        }
        match Shape::of::<T>() {
            Shape::Fields => {}
            Shape::Variant => return None,
            Shape::Unknown => {
                let are_separate = self.stand_alone(base, mine, &my_changes)
                    && self.stand_alone(base, theirs, &their_changes)
                    && my_changes.iter().all(|name| mine.contains_key(*name) || !their_changes.contains(name))
                    && their_changes.iter().all(|name| theirs.contains_key(*name) || !my_changes.contains(name));
                if !are_separate {
                    return None;
                }
            }
        }
        let mut merged = copy::<F>(theirs)?;
        for name in my_changes {
            // A set that is encoded in another order looks like a list that was sorted. If the other request changed it too, no
            // guess is safe.
            if their_changes.contains(name) && is_reordered::<F>(base.get(name), mine.get(name)) {
                return None;
            }
            put::<F>(&mut merged, mine, name)?;
        }
        self.is_value(&merged).then_some(merged)
    }

    /// Returns `true` if these are the fields of a value, all of them.
    fn is_value(&self, fields: &Fields<F>) -> bool {
        let again = || -> Option<Fields<F>> {
            let value: T = F::from_slice(&F::to_vec(fields).ok()?).ok()?;
            F::from_slice(&F::to_vec(&value).ok()?).ok()
        };
        again().is_some_and(|again| {
            again.len() == fields.len()
                && fields.iter().all(|(name, value)| {
                    again.get(name).is_some_and(|again| value == again || is_reordered::<F>(Some(value), Some(again)))
                })
        })
    }

    /// Returns `true` if each of the changes, alone, makes a value, and if none of them can be a change of a variant.
    fn stand_alone(&self, base: &Fields<F>, after: &Fields<F>, changes: &BTreeSet<&String>) -> bool {
        changes.iter().all(|name| {
            let stands_alone = || -> Option<bool> {
                let mut changed = copy::<F>(base)?;
                put::<F>(&mut changed, after, name)?;
                Some(self.is_value(&changed) && !self.is_variant_change(base, after, name)?)
            };
            stands_alone().unwrap_or(false)
        })
    }

    /// Returns `true` if a field may name a variant: it changed its kind, or it is a text that cannot be any text.
    fn is_variant_change(&self, base: &Fields<F>, after: &Fields<F>, name: &str) -> Option<bool> {
        let (Some(before), Some(now)) = (base.get(name), after.get(name)) else { return Some(false) };
        let [before, now] = [tree::<F>(before)?.kind(), tree::<F>(now)?.kind()];
        if before != now {
            return Some(before != "nothing" && now != "nothing");
        }
        Some(before == "text" && !self.is_value(&with_no_variant::<F>(base, name)?))
    }

    /// Returns `true` if the payload has fields that this program does not know. Encoded again, they would be lost.
    pub(super) fn loses(&self, payload: &[u8]) -> bool {
        // A migration decides for itself what it leaves out.
        let Ok(known) = F::from_slice::<Envelope<T>>(payload) else { return false };
        let Ok(again) = F::to_vec(&known.by_ref()) else { return true };
        let fields = |payload: &[u8]| F::from_slice::<Envelope<Fields<F>>>(payload).ok();
        let (Some(stored), Some(again)) = (fields(payload), fields(&again)) else {
            let tree = |payload: &[u8]| F::from_slice::<Envelope<Tree>>(payload).ok();
            return match (tree(payload), tree(&again)) {
                (Some(stored), Some(again)) => stored.data.has_more_than(&again.data),
                _ => true,
            };
        };
        stored.data.iter().any(|(name, value)| match again.data.get(name) {
            None => !self.is_known(&stored.data, &again.data, name),
            Some(again) if value == again => false,
            Some(again) => match (tree::<F>(value), tree::<F>(again)) {
                (Some(value), Some(again)) => value.has_more_than(&again),
                _ => true,
            },
        })
    }

    /// Returns `true` if the value depends on a field, which it encodes under another name or not at all.
    fn is_known(&self, stored: &Fields<F>, again: &Fields<F>, name: &str) -> bool {
        let spoiled = || -> Option<Fields<F>> {
            let value: T = F::from_slice(&F::to_vec(&with_no_variant::<F>(stored, name)?).ok()?).ok()?;
            F::from_slice(&F::to_vec(&value).ok()?).ok()
        };
        spoiled().is_none_or(|spoiled| !changes::<F>(again, &spoiled).is_empty())
    }
}

/// Returns `true` if the two payloads have equal values.
pub(super) fn is_same<F: Format>(one: &[u8], other: &[u8]) -> bool {
    let value = |payload: &[u8]| F::from_slice::<Envelope<F::Value>>(payload).ok();
    matches!((value(one), value(other)), (Some(one), Some(other)) if one.data == other.data)
}

/// Returns `true` if one has the bytes of the other, in any order.
pub(super) fn has_same_bytes(one: &[u8], other: &[u8]) -> bool {
    // The sums show most changes, and take a small part of the time of the counts.
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if one.len() != other.len() || sum(one) != sum(other) {
        return false;
    }
    let mut surplus = [0_i64; 256];
    one.iter().for_each(|byte| surplus[usize::from(*byte)] += 1);
    other.iter().for_each(|byte| surplus[usize::from(*byte)] -= 1);
    surplus.iter().all(|count| *count == 0)
}

/// The names of the fields that differ.
fn changes<'f, F: Format>(before: &'f Fields<F>, after: &'f Fields<F>) -> BTreeSet<&'f String> {
    let names = before.keys().chain(after.keys());
    names.filter(|name| before.get(*name) != after.get(*name)).collect()
}

/// Makes a field in `fields` what it is in `from`.
fn put<F: Format>(fields: &mut Fields<F>, from: &Fields<F>, name: &str) -> Option<()> {
    match from.get(name) {
        Some(value) => drop(fields.insert(name.to_owned(), copy_value::<F>(value)?)),
        None => drop(fields.remove(name)),
    }
    Some(())
}

fn with_no_variant<F: Format>(fields: &Fields<F>, name: &str) -> Option<Fields<F>> {
    let mut spoiled = copy::<F>(fields)?;
    spoiled.insert(name.to_owned(), F::from_slice(&F::to_vec(&NO_VARIANT).ok()?).ok()?);
    Some(spoiled)
}

fn copy<F: Format>(fields: &Fields<F>) -> Option<Fields<F>> {
    F::from_slice(&F::to_vec(fields).ok()?).ok()
}

fn copy_value<F: Format>(value: &F::Value) -> Option<F::Value> {
    F::from_slice(&F::to_vec(value).ok()?).ok()
}

fn tree<F: Format>(value: &F::Value) -> Option<Tree> {
    F::from_slice(&F::to_vec(value).ok()?).ok()
}

/// Returns `true` if two values have the same parts in another order.
fn is_reordered<F: Format>(one: Option<&F::Value>, other: Option<&F::Value>) -> bool {
    let sorted = |value: Option<&F::Value>| {
        let mut tree = tree::<F>(value?)?;
        tree.sort();
        Some(tree)
    };
    matches!((sorted(one), sorted(other)), (Some(one), Some(other)) if one == other)
}
