//! A pseudo-terminal that runs a program, and the text that a person would see.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{PATIENCE, eventually};

pub struct Pty {
    master: File,
    child: Child,
    raw: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    size: (u16, u16),
}

impl Pty {
    /// Starts a program on a terminal with so many columns and lines. It is not the controlling terminal, so a Ctrl-C sends no signal.
    pub fn start(mut command: Command, columns: u16, lines: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        command.env("TERM", "xterm-256color");
        let path = ptsname(&master, Vec::new()).unwrap();
        let path = std::ffi::OsStr::from_bytes(path.as_bytes());
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let master = File::from(master);
        resize(&master, columns, lines);
        let end = || terminal.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let raw = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reader, seen) = (master.try_clone().unwrap(), raw.clone());
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            // Linux fails the read once the program has ended.
            while let Ok(read @ 1..) = reader.read(&mut chunk) {
                seen.lock().unwrap().extend_from_slice(&chunk[..read]);
            }
        });
        Self { master, child, raw, reader: Some(reader), size: (columns, lines) }
    }

    pub fn resize(&mut self, columns: u16, lines: u16) {
        resize(&self.master, columns, lines);
        self.size = (columns, lines);
        // The kernel sends it to the processes of a controlling terminal only.
        self.signal(Signal::WINCH);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned()
    }

    /// The lines on the screen.
    pub fn screen(&self) -> Vec<String> {
        render(&self.raw(), self.size)
    }

    /// Waits until the screen shows this text.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let shows = || self.screen().iter().any(|line| line.contains(text));
        assert!(eventually(PATIENCE, shows), "{text:?} is not on the screen: {:#?}", self.screen());
    }

    /// Waits until the program has ended, and all that it wrote was read.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let has_ended = || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        };
        assert!(eventually(PATIENCE, has_ended), "the program does not end");
        self.reader.take().map(JoinHandle::join);
        status.unwrap()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(master: &File, columns: u16, lines: u16) {
    tcsetwinsize(master, Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// Obeys the sequences that the program sends: moves, erasing, and line ends. Colours are left out.
fn render(raw: &str, (columns, lines): (u16, u16)) -> Vec<String> {
    let blank = vec![vec![' '; columns.into()]; lines.into()];
    let (mut cells, mut row, mut column) = (blank.clone(), 0_usize, 0_usize);
    let mut characters = raw.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => row = (row + 1).min(usize::from(lines) - 1),
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                let mut parameters = String::new();
                let end = loop {
                    match characters.next() {
                        Some(end @ '@'..='~') => break end,
                        Some(parameter) => parameters.push(parameter),
                        None => break 'm',
                    }
                };
                let mut numbers = parameters.split(';').map(|number| number.parse::<usize>().unwrap_or(1));
                match end {
                    'H' => {
                        row = numbers.next().unwrap_or(1) - 1;
                        column = numbers.next().unwrap_or(1) - 1;
                    }
                    'J' => cells.clone_from(&blank),
                    'K' => cells[row.min(usize::from(lines) - 1)].fill(' '),
                    _ => {}
                }
            }
            _ => {
                if let Some(cell) = cells.get_mut(row).and_then(|cells| cells.get_mut(column)) {
                    *cell = character;
                }
                column += 1;
            }
        }
    }
    cells.into_iter().map(|cells| cells.into_iter().collect::<String>().trim_end().to_owned()).collect()
}
