//! Observers get operations, sessions, conflicts and connections, without secrets; both exporters show the same figures.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Fault, PATIENCE, Proxy, RedisServer, eventually};
use threaded_sessions::observer::{
    CircuitEvent, CircuitState, Conflict, ConnectionEvent, Ended, Gauges, ObservedSession, Operation, OperationKind,
    OperationOutcome, PrometheusText,
};
use threaded_sessions::store::{Touch, VerifyOptions};
use threaded_sessions::{
    Clock, ErrorKind, Handle, MemorySessionStore, Observer, OnConflict, RedisSessionStore, SessionId, SessionManager,
    SessionManagerBuilder, SessionStore,
};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

type Cart = BTreeMap<String, u32>;

/// Keeps all events as texts, and the operations as they are.
#[derive(Default)]
struct Events {
    life: Mutex<Vec<String>>,
    handles: Mutex<Vec<Handle>>,
    operations: Mutex<Vec<Operation>>,
    pool: Mutex<Vec<String>>,
    circuit: Mutex<Vec<CircuitState>>,
    debug: Mutex<String>,
}

impl Events {
    fn note(&self, event: &dyn std::fmt::Debug) {
        self.debug.lock().unwrap().push_str(&format!("{event:?}\n"));
    }

    fn take_life(&self) -> Vec<String> {
        std::mem::take(&mut self.life.lock().unwrap())
    }

    fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut self.operations.lock().unwrap())
    }

    fn has_pool(&self, event: &str) -> bool {
        self.pool.lock().unwrap().iter().any(|seen| seen == event)
    }
}

impl Observer for Events {
    fn on_operation(&self, operation: &Operation) {
        self.note(operation);
        self.operations.lock().unwrap().push(operation.clone());
    }

    fn on_created(&self, session: &ObservedSession<'_>) {
        self.note(session);
        self.handles.lock().unwrap().push(session.handle());
        self.life.lock().unwrap().push("created".into());
    }

    fn on_renewed(&self, from: &ObservedSession<'_>, to: &ObservedSession<'_>) {
        self.note(&(from, to));
        self.handles.lock().unwrap().extend([from.handle(), to.handle()]);
        self.life.lock().unwrap().push("renewed".into());
    }

    fn on_ended(&self, ended: &Ended<'_>) {
        self.note(ended);
        self.handles.lock().unwrap().extend(ended.session.as_ref().map(ObservedSession::handle));
        self.life.lock().unwrap().push(format!("{} {}", ended.reason.as_str(), ended.sessions));
    }

    fn on_conflict(&self, conflict: &Conflict) {
        self.note(conflict);
        self.life.lock().unwrap().push(format!("{} after {}", conflict.resolution.as_str(), conflict.attempts));
    }

    fn on_connection(&self, event: &ConnectionEvent<'_>) {
        let text = match event {
            ConnectionEvent::Opened { .. } => "opened",
            ConnectionEvent::Failed { .. } => "failed",
            ConnectionEvent::Closed { reason, .. } => reason.as_str(),
            other => panic!("{other:?}"),
        };
        self.pool.lock().unwrap().push(text.into());
    }

    fn on_circuit(&self, event: &CircuitEvent<'_>) {
        self.circuit.lock().unwrap().push(event.state);
    }
}

fn observed(store: impl SessionStore) -> (Arc<Events>, SessionManagerBuilder<Cart>) {
    let events = Arc::new(Events::default());
    (events.clone(), SessionManager::builder(store).observer(events))
}

fn store_one(sessions: &SessionManager<Cart>) -> SessionId {
    let mut session = sessions.fresh();
    session.insert("tea".into(), 1);
    session.bind("ada", "laptop");
    *sessions.commit(session).unwrap().id().unwrap()
}

#[test]
fn request_reports_life_of_its_session() {
    let (events, builder) = observed(MemorySessionStore::new());
    let sessions = builder.build().unwrap();
    let open = |id: &SessionId| sessions.open_id(id).unwrap().unwrap();
    let id = store_one(&sessions);
    assert_eq!(events.take_life(), ["created"]);

    let mut session = open(&id);
    session.renew();
    let renewed = *sessions.commit(session).unwrap().id().unwrap();
    assert_eq!(events.take_life(), ["renewed"]);
    let mut session = open(&renewed);
    session.reset();
    let reset = *sessions.commit(session).unwrap().id().unwrap();
    assert_eq!(events.take_life(), ["reset 1", "created"]);
    let mut session = open(&reset);
    session.destroy();
    let _ = sessions.commit(session).unwrap();
    assert_eq!(events.take_life(), ["destroyed 1"]);

    let handle = |id: &SessionId| sessions.store().handle(id);
    let expected = [&id, &id, &renewed, &renewed, &reset, &reset].map(handle);
    assert_eq!(*events.handles.lock().unwrap(), expected);
}

#[test]
fn login_reports_end_of_other_cookie() {
    let (events, builder) = observed(MemorySessionStore::new());
    let sessions = builder.build().unwrap();
    let cookies = [(); 2].map(|()| format!("__Host-session={}", store_one(&sessions).expose())).join("; ");
    let mut session = sessions.open([&*cookies]).unwrap();
    session.renew();
    let _ = sessions.commit(session).unwrap();
    assert_eq!(events.take_life(), ["created", "created", "renewed", "superseded 1"]);
}

#[test]
fn ends_by_principal_report_number_and_reason() {
    let (events, builder) = observed(MemorySessionStore::new());
    let sessions = builder.build().unwrap();
    let ids = [(); 4].map(|()| store_one(&sessions));
    events.take_life();
    assert!(sessions.end("ada", sessions.store().handle(&ids[0])).unwrap());
    let session = sessions.open_id(&ids[1]).unwrap().unwrap();
    assert_eq!(sessions.end_others(&session).unwrap(), 2);
    assert_eq!(sessions.end_all("ada").unwrap(), 1);
    assert_eq!(sessions.end_all("ada").unwrap(), 0);
    assert_eq!(events.take_life(), ["end 1", "end_others 2", "end_all 1"]);
    let _ = [(); 2].map(|()| store_one(&sessions));
    events.take_life();
    assert_eq!(sessions.end_everybody().unwrap(), 2);
    assert_eq!(events.take_life(), ["end_everybody 2"]);
    let handle = sessions.store().handle(&store_one(&sessions));
    let _ = sessions.all().end_by_handle(handle, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(events.take_life(), ["created", "operator 1"]);
}

#[test]
fn reaper_lifetime_and_discard_report_ends() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let (events, builder) = observed(store.clone());
    let sessions = builder.idle_timeout(HOUR).build().unwrap();
    let reaper = sessions.reaper().start().unwrap();
    store_one(&sessions);
    clock.advance(HOUR);
    assert_eq!(reaper.reap_now().unwrap(), 1);
    assert_eq!(events.take_life(), ["created", "expired 1"]);

    // The clock of the manager is ahead of that of the store, so the store still has the session.
    let clock = Clock::manual();
    let (events, builder) = observed(store.clone());
    let sessions = builder.lifetime(HOUR).clock(clock.clone()).build().unwrap();
    let id = store_one(&sessions);
    clock.advance(HOUR);
    assert!(sessions.open_id(&id).unwrap().is_none());
    assert_eq!(events.take_life(), ["created", "lifetime 1"]);

    let id = store_one(&sessions);
    let numbers = Arc::new(Events::default());
    let others = SessionManager::<u32>::builder(store).observer(numbers.clone()).build().unwrap();
    let cookie = format!("__Host-session={}", id.expose());
    let _ = others.discard_unreadable([&*cookie]).unwrap();
    assert_eq!(numbers.take_life(), ["discarded 1"]);
}

#[test]
fn conflict_reports_its_resolution() {
    let store = MemorySessionStore::new();
    let (events, builder) = observed(store.clone());
    let sessions = builder.build().unwrap();
    let id = store_one(&sessions);
    let open = || sessions.open_id(&id).unwrap().unwrap();
    let change = |item: &str| {
        let mut session = open();
        session.insert(item.into(), 2);
        session
    };
    events.take_life();

    let (one, other) = (change("milk"), change("salt"));
    let _ = (sessions.commit(one).unwrap(), sessions.commit(other).unwrap());
    assert_eq!(events.take_life(), ["merged after 1"]);

    let (one, mut other) = (change("milk"), change("oil"));
    other.on_conflict(OnConflict::Fail);
    let _ = sessions.commit(change("flour")).unwrap();
    assert_eq!(sessions.commit(other).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(events.take_life(), ["rejected after 1"]);
    drop(one);

    // The other manager has another idle timeout, so its commit corrects the TTL of a session that did not change.
    let (refreshes, builder) = observed(store);
    let hourly = builder.idle_timeout(HOUR).build().unwrap();
    let unchanged = hourly.open_id(&id).unwrap().unwrap();
    let _ = sessions.commit(change("rice")).unwrap();
    let _ = hourly.commit(unchanged).unwrap();
    assert_eq!(refreshes.take_life(), ["yielded after 1"]);
}

#[test]
fn every_operation_reports_kind_outcome_and_size() {
    let (events, builder) = observed(MemorySessionStore::new());
    let sessions = builder.build().unwrap();
    let id = store_one(&sessions);
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.insert("milk".into(), 2);
    let _ = sessions.commit(session).unwrap();
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.renew();
    let renewed = *sessions.commit(session).unwrap().id().unwrap();
    assert!(sessions.open_id(&id).unwrap().is_none());
    assert!(sessions.open_id(&SessionId::random()).unwrap().is_none());
    let store = sessions.store();
    assert!(store.delete(&renewed).unwrap() && !store.delete(&renewed).unwrap());
    assert!(store.companion(&id, "none").is_ok());
    let index = store.index().unwrap();
    index.reap(0, 10, false).unwrap();
    index.page(0, 10).unwrap();
    sessions.count().unwrap();
    sessions.list("ada").unwrap();
    sessions.end_all("ada").unwrap();
    sessions.end_everybody().unwrap();
    assert_eq!(store.walk().unwrap().count(), 0);
    store.snapshots(&[]).unwrap();
    store.end_keys(&[]).unwrap();
    sessions.verify(VerifyOptions::new()).unwrap();

    use OperationKind::*;
    use OperationOutcome::{Absent, Done, Renewed};
    let operations = events.take_operations();
    let seen: Vec<_> = operations.iter().map(|operation| (operation.kind, operation.outcome)).collect();
    let single = [(Create, Done), (Read, Done), (Save, Done), (Read, Done), (Rotate, Done), (Read, Renewed)];
    let ends = [(Read, Absent), (Delete, Done), (Delete, Absent), (Companion, Absent)];
    let of_index = [Reap, Page, Count, ListByPrincipal, End, EndEverybody, Walk, Snapshots, EndKeys, Verify]
        .map(|kind| (kind, Done));
    assert_eq!(seen, [&single[..], &ends, &of_index].concat());
    let has_payload = |operation: &Operation| operation.payload.is_some_and(|bytes| bytes > 50);
    assert!(operations[..5].iter().all(has_payload), "{operations:?}");
    assert!(operations[5..].iter().all(|operation| operation.payload.is_none()), "{operations:?}");
    assert!(operations.iter().all(|operation| operation.duration > Duration::ZERO && operation.retries == 0));

    let (events, builder) = observed(MemorySessionStore::new().with_max_sessions(0));
    let full = builder.build().unwrap();
    let mut session = full.fresh();
    session.insert("tea".into(), 1);
    assert!(full.commit(session).is_err());
    assert_eq!(events.take_operations()[0].outcome, OperationOutcome::Failed(ErrorKind::OutOfMemory));
}

#[test]
fn events_show_no_id_principal_or_value() {
    let (events, builder) = observed(MemorySessionStore::new());
    let sessions = builder.build().unwrap();
    let mut session = sessions.fresh();
    session.insert("secret-value".into(), 1);
    session.bind("secret-user", "secret-label");
    let id = *sessions.commit(session).unwrap().id().unwrap();
    let mut session = sessions.open_id(&id).unwrap().unwrap();
    session.renew();
    let _ = sessions.commit(session).unwrap();
    sessions.end_all("secret-user").unwrap();
    let shown = events.debug.lock().unwrap().clone();
    assert!(shown.contains("Rotate") && shown.contains(&sessions.store().handle(&id).to_string()), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains(&id.expose().to_string()), "{shown}");
}

fn reads(store: &dyn SessionStore) -> bool {
    store.read(&SessionId::random(), Touch::No).is_ok()
}

#[test]
fn outage_reports_connections_and_circuit() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(2).deadline(SHORT).build().unwrap();
    let (events, builder) = observed(store);
    let sessions = builder.build().unwrap();
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    server.kill();
    assert!(eventually(PATIENCE, || !reads(sessions.store()) && events.has_pool("failed")));
    assert!(eventually(PATIENCE, || events.circuit.lock().unwrap().first() == Some(&CircuitState::Open)));
    server.restart();
    assert!(eventually(PATIENCE, || reads(sessions.store()) && events.has_pool("opened")));
    assert!(eventually(PATIENCE, || events.circuit.lock().unwrap().last() == Some(&CircuitState::Closed)));
    assert!(events.has_pool("spoiled"), "{:?}", events.pool);
    let operations = events.take_operations();
    let failed = |operation: &Operation| operation.outcome == OperationOutcome::Failed(ErrorKind::Unavailable);
    assert!(operations.iter().any(failed), "{operations:?}");
}

#[test]
fn silent_commands_report_half_open_circuit() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(2).deadline(SHORT).build().unwrap();
    let (events, builder) = observed(store);
    let sessions = builder.build().unwrap();
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    server.stop();
    assert!(!reads(sessions.store()));
    server.resume();
    assert!(eventually(PATIENCE, || events.circuit.lock().unwrap().contains(&CircuitState::HalfOpen)));
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    let states = events.circuit.lock().unwrap().clone();
    assert_eq!((states.first(), states.last()), (Some(&CircuitState::Open), Some(&CircuitState::Closed)));
}

#[test]
fn operation_reports_retry_and_wait() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = RedisSessionStore::builder().url(proxy.url()).pool_size(1).deadline(SHORT).build().unwrap();
    let (events, builder) = observed(store.clone());
    let sessions = builder.build().unwrap();
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    events.take_operations();
    proxy.set_for(Fault::CutBeforeRequest, 1);
    assert!(reads(sessions.store()));
    assert_eq!(events.take_operations()[0].retries, 1);

    let held = store.pool().get().unwrap();
    assert!(!reads(sessions.store()));
    let waited = events.take_operations()[0].waited;
    assert!(waited > SHORT / 2, "{waited:?}");
    drop(held);
    assert!(eventually(PATIENCE, || reads(sessions.store())));
}

/// The metrics of a text for Prometheus: their types, and their labels.
#[derive(Debug, Default)]
struct Scraped {
    types: BTreeMap<String, String>,
    labels: BTreeSet<String>,
    samples: BTreeMap<String, f64>,
}

/// Parses the text as strictly as the format is defined, and panics if it is wrong.
fn scrape(text: &str) -> Scraped {
    let (mut found, mut current, mut helped) = (Scraped::default(), String::new(), String::new());
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a description");
            assert!(help.ends_with('.') && !help.contains('\\'), "{line}");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, helped, "HELP comes first");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            let units = ["_seconds", "_bytes", "_total"];
            assert!(kind != "histogram" || units.iter().any(|unit| name.ends_with(unit)), "{line}");
            let reserved = ["_count", "_sum", "_bucket"];
            assert!(kind == "histogram" || !reserved.iter().any(|suffix| name.ends_with(suffix)), "{line}");
            assert!(found.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            current = name.to_owned();
        } else {
            sample(line, &current, &mut found);
        }
    }
    check_histograms(&found);
    found
}

fn sample(line: &str, metric: &str, found: &mut Scraped) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    let suffix = name.strip_prefix(metric).unwrap_or_else(|| panic!("{line} stands below {metric}"));
    let allowed: &[&str] = if found.types[metric] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    assert!(allowed.contains(&suffix) && value >= 0.0, "{line}");
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(value.strip_suffix('"').is_some_and(|value| !value.is_empty() && !value.contains('"')), "{line}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        found.labels.insert(name.to_owned());
    }
    assert!(found.samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
}

/// The buckets of a histogram grow, and the last one has all values.
fn check_histograms(found: &Scraped) {
    for (series, count) in found.samples.iter().filter(|(series, _)| series.contains("le=\"+Inf\"")) {
        let all = series.replace("_bucket", "_count").replace(",le=\"+Inf\"", "").replace("{le=\"+Inf\"}", "");
        assert_eq!(found.samples.get(&all), Some(count), "{all}");
        assert!(found.samples.contains_key(&all.replace("_count", "_sum")), "{all}");
        let prefix = series.split("le=").next().unwrap();
        let bound = |series: &str| series.strip_prefix(prefix)?.split('"').nth(1)?.parse::<f64>().ok();
        let mut buckets: Vec<_> =
            found.samples.iter().filter_map(|(series, value)| Some((bound(series)?, *value))).collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.len() > 5 && buckets.is_sorted_by(|one, other| one.1 <= other.1), "{buckets:?}");
    }
}

fn read_file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The first cells of the tables in a section of the guide to operating.
fn first_cells(section: &str) -> BTreeSet<String> {
    let guide = read_file("docs/operating.md");
    let is_heading = |line: &&str| line.starts_with("## ");
    let lines = guide.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !is_heading(line));
    lines.filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned())).collect()
}

/// The names of metrics and of labels in the queries of the dashboard.
fn queried(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| queried(value, names)),
        serde_json::Value::Object(fields) => {
            let text = ["expr", "query"].iter().filter_map(|key| fields.get(*key)?.as_str());
            for query in text {
                let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                names.extend(words.map(str::to_owned));
            }
            fields.values().for_each(|value| queried(value, names));
        }
        _ => {}
    }
}

#[test]
fn rendered_names_agree_with_guide_and_dashboard() {
    let server = RedisServer::start();
    let builder = RedisSessionStore::builder().url(server.url()).expiring().pool_size(1).deadline(SHORT);
    #[cfg(feature = "near-cache")]
    let builder = builder.near_cache(threaded_sessions::NearCache::new());
    let store = builder.build().unwrap();
    let metrics = Arc::new(PrometheusText::new());
    let sessions = SessionManager::<Cart>::builder(store.clone()).observer(metrics.clone()).build().unwrap();
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    // A connection is opened while the observer is there, and a read waits for one.
    server.kill();
    assert!(!reads(sessions.store()));
    server.restart();
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    let held = store.pool().get().unwrap();
    assert!(!reads(sessions.store()));
    drop(held);
    assert!(eventually(PATIENCE, || reads(sessions.store())));
    let id = store_one(&sessions);
    assert!(sessions.open_id(&id).unwrap().is_some());
    let reaper = sessions.reaper().start().unwrap();
    reaper.reap_now().unwrap();
    let gauges = Gauges::new(sessions.health()).live(sessions.count().unwrap()).reaper(reaper.stats());
    let text = metrics.render(&gauges);
    let scraped = scrape(&text);
    assert_eq!(scraped.samples["threaded_sessions_created_total"], 1.0, "{text}");
    assert_eq!(scraped.samples["threaded_sessions_live"], 1.0, "{text}");
    let read = "db_client_operation_duration_seconds_count{db_operation_name=\"read\",outcome=\"done\"}";
    assert_eq!(scraped.samples[read], 1.0, "{text}");

    let rendered: BTreeSet<String> = scraped.types.keys().cloned().collect();
    let is_built = |name: &String| cfg!(feature = "near-cache") || !name.contains("near_cache");
    let documented: BTreeSet<String> = first_cells("## Metrics").into_iter().filter(is_built).collect();
    assert_eq!(documented, rendered);

    let mut names = BTreeSet::new();
    queried(&serde_json::from_str(&read_file("docs/grafana.json")).unwrap(), &mut names);
    let of_crate = |name: &&String| name.starts_with("threaded_sessions_") || name.starts_with("db_");
    let is_known = |name: &String| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let is_histogram = histogram.is_some_and(|name| scraped.types.get(name).is_some_and(|t| t == "histogram"));
        is_histogram || scraped.types.contains_key(name) || scraped.labels.contains(name)
    };
    let unknown: Vec<_> = names.iter().filter(of_crate).filter(|name| is_built(name) && !is_known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(names.iter().filter(of_crate).count() > 12, "{names:?}");
}

/// The recorder of a program, as the `metrics` crate asks for it.
#[cfg(feature = "metrics")]
mod recorder {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit,
    };

    use super::*;

    /// The number of recorded values, or the value of a counter or a gauge.
    #[derive(Default)]
    struct Cell(AtomicU64);

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    impl GaugeFn for Cell {
        fn increment(&self, _: f64) {
            panic!("gauges are set");
        }

        fn decrement(&self, _: f64) {
            panic!("gauges are set");
        }

        fn set(&self, value: f64) {
            self.0.store(value as u64, Ordering::Relaxed);
        }
    }

    impl HistogramFn for Cell {
        fn record(&self, _: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Default)]
    struct Kept {
        cells: Mutex<BTreeMap<String, Arc<Cell>>>,
        units: Mutex<BTreeMap<String, Option<Unit>>>,
    }

    impl Kept {
        fn cell(&self, key: &Key) -> Arc<Cell> {
            let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let series = format!("{}{{{}}}", key.name(), labels.join(","));
            self.cells.lock().unwrap().entry(series).or_default().clone()
        }

        fn describe(&self, name: KeyName, unit: Option<Unit>) {
            self.units.lock().unwrap().insert(name.as_str().to_owned(), unit);
        }

        fn value(&self, series: &str) -> u64 {
            self.cells.lock().unwrap()[series].0.load(Ordering::Relaxed)
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
            self.describe(name, unit);
        }

        fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
            self.describe(name, unit);
        }

        fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
            self.describe(name, unit);
        }

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.cell(key))
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.cell(key))
        }
    }

    #[test]
    fn recorder_gets_names_of_the_guide() {
        let kept = Kept::default();
        metrics::with_local_recorder(&kept, || {
            let metrics = Arc::new(threaded_sessions::observer::MetricsObserver::new());
            let builder = SessionManager::<Cart>::builder(MemorySessionStore::new());
            let sessions = builder.observer(metrics.clone()).build().unwrap();
            let ids = [(); 2].map(|()| store_one(&sessions));
            assert!(ids.iter().all(|id| sessions.open_id(id).unwrap().is_some()));
            sessions.end_all("ada").unwrap();
            metrics.record(&Gauges::new(sessions.health()).live(7));
        });
        let duration = "db_client_operation_duration_seconds{db_operation_name=read,outcome=done}";
        for (series, value) in [
            (duration, 2),
            ("threaded_sessions_payload_bytes{db_operation_name=create}", 2),
            ("threaded_sessions_created_total{}", 2),
            ("threaded_sessions_ended_total{reason=end_all}", 2),
            ("threaded_sessions_ended_total{reason=destroyed}", 0),
            ("threaded_sessions_live{}", 7),
            ("threaded_sessions_store_healthy{}", 1),
        ] {
            assert_eq!(kept.value(series), value, "{series}");
        }
        let units = kept.units.lock().unwrap();
        assert_eq!(units.keys().cloned().collect::<BTreeSet<_>>(), first_cells("## Metrics"));
        assert_eq!(units["threaded_sessions_payload_bytes"], Some(Unit::Bytes));
        assert_eq!(units["db_client_operation_duration_seconds"], Some(Unit::Seconds));
    }
}
