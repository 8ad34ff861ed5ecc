//! What a container sees of the machine besides files: its own processes in `/proc`, the usual few devices in `/dev`
//! and the GPUs that it was given, and of `/sys` and the kernel's settings what can be read without harm.

use crate::process::record::Order;
use nix::mount::{MsFlags, mount};
use nix::unistd::Uid;
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, move_mount},
};
use std::{
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::{FileTypeExt, symlink},
    path::Path,
};

/// Devices that every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What all users of NVIDIA's driver share.
const NVIDIA: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
/// Where the driver tells which GPU has which device.
const NVIDIA_GPUS: &str = "/proc/driver/nvidia/gpus";

/// Parts of `/proc` that root could read secrets of the machine from (Docker's default masked paths).
const MASKED: [&str; 9] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "sched_debug",
    "scsi",
];
/// And those through which it could change the machine.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Mounts `/proc`, `/sys` and `/dev` below the new root.
pub(super) fn make(root: &Path, sys: OwnedFd, order: &Order) -> io::Result<()> {
    proc(&root.join("proc"), order)?;
    system(&root.join("sys"), sys, order)?;
    let dev = root.join("dev");
    fs::create_dir(&dev)?;
    if order.spec.security.privileged {
        super::bind::bind(Path::new("/dev"), &dev)
    } else {
        devices(&dev, order)
    }
}

fn proc(at: &Path, order: &Order) -> io::Result<()> {
    fs::create_dir(at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if !super::namespaces::is_first()
        || mount(Some("proc"), at, Some("proc"), flags, None::<&str>).is_err()
    {
        // The kernel refuses it where the machine's own is covered in part. That one shows numbers that the
        // container's processes do not have, and nothing behind them: they belong to another user namespace.
        return super::bind::bind(Path::new("/proc"), at);
    }
    if order.spec.security.privileged || !Uid::effective().is_root() {
        return Ok(()); // the kernel keeps an ordinary user from all of it
    }
    for name in MASKED {
        mask(&at.join(name))?;
    }
    for name in READ_ONLY {
        let path = at.join(name);
        if path.exists() {
            super::bind::bind(&path, &path)?;
            super::bind::make_read_only(&path)?;
        }
    }
    Ok(())
}

/// Covers a file or folder by an empty one, where there is one.
pub(super) fn mask(path: &Path) -> io::Result<()> {
    let Ok(kind) = fs::metadata(path) else { return Ok(()) };
    if kind.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755,size=4k"))?)
    } else {
        super::bind::bind(Path::new("/dev/null"), path)
    }
}

fn system(at: &Path, sys: OwnedFd, order: &Order) -> io::Result<()> {
    fs::create_dir(at)?;
    move_mount(sys, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    if order.spec.security.privileged || !Uid::effective().is_root() {
        return Ok(());
    }
    let below =
        crate::mount_table::mount_points()?.into_iter().filter(|point| point.starts_with(at));
    for point in below.collect::<Vec<_>>() {
        super::bind::make_read_only(&point)?;
    }
    mask(&at.join("firmware"))
}

fn devices(at: &Path, order: &Order) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=755,size=1m"))?;
    for name in DEVICES {
        device(name, at)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, at.join(name))?;
    }
    let (pts, shm) = (at.join("pts"), at.join("shm"));
    fs::create_dir(&pts)?;
    let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    // Where that cannot be had there are no terminals, which nothing here hands out.
    let _ = mount(Some("devpts"), &pts, Some("devpts"), terminals, options);
    fs::create_dir(&shm)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &shm, Some("tmpfs"), flags, Some("mode=1777"))?;
    if !order.spec.gpus.is_empty() {
        for name in NVIDIA {
            device(name, at)?;
        }
        for name in gpu_devices(&order.spec.gpus) {
            device(&name, at)?;
        }
        let caps = Path::new("/dev/nvidia-caps");
        if caps.is_dir() {
            fs::create_dir(at.join("nvidia-caps"))?;
            super::bind::bind(caps, &at.join("nvidia-caps"))?;
        }
    }
    Ok(())
}

fn device(name: &str, at: &Path) -> io::Result<()> {
    let from = Path::new("/dev").join(name);
    let Ok(kind) = fs::metadata(&from) else { return Ok(()) };
    if !kind.file_type().is_char_device() {
        return Ok(());
    }
    let to = at.join(name);
    fs::File::create_new(&to)?;
    super::bind::bind(&from, &to)
}

/// The devices of these GPUs; of all GPUs where the driver does not say which is which.
fn gpu_devices(uuids: &[String]) -> Vec<String> {
    let entries = fs::read_dir(NVIDIA_GPUS).into_iter().flatten().flatten();
    let told =
        entries.filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok());
    let known: Vec<_> = told.filter_map(|text| gpu_device(&text)).collect();
    let own: Vec<_> = known.iter().filter(|(uuid, _)| uuids.contains(uuid)).collect();
    if own.len() == uuids.len() {
        return own.into_iter().map(|(_, minor)| format!("nvidia{minor}")).collect();
    }
    let names = fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let is_gpu =
        |name: &String| name.strip_prefix("nvidia").is_some_and(|rest| rest.parse::<u32>().is_ok());
    names.filter(is_gpu).collect()
}

/// UUID and device of a GPU, from the driver's description of it.
fn gpu_device(information: &str) -> Option<(String, u32)> {
    let value = |key: &str| {
        let lines = information.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(found, _)| found.trim() == key).map(|(_, value)| value.trim()).next()
    };
    Some((value("GPU UUID")?.to_owned(), value("Device Minor")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_tells_which_device_a_gpu_is() {
        let text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 130\nGPU UUID: \t GPU-a2\n\
                    Bus Type: \t PCIe\nDevice Minor: \t 3\nGPU Excluded:\t No\n";
        assert_eq!(gpu_device(text), Some(("GPU-a2".to_owned(), 3)));
        assert_eq!(gpu_device("Model: x\n"), None);
    }
}
