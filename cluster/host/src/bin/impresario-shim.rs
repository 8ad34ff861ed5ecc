//! The keeper of one container as a program of its own; `imp` has the same built in.
//! The tests of this crate start their containers through it.

use std::process::ExitCode;

fn main() -> ExitCode {
    impresario_host::shim::main(std::env::args_os().skip(1))
}
