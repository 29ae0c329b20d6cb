//! The command `watch`: samples of the store, on a screen or as lines.
//!
//! [`OperatorArgs`](super::OperatorArgs) calls it. `screen` draws. Invariant: samples are taken on a thread of their own, so
//! keys work while Redis hangs, and the terminal is restored however the command ends.

mod screen;

use std::io::{self, IsTerminal};
use std::mem;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::json;

use self::screen::View;
use super::super::redis::RedisArgs;
use super::Context;
use super::interrupt::Interrupt;
use super::rows::rfc3339;
use super::stop::{Done, Stop, say};
use crate::store::redis::Vitals;
use crate::{RedisSessionStore, Result, SessionInfo};

/// The number of sessions in a sample. Terminals with more lines are rare.
const RECENT: usize = 50;

/// The longest time until a key, a signal or a sample is noticed.
const TICK: Duration = Duration::from_millis(50);

/// One sample, and how fast the number of sessions changes.
struct Sample {
    time: SystemTime,
    vitals: Result<Vitals>,
    /// The sessions that expire last.
    recent: Vec<SessionInfo>,
    /// The change of the number of sessions per second since the sample before.
    change: Option<f64>,
}

/// Takes samples until the receiver is dropped.
fn samples(store: RedisSessionStore, interval: Duration, recent: usize) -> io::Result<Receiver<Sample>> {
    let (sender, receiver) = sync_channel(1);
    let mut before: Option<(Instant, u64)> = None;
    thread::Builder::new().name("samples".to_owned()).spawn(move || {
        loop {
            let at = Instant::now();
            let mut vitals = store.vitals(recent);
            let snapshots = vitals.as_mut().map(|vitals| mem::take(&mut vitals.recent)).unwrap_or_default();
            let time = SystemTime::now();
            let recent = snapshots.into_iter().map(|snapshot| SessionInfo::without_manager(snapshot, time)).collect();
            let sessions = vitals.as_ref().ok().and_then(|vitals| vitals.sessions);
            let change = before.zip(sessions).map(|((then, count), sessions)| {
                (sessions as f64 - count as f64) / at.duration_since(then).as_secs_f64().max(0.001)
            });
            before = sessions.map(|sessions| (at, sessions));
            if sender.send(Sample { time, vitals, recent, change }).is_err() {
                return;
            }
            thread::sleep(interval.saturating_sub(at.elapsed()));
        }
    })?;
    Ok(receiver)
}

/// Returns the store with the kind that Redis records. Waits until Redis is reachable, because an operator starts `watch` to see
/// the end of an outage.
pub(super) fn wait_for_kind(
    redis: &RedisArgs,
    store: &RedisSessionStore,
    interrupt: &Interrupt,
    interval: Duration,
) -> Result<RedisSessionStore, Stop> {
    loop {
        match redis.of_recorded_kind(store.clone()) {
            Err(error) if error.kind().is_temporary() => {
                say(&format!("{} error: {error:#}; waiting for Redis", rfc3339(SystemTime::now())));
            }
            opened => return Ok(opened?),
        }
        let next = Instant::now() + interval;
        while Instant::now() < next {
            if interrupt.came() {
                return Err(Stop::Interrupted("the store is no longer watched".to_owned()));
            }
            thread::sleep(TICK.min(interval));
        }
    }
}

pub(super) fn run(context: &mut Context, interval: Duration) -> Done {
    if context.output.is_json() || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return lines(context, samples(context.store.clone(), interval, 0)?);
    }
    let samples = samples(context.store.clone(), interval, RECENT)?;
    // `try_init` also installs a panic hook that restores the terminal.
    let mut terminal = ratatui::try_init()?;
    let watched = watch(context, &mut terminal, &samples);
    ratatui::restore();
    watched
}

/// Draws samples until the operator quits.
fn watch(context: &Context, terminal: &mut DefaultTerminal, samples: &Receiver<Sample>) -> Done {
    let mut view = View::new(context.store.recorded_kind().ok().flatten(), context.store.place());
    terminal.draw(|frame| view.draw(frame))?;
    loop {
        let mut is_stale = false;
        match samples.try_recv() {
            Ok(sample) => {
                view.take(sample);
                is_stale = true;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(ended()),
        }
        if event::poll(TICK)? {
            if handle(&event::read()?).is_break() {
                return Ok(());
            }
            is_stale = true;
        }
        if context.interrupt.came() {
            return Err(Stop::Interrupted("the store is no longer watched".to_owned()));
        }
        if is_stale {
            terminal.draw(|frame| view.draw(frame))?;
        }
    }
}

/// The error if the thread that samples has panicked.
fn ended() -> Stop {
    Stop::Negative("error: sampling has ended".to_owned())
}

/// Breaks if the event asks to quit. A raw terminal sends no signal for Ctrl-C.
fn handle(event: &Event) -> ControlFlow<()> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => ControlFlow::Break(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    }
}

/// Prints one line for each sample.
fn lines(context: &mut Context, samples: Receiver<Sample>) -> Done {
    loop {
        match samples.recv_timeout(TICK) {
            Ok(sample) => print(context, &sample)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
        }
        if context.interrupt.came() {
            return Err(Stop::Interrupted("the store is no longer watched".to_owned()));
        }
    }
}

fn print(context: &mut Context, sample: &Sample) -> Done {
    let (output, time) = (&mut context.output, rfc3339(sample.time));
    let vitals = match &sample.vitals {
        Ok(vitals) => vitals,
        Err(error) => {
            say(&format!("{time} error: {error:#}"));
            return Ok(());
        }
    };
    let round_trip_ms = (vitals.round_trip.as_secs_f64() * 1e6).round() / 1e3;
    if output.is_json() {
        output.object(&json!({
            "time": time,
            "sessions": vitals.sessions,
            "change_per_second": sample.change,
            "round_trip_ms": round_trip_ms,
            "memory_bytes": vitals.memory,
            "clients": vitals.clients,
            "commands_per_second": vitals.commands_per_second,
            "backlog": vitals.backlog,
        }))?;
    } else {
        let figure = |figure: Option<u64>| figure.map_or_else(|| "–".to_owned(), |figure| figure.to_string());
        let change = sample.change.map_or_else(|| "–".to_owned(), |change| format!("{change:+.1}"));
        output.line(&format!(
            "{time} sessions={} change={change}/s round_trip={round_trip_ms}ms memory={} clients={} commands={}/s backlog={}",
            figure(vitals.sessions),
            vitals.memory.map_or_else(|| "–".to_owned(), screen::bytes),
            figure(vitals.clients),
            figure(vitals.commands_per_second),
            figure(vitals.backlog),
        ))?;
    }
    output.flush()
}
