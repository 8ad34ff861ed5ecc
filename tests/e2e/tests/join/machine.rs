//! Another machine: a network namespace with a cable to this one.

use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

static MADE: AtomicU8 = AtomicU8::new(0);

/// The other machine; gone with all its processes when dropped.
pub struct Machine {
    name: String,
    host: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(
        output.status.success(),
        "ip {arguments}: {} (this test needs root)",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Machine {
    /// A machine with a network of its own, on which this one has the first address.
    pub fn new() -> Self {
        let process = std::process::id();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("imp{process:x}n{number}");
        let net = format!("10.{}.{}", 128 + process % 64, (process / 64 + u32::from(number)) % 256);
        let machine = Self { name: name.clone(), host: format!("{net}.1") };
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name}h type veth peer name {name}m netns {name}"));
        ip(&format!("addr add {net}.1/30 dev {name}h"));
        ip(&format!("link set {name}h up"));
        ip(&format!("-n {name} addr add {net}.2/30 dev {name}m"));
        ip(&format!("-n {name} link set {name}m up"));
        ip(&format!("-n {name} link set lo up"));
        machine
    }

    /// The same command, run there.
    pub fn inside(&self, command: &mut Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program());
        inside.args(command.get_args());
        inside
    }

    /// Where an address of this machine is reached from there.
    pub fn address_of_host(&self, address: &str) -> String {
        let port = address.rsplit_once(':').unwrap().1;
        format!("{}:{port}", self.host)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Containers outlive their node's process: whatever runs there ends with the machine.
        if let Ok(output) = Command::new("ip").args(["netns", "pids", &self.name]).output() {
            for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
                if let Ok(pid) = pid.parse() {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
        }
        // The cable goes with it.
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}
