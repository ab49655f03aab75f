//! The binary; see the library.

use std::process::ExitCode;

use clap::Parser;
use node::cli;

fn main() -> ExitCode {
    end_with_the_reader();
    match cli::run(cli::Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("atoll: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the standard library says when `print!` finds that nobody reads the output any more, as in
/// `atoll audit list | head`. It ignores SIGPIPE and then panics (rust-lang/rust#46016).
const NOT_PRINTED: &str = "failed printing to stdout: Broken pipe";

/// Ends the process quietly, and not with a panic, when whoever read its output has left.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>();
        if said.is_some_and(|said| said.starts_with(NOT_PRINTED)) {
            std::process::exit(0);
        }
        usual(panic);
    }));
}
