//! GPUs through the real bindings, over a library of ours that exports the driver's symbols.

use impresario_host::devices::{GpuHealth, Gpus};
use std::{fs, path::Path, process::Command};

fn build(folder: &Path) -> std::path::PathBuf {
    let (library, state) = (folder.join("libnvidia-ml.so"), folder.join("state"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/fake_nvml.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(format!("-DSTATE=\"{}\"", state.display()))
        .arg(source)
        .status()
        .expect("a C compiler: install gcc (rustc needs it as its linker too)");
    assert!(status.success(), "the library does not compile");
    library
}

#[test]
fn gpus_are_counted_named_and_found_unhealthy_when_they_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let library = build(folder.path());
    fs::write(folder.path().join("state"), "2").unwrap();
    let gpus = Gpus::discover(Some(library.as_os_str()));
    assert_eq!(gpus.absent(), None);
    let found = gpus.list();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].name, "Imaginary T1000");
    assert_eq!(found[1].uuid, "GPU-00000001");
    assert_eq!((found[0].memory_bytes, found[0].memory_used_bytes), (16 << 30, 1 << 30));
    assert_eq!(found[0].utilization_percent, 42);
    assert!(found.iter().all(|gpu| gpu.health == GpuHealth::Healthy), "{found:?}");

    fs::write(folder.path().join("state"), "2 1").unwrap();
    let found = gpus.list();
    assert_eq!(found[0].health, GpuHealth::Healthy);
    assert!(matches!(found[1].health, GpuHealth::Unhealthy(_)), "{found:?}");
    assert_eq!(found[1].uuid, "GPU-00000001", "who is lost can still be told");
}

#[test]
fn a_machine_without_the_driver_has_no_gpus_and_says_why() {
    let gpus = Gpus::discover(Some("/no/such/library.so".as_ref()));
    assert!(gpus.list().is_empty());
    assert!(gpus.absent().is_some());
}
