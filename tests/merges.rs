//! Two requests change one session: which pairs of changes are merged, and which are rejected.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use threaded_sessions::codec::{Envelope, Format, JsonFormat, SerdeCodec};
use threaded_sessions::{
    BoxError, Clock, Codec, ErrorKind, Json, MemorySessionStore, OnConflict, Outcome, Session, SessionId,
    SessionManager,
};

const DAY: Duration = Duration::from_secs(86_400);
const POLICIES: [OnConflict; 3] = [OnConflict::Merge, OnConflict::Fail, OnConflict::LastWriteWins];

/// Runs a test in each format.
macro_rules! in_each_format {
    ($test:ident) => {
        $test::<JsonFormat>();
        #[cfg(feature = "msgpack")]
        $test::<threaded_sessions::codec::MessagePackFormat>();
    };
}

fn sessions<T: Serialize + DeserializeOwned + 'static>(
    store: &MemorySessionStore,
    codec: impl Codec<T>,
) -> SessionManager<T> {
    SessionManager::builder(store.clone()).codec(codec).build().unwrap()
}

fn stored<T: Default + 'static>(sessions: &SessionManager<T>, value: T) -> SessionId {
    let mut session = sessions.fresh();
    session.renew();
    *session = value;
    *sessions.commit(session).unwrap().id().unwrap()
}

fn open<T: 'static>(sessions: &SessionManager<T>, id: &SessionId) -> Session<T> {
    sessions.open_id(id).unwrap().expect("it lives")
}

/// Opens a session twice, changes both, commits one after the other, and returns what is stored then.
fn race<F: Format, T>(value: T, first: impl FnOnce(&mut T), second: impl FnOnce(&mut T)) -> Result<T, ErrorKind>
where
    T: Clone + Default + Serialize + DeserializeOwned + 'static,
{
    let sessions = sessions::<T>(&MemorySessionStore::new(), SerdeCodec::<F, T>::new());
    let id = stored(&sessions, value);
    let (mut one, mut other) = (open(&sessions, &id), open(&sessions, &id));
    first(&mut one);
    second(&mut other);
    assert_eq!(sessions.commit(one).unwrap().outcome(), Outcome::Stored);
    let _ = sessions.commit(other).map_err(|error| error.kind())?;
    Ok((*open(&sessions, &id)).clone())
}

/// A race in both orders. Each is a conflict, or has the same result.
fn race_both<F: Format, T>(value: T, one: fn(&mut T), other: fn(&mut T)) -> Result<T, ErrorKind>
where
    T: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + 'static,
{
    let results = [race::<F, T>(value.clone(), one, other), race::<F, T>(value, other, one)];
    assert_eq!(results[0], results[1]);
    results.into_iter().next().unwrap()
}

const CONFLICT: ErrorKind = ErrorKind::Conflict;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shop {
    cart: HashMap<String, u32>,
    shelves: HashMap<String, HashMap<String, u32>>,
    tags: HashSet<String>,
    theme: String,
}

fn shop() -> Shop {
    let items = || (0..8).map(|n| (format!("item {n}"), 1)).collect::<HashMap<_, _>>();
    Shop {
        cart: items(),
        shelves: (0..8).map(|n| (format!("shelf {n}"), items())).collect(),
        tags: (0..8).map(|n| format!("tag {n}")).collect(),
        theme: String::new(),
    }
}

/// Builds the maps anew, so that they are encoded in another order.
fn rebuild(shop: &mut Shop) {
    shop.cart = std::mem::take(&mut shop.cart).into_iter().collect();
    shop.shelves = std::mem::take(&mut shop.shelves)
        .into_iter()
        .map(|(name, shelf)| (name, shelf.into_iter().collect()))
        .collect();
}

fn map_in_another_order_is_no_change_in<F: Format>() {
    let add = |shop: &mut Shop| {
        shop.cart.insert("tea".into(), 1);
        shop.shelves.get_mut("shelf 3").unwrap().insert("tea".into(), 1);
    };
    for _ in 0..10 {
        let merged = race::<F, _>(shop(), add, |shop| {
            rebuild(shop);
            shop.theme = "dark".into();
        });
        let mut expected = shop();
        add(&mut expected);
        expected.theme = "dark".into();
        assert_eq!(merged, Ok(expected));
    }
}

#[test]
fn map_in_another_order_is_no_change() {
    in_each_format!(map_in_another_order_is_no_change_in);
}

fn map_in_another_order_conflicts_under_no_policy_in<F: Format>() {
    for policy in POLICIES {
        let codec = SerdeCodec::<F, Shop>::new();
        let builder = SessionManager::builder(MemorySessionStore::new()).codec(codec).on_conflict(policy);
        let sessions = builder.build().unwrap();
        let id = stored(&sessions, shop());
        let (mut one, mut other) = (open(&sessions, &id), open(&sessions, &id));
        one.theme = "dark".into();
        rebuild(&mut other);
        let _ = sessions.commit(one).unwrap();
        let _ = sessions.commit(other).unwrap_or_else(|error| panic!("{policy:?}: {error}"));
        assert_eq!(open(&sessions, &id).theme, "dark", "{policy:?}");
    }
}

#[test]
fn map_in_another_order_conflicts_under_no_policy() {
    in_each_format!(map_in_another_order_conflicts_under_no_policy_in);
}

fn set_in_another_order_loses_no_item_in<F: Format>() {
    for _ in 0..10 {
        let merged = race::<F, _>(
            shop(),
            |shop| assert!(shop.tags.insert("new".into())),
            |shop| shop.tags = std::mem::take(&mut shop.tags).into_iter().collect(),
        );
        // The same order by chance, or a conflict. Either way the item is not lost.
        assert!(merged.is_err() || merged.unwrap().tags.contains("new"));
    }
}

#[test]
fn set_in_another_order_loses_no_item() {
    in_each_format!(set_in_another_order_loses_no_item_in);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state")]
enum Basket {
    Open { items: u32, note: String },
    Closed { items: u32, note: String },
    Paid { items: u32, paid: u32, note: String },
}

impl Default for Basket {
    fn default() -> Self {
        Self::Open { items: 1, note: String::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    hits: u32,
    #[serde(flatten)]
    basket: Basket,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", content = "content")]
enum Adjacent {
    Open(u32),
    Paid(u32),
}

impl Default for Adjacent {
    fn default() -> Self {
        Self::Open(1)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Guest { guest: u32, hits: u32 },
    User { user: u32, hits: u32 },
}

impl Default for Untagged {
    fn default() -> Self {
        Self::Guest { guest: 1, hits: 0 }
    }
}

fn change_of_variant_conflicts_in<F: Format>() {
    let two = |basket: &mut Basket| *basket = Basket::Open { items: 2, note: String::new() };
    let close = |basket: &mut Basket| *basket = Basket::Closed { items: 1, note: String::new() };
    let pay = |basket: &mut Basket| *basket = Basket::Paid { items: 1, paid: 1, note: String::new() };
    assert_eq!(race_both::<F, _>(Basket::default(), two, close), Err(CONFLICT));
    assert_eq!(race_both::<F, _>(Basket::default(), two, pay), Err(CONFLICT));

    let two = |order: &mut Order| order.basket = Basket::Open { items: 2, note: String::new() };
    let close = |order: &mut Order| order.basket = Basket::Closed { items: 1, note: String::new() };
    let pay = |order: &mut Order| order.basket = Basket::Paid { items: 1, paid: 1, note: String::new() };
    assert_eq!(race_both::<F, _>(Order::default(), two, close), Err(CONFLICT));
    assert_eq!(race_both::<F, _>(Order::default(), two, pay), Err(CONFLICT));

    let (two, pay) =
        (|state: &mut Adjacent| *state = Adjacent::Open(2), |state: &mut Adjacent| *state = Adjacent::Paid(1));
    assert_eq!(race_both::<F, _>(Adjacent::default(), two, pay), Err(CONFLICT));

    let hit = |visitor: &mut Untagged| *visitor = Untagged::Guest { guest: 1, hits: 1 };
    let login = |visitor: &mut Untagged| *visitor = Untagged::User { user: 7, hits: 0 };
    assert_eq!(race_both::<F, _>(Untagged::default(), hit, login), Err(CONFLICT));
}

#[test]
fn change_of_variant_conflicts() {
    in_each_format!(change_of_variant_conflicts_in);
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Notes {
    hits: u32,
    theme: String,
    #[serde(flatten)]
    rest: BTreeMap<String, String>,
}

fn independent_fields_merge_in<F: Format>() {
    // Within one variant, and in a flattened map.
    let two = |basket: &mut Basket| *basket = Basket::Open { items: 2, note: String::new() };
    let note = |basket: &mut Basket| *basket = Basket::Open { items: 1, note: "gift".into() };
    let both = Basket::Open { items: 2, note: "gift".into() };
    assert_eq!(race_both::<F, _>(Basket::default(), two, note), Ok(both.clone()));

    let hit = |order: &mut Order| order.hits = 1;
    let two = |order: &mut Order| order.basket = Basket::Open { items: 2, note: "gift".into() };
    let both = Order { hits: 1, basket: both };
    assert_eq!(race_both::<F, _>(Order::default(), hit, two), Ok(both));

    let one = |notes: &mut Notes| {
        notes.hits = 1;
        notes.rest.insert("a".into(), "1".into());
    };
    let other = |notes: &mut Notes| {
        notes.theme = "dark".into();
        notes.rest.insert("b".into(), "2".into());
    };
    let mut both = Notes::default();
    one(&mut both);
    other(&mut both);
    assert_eq!(race_both::<F, _>(Notes::default(), one, other), Ok(both));
}

#[test]
fn independent_fields_merge() {
    in_each_format!(independent_fields_merge_in);
}

fn value_without_change_never_conflicts_in<F: Format>() {
    type Act<T> = fn(&mut Session<T>);
    fn check<F: Format, T>(value: T, changed: T)
    where
        T: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + 'static,
    {
        let acts: [Act<T>; 5] = [
            Session::renew,
            |session| session.bind("ada", "laptop"),
            |session| session.remember(true),
            Session::restart_lifetime,
            |session| {
                session.renew();
                session.restart_lifetime();
                session.remember(true);
                session.bind("ada", "laptop");
            },
        ];
        for (act, policy) in acts.iter().flat_map(|act| POLICIES.map(|policy| (act, policy))) {
            let clock = Clock::manual();
            let store = MemorySessionStore::new().with_clock(clock.clone());
            let builder = SessionManager::builder(store).codec(SerdeCodec::<F, T>::new()).clock(clock.clone());
            let sessions = builder.on_conflict(policy).build().unwrap();
            let id = stored(&sessions, value.clone());
            clock.advance(DAY);
            let (mut login, mut other) = (open(&sessions, &id), open(&sessions, &id));
            act(&mut login);
            let asked = (login.principal().map(str::to_owned), login.is_remembered(), login.created());
            *other = changed.clone();
            let _ = sessions.commit(other).unwrap();
            let committed = sessions.commit(login).unwrap_or_else(|error| panic!("{policy:?}: {error:#}"));
            let session = open(&sessions, committed.id().unwrap());
            assert_eq!(*session, changed, "{policy:?}");
            assert_eq!((session.principal().map(str::to_owned), session.is_remembered(), session.created()), asked);
        }
    }
    check::<F, u32>(1, 2);
    check::<F, Vec<u32>>(vec![1], vec![1, 2]);
    check::<F, Basket>(Basket::default(), Basket::Closed { items: 1, note: String::new() });
    check::<F, Shop>(shop(), Shop::default());
}

#[test]
fn value_without_change_never_conflicts() {
    in_each_format!(value_without_change_never_conflicts_in);
}

/// The other way round: the value of this request is stored whole, if the other request left the value alone.
#[test]
fn value_changed_by_one_request_never_conflicts() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let id = stored(&sessions, 1);
    let (mut mine, mut other) = (open(&sessions, &id), open(&sessions, &id));
    *mine += 1;
    other.bind("ada", "laptop");
    let _ = sessions.commit(other).unwrap();
    let _ = sessions.commit(mine).unwrap();
    assert_eq!((*open(&sessions, &id), open(&sessions, &id).principal()), (2, Some("ada")));
}

/// A codec that cannot merge.
struct Inverted(Json<u32>);

impl Codec<u32> for Inverted {
    fn encode(&self, envelope: &Envelope<&u32>) -> Result<Vec<u8>, BoxError> {
        Ok(self.0.encode(envelope)?.iter().map(|byte| !byte).collect())
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<u32>, BoxError> {
        self.0.decode(&payload.iter().map(|byte| !byte).collect::<Vec<_>>())
    }
}

#[test]
fn login_with_custom_codec_never_conflicts() {
    let sessions = sessions(&MemorySessionStore::new(), Inverted(Json::new()));
    let id = stored(&sessions, 1);
    let (mut login, mut other) = (open(&sessions, &id), open(&sessions, &id));
    login.renew();
    login.bind("ada", "laptop");
    *other += 1;
    let _ = sessions.commit(other).unwrap();
    let committed = sessions.commit(login).unwrap();
    assert_eq!(*open(&sessions, committed.id().unwrap()), 2);
}

/// A page that only renames the device must not sign a visitor in again who signed out.
#[test]
fn other_label_undoes_no_sign_out() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let id = stored(&sessions, 1);
    let mut login = open(&sessions, &id);
    login.bind("ada", "laptop");
    let _ = sessions.commit(login).unwrap();
    for signs_out in [false, true] {
        let (mut renamed, mut other) = (open(&sessions, &id), open(&sessions, &id));
        renamed.bind("ada", "old laptop");
        if signs_out {
            other.unbind();
        } else {
            *other += 1;
        }
        let _ = sessions.commit(other).unwrap();
        let _ = sessions.commit(renamed).unwrap();
        assert_eq!(open(&sessions, &id).label(), (!signs_out).then_some("old laptop"));
        assert_eq!(sessions.list("ada").unwrap().is_empty(), signs_out);
    }
}

#[test]
fn other_label_undoes_no_change_of_owner() {
    let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    let id = stored(&sessions, 1);
    let mut login = open(&sessions, &id);
    login.bind("ada", "laptop");
    let _ = sessions.commit(login).unwrap();
    let (mut renamed, mut other) = (open(&sessions, &id), open(&sessions, &id));
    renamed.bind("ada", "old laptop");
    other.bind("bob", "phone");
    let _ = sessions.commit(other).unwrap();
    let _ = sessions.commit(renamed).unwrap();
    let session = open(&sessions, &id);
    assert_eq!((session.principal(), session.label()), (Some("bob"), Some("phone")));
    assert_eq!((sessions.list("ada").unwrap().len(), sessions.list("bob").unwrap().len()), (0, 1));
}

/// The two versions of a program during a rolling deploy.
mod deploy {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Before {
        user: Option<String>,
        hits: u32,
        theme: String,
    }

    /// `user` has another name, and `cart` is new. With `alias` no migration runs.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Aliased {
        #[serde(alias = "user")]
        account: Option<String>,
        hits: u32,
        theme: String,
        cart: Vec<u32>,
    }

    /// Without a default, so that payloads of [`Before`] are migrated.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Migrated {
        account: Option<String>,
        hits: u32,
        theme: String,
        cart: Vec<u32>,
    }

    fn migrating<F: Format>() -> SerdeCodec<F, Migrated> {
        SerdeCodec::new().migrate(|old: Before| {
            Ok(Migrated { account: old.user, hits: old.hits, theme: old.theme, cart: Vec::new() })
        })
    }

    /// Returns the account of a session, as the newest version of the program reads it.
    fn account<F: Format>(store: &MemorySessionStore, id: &SessionId) -> Option<String> {
        let aliased = sessions::<Aliased>(store, SerdeCodec::<F, Aliased>::new());
        open(&aliased, id).account.clone()
    }

    fn ada() -> Option<String> {
        Some("ada".to_owned())
    }

    /// A request of each version holds the session. `login`: one of them signs the visitor in, otherwise out.
    fn check<F: Format, N>(codec: fn() -> SerdeCodec<F, N>, set_account: fn(&mut N, Option<String>), hit: fn(&mut N))
    where
        N: Clone + Default + Serialize + DeserializeOwned + 'static,
    {
        for (login, old_is_first, old_decides) in (0..8).map(|bits| (bits & 1 == 0, bits & 2 == 0, bits & 4 == 0)) {
            let store = MemorySessionStore::new();
            let old = sessions::<Before>(&store, SerdeCodec::<F, Before>::new());
            let new = sessions::<N>(&store, codec());
            let (from, to) = if login { (None, ada()) } else { (ada(), None) };
            let id = stored(&old, Before { user: from, ..Before::default() });
            let (mut by_old, mut by_new) = (open(&old, &id), open(&new, &id));
            if old_decides {
                by_old.user = to.clone();
                hit(&mut by_new);
            } else {
                by_old.hits += 1;
                set_account(&mut by_new, to.clone());
            }
            let (first, second) = if old_is_first {
                (old.commit(by_old), new.commit(by_new))
            } else {
                let first = new.commit(by_new);
                (first, old.commit(by_old))
            };
            let _ = first.unwrap();
            let is_decision_stored = second.is_ok() || old_is_first == old_decides;
            if is_decision_stored {
                assert_eq!(account::<F>(&store, &id), to, "login {login}, old first {old_is_first}, {old_decides}");
            } else {
                assert_eq!(second.unwrap_err().kind(), CONFLICT);
            }
        }
    }

    fn no_login_is_lost_and_no_logout_undone_in<F: Format>() {
        check::<F, Aliased>(SerdeCodec::new, |new, to| new.account = to, |new| new.hits += 10);
        check::<F, Migrated>(migrating, |new, to| new.account = to, |new| new.hits += 10);
    }

    #[test]
    fn no_login_is_lost_and_no_logout_undone() {
        in_each_format!(no_login_is_lost_and_no_logout_undone_in);
    }

    fn stored_payload_is_migrated_before_merge_in<F: Format>() {
        let store = MemorySessionStore::new();
        let old = sessions::<Before>(&store, SerdeCodec::<F, Before>::new());
        let new = sessions::<Migrated>(&store, migrating::<F>());
        let id = stored(&old, Before { user: ada(), ..Before::default() });
        let (mut by_old, mut by_new) = (open(&old, &id), open(&new, &id));
        by_old.theme = "dark".into();
        by_new.cart.push(7);
        let _ = old.commit(by_old).unwrap();
        let _ = new.commit(by_new).unwrap();
        let expected = Migrated { account: ada(), hits: 0, theme: "dark".into(), cart: vec![7] };
        assert_eq!(*open(&new, &id), expected);
    }

    #[test]
    fn stored_payload_is_migrated_before_merge() {
        in_each_format!(stored_payload_is_migrated_before_merge_in);
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Item {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gift_for: Option<String>,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct OldItem {
        name: String,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Cart<I> {
        items: Vec<I>,
        hits: u32,
    }

    /// A field that the old version does not know, inside a list that it does know.
    fn unknown_nested_field_survives_a_conflict_in<F: Format>() {
        let store = MemorySessionStore::new();
        let old = sessions::<Cart<OldItem>>(&store, SerdeCodec::<F, Cart<OldItem>>::new());
        let new = sessions::<Cart<Item>>(&store, SerdeCodec::<F, Cart<Item>>::new());
        let id = stored(&old, Cart::default());
        let (mut by_old, mut by_new) = (open(&old, &id), open(&new, &id));
        by_new.items.push(Item { name: "tea".into(), gift_for: ada() });
        by_old.hits += 1;
        let _ = new.commit(by_new).unwrap();
        assert_eq!(old.commit(by_old).unwrap_err().kind(), CONFLICT);
        assert_eq!(open(&new, &id).items[0].gift_for, ada());
    }

    #[test]
    fn unknown_nested_field_survives_a_conflict() {
        in_each_format!(unknown_nested_field_survives_a_conflict_in);
    }
}

/// A cookie that is due moves a time in the session. The time is no change of the request.
mod due_cookie {
    use super::*;

    fn remembered(policy: OnConflict) -> (SessionManager<u32>, SessionId) {
        let clock = Clock::manual();
        let store = MemorySessionStore::new().with_clock(clock.clone());
        let builder = SessionManager::<u32>::builder(store).clock(clock.clone()).idle_timeout(DAY);
        let sessions = builder.remember_for(30 * DAY).on_conflict(policy).build().unwrap();
        let mut session = sessions.fresh();
        session.remember(true);
        *session = 1;
        let id = *sessions.commit(session).unwrap().id().unwrap();
        clock.advance(20 * DAY);
        (sessions, id)
    }

    #[test]
    fn login_with_due_cookie_overwrites_nothing() {
        let acts: [fn(&mut Session<u32>); 3] = [
            Session::renew,
            |session| session.bind("ada", "laptop"),
            |session| {
                session.renew();
                session.bind("ada", "laptop");
            },
        ];
        for (policy, act) in POLICIES.into_iter().flat_map(|policy| acts.map(|act| (policy, act))) {
            let (sessions, id) = remembered(policy);
            let (mut login, mut other) = (open(&sessions, &id), open(&sessions, &id));
            act(&mut login);
            *other = 2;
            let _ = sessions.commit(other).unwrap();
            let committed = sessions.commit(login).unwrap_or_else(|error| panic!("{policy:?}: {error:#}"));
            assert!(committed.headers().any(|(name, _)| name == "Set-Cookie"), "{policy:?}");
            let id = *committed.id().unwrap();
            assert_eq!(*open(&sessions, &id), 2, "{policy:?}");
            // The time of the cookie went onto the version of the other request.
            let committed = sessions.commit(open(&sessions, &id)).unwrap();
            assert!(!committed.headers().any(|(name, _)| name == "Set-Cookie"), "{policy:?}");
        }
    }

    #[test]
    fn update_in_with_due_cookie_overwrites_nothing() {
        for policy in POLICIES {
            let (sessions, id) = remembered(policy);
            let mut login = open(&sessions, &id);
            login.renew();
            sessions.update(&id, |count| *count += 10).unwrap();
            assert_eq!(sessions.update_in(&mut login, |count| *count += 100).unwrap(), Some(()));
            let committed = sessions.commit(login).unwrap();
            assert!(committed.headers().any(|(name, _)| name == "Set-Cookie"));
            assert_eq!(*open(&sessions, committed.id().unwrap()), 111);
        }
    }

    /// The refresh of a cookie by another request is no reason to reject a change.
    #[test]
    fn change_after_cookie_refresh_never_conflicts() {
        for policy in POLICIES {
            let (sessions, id) = remembered(policy);
            let (mut mine, other) = (open(&sessions, &id), open(&sessions, &id));
            *mine = 2;
            assert_eq!(sessions.commit(other).unwrap().outcome(), Outcome::Stored);
            let committed = sessions.commit(mine).unwrap_or_else(|error| panic!("{policy:?}: {error:#}"));
            assert_eq!(*open(&sessions, committed.id().unwrap()), 2);
        }
    }

    #[test]
    fn forgotten_visitor_is_not_remembered_by_due_cookie() {
        let (sessions, id) = remembered(OnConflict::Merge);
        let (mut login, mut other) = (open(&sessions, &id), open(&sessions, &id));
        login.renew();
        other.remember(false);
        let _ = sessions.commit(other).unwrap();
        let committed = sessions.commit(login).unwrap();
        let cookie = committed.headers().find(|(name, _)| *name == "Set-Cookie").unwrap().1;
        assert!(!cookie.contains("Max-Age"), "{cookie}");
        assert!(!open(&sessions, committed.id().unwrap()).is_remembered());
    }
}
