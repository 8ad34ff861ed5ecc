//! The image that holds a pod's network while its containers come and go.
//!
//! It is made here, byte by byte, so that no registry is needed: one static program that waits
//! for ever, in a tar archive that the engine imports.

/// The image's name on the engine.
pub(super) const IMAGE: &str = "impresario.dev/pause:1";
/// The program in it.
pub(super) const PROGRAM: &str = "/pause";

/// The instructions: wait for a signal, again and again.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34 (pause)
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the start
];
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, // mov x0, 0; mov x1, 0
    0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, // mov x2, 0; mov x3, 0
    0x28, 0x09, 0x80, 0xd2, // mov x8, 73 (ppoll)
    0x01, 0x00, 0x00, 0xd4, // svc 0
    0xfa, 0xff, 0xff, 0x17, // b to the start
];

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// The program: an ELF file with one segment.
fn program() -> Vec<u8> {
    let size = HEADERS + CODE.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |elf: &mut Vec<u8>, value: u16| elf.extend(value.to_le_bytes());
    let word = |elf: &mut Vec<u8>, value: u32| elf.extend(value.to_le_bytes());
    let long = |elf: &mut Vec<u8>, value: u64| elf.extend(value.to_le_bytes());
    half(&mut elf, 2); // executable
    half(&mut elf, MACHINE);
    word(&mut elf, 1);
    long(&mut elf, BASE + HEADERS); // entry
    long(&mut elf, 64); // program headers
    long(&mut elf, 0); // no sections
    word(&mut elf, 0);
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut elf, value);
    }
    word(&mut elf, 1); // load
    word(&mut elf, 5); // readable, executable
    for value in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut elf, value);
    }
    elf.extend(CODE);
    elf
}

/// The image's file system, as a tar archive (POSIX ustar).
pub(super) fn archive() -> Vec<u8> {
    let program = program();
    let mut header = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, PROGRAM.trim_start_matches('/').as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", program.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        "); // the sum counts itself as spaces
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend(&program);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    #[test]
    fn the_program_waits_until_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (written, path) = (folder.path().join("written"), folder.path().join("pause"));
        fs::write(&written, program()).unwrap();
        // A process that another test starts just then would hold what is open for writing here, and a program that is
        // open for writing is not started: another process writes it.
        let install = Command::new("install").args(["-m", "755"]).args([&written, &path]).status();
        assert!(install.unwrap().success());
        let mut child = Command::new(&path).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn the_archive_is_read_by_tar() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        fs::write(&path, archive()).unwrap();
        let listed = Command::new("tar").arg("-tvf").arg(path).output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && text.starts_with("-rwxr-xr-x"), "{listed:?}");
    }
}
