//! A token, as the rest of the node sees it: what it is asked it answers in time, or not at all.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::words::moment::Moment;
use zeroize::Zeroizing;

use crate::module::Module;
use crate::place::{Fault, Place, Wrapped};
use crate::{DEADLINE, LOOK};

/// The maximum number of questions that wait for the module.
const WAITING: usize = 64;
/// How long the end of everything waits for the module.
const LAST_CALL: Duration = Duration::from_secs(2);

enum Question {
    Wrap { private: Zeroizing<Vec<u8>>, answer: SyncSender<Result<Wrapped, Fault>> },
    Unwrap { wrapped: Wrapped, answer: SyncSender<Result<Zeroizing<Vec<u8>>, Fault>> },
}

/// A question about the key of this number.
struct Asked {
    key: usize,
    binding: Vec<u8>,
    question: Question,
}

struct Shared {
    /// What each key makes of the same bytes, or why it cannot be used.
    keys: Mutex<Vec<Result<Vec<u8>, Fault>>>,
    /// Since when the module has been busy with one call.
    busy: Mutex<Option<Moment>>,
}

impl Shared {
    /// Does something with the module, and says for how long.
    fn busy<T>(&self, work: impl FnOnce() -> T) -> T {
        *self.busy.lock() = Some(clock::now());
        let done = work();
        *self.busy.lock() = None;
        done
    }

    fn is_silent(&self) -> bool {
        let busy = *self.busy.lock();
        busy.is_some_and(|since| clock::now().since(since) >= DEADLINE)
    }
}

/// A token, and the thread that speaks with it.
#[derive(Clone)]
pub struct Token {
    shared: Arc<Shared>,
    line: Arc<Line>,
}

/// The way to the thread. When it is dropped, the thread ends.
struct Line {
    asking: Option<SyncSender<Asked>>,
    /// Nothing is ever sent; it is closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl Line {
    /// Whether a question is passed on: so many wait at most.
    fn takes(&self, asked: Asked) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.try_send(asked).is_ok())
    }
}

impl Drop for Line {
    /// Waits for the thread, if its module answers: a process that ends while a library works runs
    /// that library's last functions beside it, and may wait for ever.
    fn drop(&mut self) {
        self.asking = None;
        let _ = self.ended.lock().recv_timeout(LAST_CALL);
    }
}

/// An AES key in a token.
#[derive(Clone)]
pub struct Key {
    token: Token,
    number: usize,
}

impl Token {
    /// Begins to look for the keys with these labels; returns at once. The thread ends when the last
    /// of them is dropped. A process opens a module once: whoever ends it ends it for all.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn open(place: Place, labels: Vec<String>) -> std::io::Result<Vec<Key>> {
        let (asking, asked) = sync_channel(WAITING);
        let count = labels.len();
        let keys = Mutex::new(vec![Err(Fault::Beginning); count]);
        let shared = Arc::new(Shared { keys, busy: Mutex::default() });
        let (end, ended) = sync_channel(1);
        let line = Line { asking: Some(asking), ended: Mutex::new(ended) };
        let token = Token { shared: shared.clone(), line: Arc::new(line) };
        let thread = std::thread::Builder::new().name("hsm".into());
        thread.spawn(move || {
            work(&shared, Module::new(place), &labels, &asked);
            drop(end);
        })?;
        Ok((0..count).map(|number| Key { token: token.clone(), number }).collect())
    }

    fn ask<T>(&self, asked: Asked, answer: &Receiver<Result<T, Fault>>) -> Result<T, Fault> {
        if self.shared.is_silent() || !self.line.takes(asked) {
            return Err(Fault::Silent);
        }
        answer.recv_timeout(DEADLINE).unwrap_or(Err(Fault::Silent))
    }
}

impl Key {
    /// What the key makes of the same bytes each time, which tells it from others: as of the last look.
    ///
    /// # Errors
    /// If the key cannot be used.
    pub fn sample(&self) -> Result<Vec<u8>, Fault> {
        match self.token.shared.is_silent() {
            true => Err(Fault::Silent),
            false => self.token.shared.keys.lock()[self.number].clone(),
        }
    }

    /// Wraps with AES-GCM, for this binding.
    ///
    /// # Errors
    /// If the key cannot be used, or the module does not answer in time.
    pub fn wrap(&self, private: &[u8], binding: &[u8]) -> Result<Wrapped, Fault> {
        let (answer, answered) = sync_channel(1);
        let private = Zeroizing::new(private.to_vec());
        let question = Question::Wrap { private, answer };
        self.token.ask(Asked { key: self.number, binding: binding.to_vec(), question }, &answered)
    }

    /// Unwraps what [`Key::wrap`] made for this binding.
    ///
    /// # Errors
    /// If the key cannot be used, or the module does not answer in time, or it was not made so.
    pub fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let (answer, answered) = sync_channel(1);
        let question = Question::Unwrap { wrapped: wrapped.to_vec(), answer };
        self.token.ask(Asked { key: self.number, binding: binding.to_vec(), question }, &answered)
    }
}

fn work(shared: &Shared, mut module: Module, labels: &[String], asked: &Receiver<Asked>) {
    let mut next = clock::now();
    loop {
        if clock::now() >= next {
            shared.busy(|| look(shared, &mut module, labels));
            next = clock::now() + LOOK;
        }
        let Asked { key, binding, question } = match asked.recv_timeout(next.since(clock::now())) {
            Ok(asked) => asked,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                // the library stays where it is: the process may be ending
                std::mem::forget(module);
                return;
            }
        };
        let label = &labels[key];
        let fault = shared.busy(|| match question {
            // whoever asked may have gone
            Question::Wrap { private, answer } => {
                let done = module.wrap(label, &private, &binding);
                let fault = done.as_ref().err().cloned();
                let _ = answer.send(done);
                fault
            }
            Question::Unwrap { wrapped, answer } => {
                let done = module.unwrap(label, &wrapped, &binding);
                let fault = done.as_ref().err().cloned();
                let _ = answer.send(done);
                fault
            }
        });
        if fault.is_some_and(|fault| fault != Fault::Closed) {
            next = clock::now();
        }
    }
}

/// Asks the module for a sample of each key. One that has failed begins anew at once.
fn look(shared: &Shared, module: &mut Module, labels: &[String]) {
    let sample = |module: &mut Module| -> Vec<_> {
        labels.iter().map(|label| module.sample(label)).collect()
    };
    let mut samples = sample(module);
    if samples.iter().any(Result::is_err) {
        // the token was taken out and put back, or its other end was restarted
        module.close();
        samples = sample(module);
    }
    // what comes later is seen only by a module that begins anew
    if samples.iter().any(Result::is_err) {
        module.close();
    }
    *shared.keys.lock() = samples;
}
