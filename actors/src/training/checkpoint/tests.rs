//! Checkpoints on a real disk.

use super::*;
use crate::training::export::{Values, export};
use crate::training::optimizer;
use impresario_client::protocol::training::{Applied, ModelFacts, ShardRange};
use tempfile::TempDir;

const UID: &str = "u-1";
const ADAM: OptimizerKind = OptimizerKind::Adam { rate: 0.1, decay: 0.0, beta1: 0.9, beta2: 0.99 };

fn model() -> ModelFacts {
    ModelFacts {
        blocks: vec![("w".into(), 3), ("b".into(), 2)],
        samples: 64,
        batch: 8,
        optimizer: ADAM,
        seed: 1,
    }
}

const RANGES: [ShardRange; 2] =
    [ShardRange { shard: 0, start: 0, length: 3 }, ShardRange { shard: 1, start: 3, length: 2 }];

/// The shards after so many steps; the second is one further.
fn states(steps: u64) -> [ShardState; 2] {
    RANGES.map(|range| {
        let values = (0..range.length).map(|index| 0.1 + index as f32).collect();
        let mut state = optimizer::fresh(range, values, 0, Applied::default(), ADAM);
        for step in 0..steps + u64::from(range.shard) {
            let gradient: Vec<f32> = state.values.iter().map(|x| x * 0.3 - 0.7).collect();
            assert!(state.applied.insert(step));
            optimizer::apply(&mut state, &gradient);
        }
        state
    })
}

fn order(folder: &Path, number: u64, saved: Vec<SavedShard>) -> CommitCheckpoint {
    CommitCheckpoint {
        lease: 1,
        folder: folder.display().to_string(),
        temporary: temporary_name(UID, 7, number),
        number,
        keep: 3,
        job: "ns/job".into(),
        uid: UID.into(),
        model: model(),
        saved,
    }
}

fn write(folder: &Path, number: u64, steps: u64) -> Vec<SavedShard> {
    let temporary = folder.join(temporary_name(UID, 7, number));
    states(steps).iter().map(|state| write_shard(&temporary, state).unwrap()).collect()
}

fn save(folder: &Path, number: u64, steps: u64) -> Checkpoint {
    let saved = write(folder, number, steps);
    let committed = commit(&order(folder, number, saved)).unwrap();
    assert_eq!(committed.left_over, None);
    committed.checkpoint
}

fn question(folder: &Path) -> LookForCheckpoint {
    LookForCheckpoint {
        lease: 1,
        folder: folder.display().to_string(),
        uid: Some(UID.into()),
        activation: 7,
        verify: true,
        model: model(),
        ranges: RANGES.to_vec(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn flip(path: &Path, at_end: bool) {
    let mut bytes = fs::read(path).unwrap();
    let at = if at_end { bytes.len() - 1 } else { bytes.len() / 2 };
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_checkpoint_brings_back_every_bit_of_every_shard_and_what_the_optimizer_remembers() {
    let folder = TempDir::new().unwrap();
    let saved = save(folder.path(), 1, 5);
    assert_eq!((saved.step, saved.done.clone()), (5, Applied::all_below(5)));
    let looked = look(&question(folder.path())).unwrap();
    assert_eq!(looked, Looked { newest: Some(saved.clone()), refused: Vec::new(), last: 1 });
    let manifest = open(Path::new(&saved.path), &saved.sha256).unwrap();
    assert_eq!((manifest.job.as_str(), manifest.uid.as_str()), ("ns/job", UID));
    for (shard, state) in manifest.shards.iter().zip(states(5)) {
        assert_eq!(read_shard(Path::new(&saved.path), shard, ADAM).unwrap(), state);
    }
    assert_eq!(manifest.shards[1].step, 6, "each shard says at which step it is");
}

#[test]
fn a_checkpoint_that_was_cut_short_is_none_and_the_one_before_stands() {
    let folder = TempDir::new().unwrap();
    let before = save(folder.path(), 1, 5);
    write(folder.path(), 2, 9);
    let half = folder.path().join(temporary_name(UID, 7, 2));
    fs::write(half.join(MANIFEST), "{").unwrap();
    assert_eq!(look(&question(folder.path())).unwrap().newest, Some(before.clone()));
    assert!(half.is_dir(), "this activation is still at it");
    let next = LookForCheckpoint { activation: 8, ..question(folder.path()) };
    assert_eq!(look(&next).unwrap().newest, Some(before));
    assert_eq!(names(folder.path()), ["checkpoint-00000001-u-1"], "what was left is removed");
}

type Spoil = fn(&Path);

#[test]
fn what_was_changed_is_passed_over_and_said_and_the_one_before_is_used() {
    let folder = TempDir::new().unwrap();
    let good = save(folder.path(), 1, 5);
    let spoils: [(Spoil, &str); 5] = [
        (|path| flip(&path.join("shard-00001.safetensors"), true), "not as it was written"),
        (|path| flip(&path.join("shard-00000.safetensors"), false), "not as it was written"),
        (|path| fs::remove_file(path.join("shard-00000.safetensors")).unwrap(), "No such file"),
        (|path| fs::write(path.join(MANIFEST), "{").unwrap(), "EOF"),
        (|path| fs::remove_file(path.join(MANIFEST)).unwrap(), "never completed"),
    ];
    for (number, (spoil, said)) in (2..).zip(spoils) {
        let saved = save(folder.path(), number, 9);
        spoil(Path::new(&saved.path));
        let looked = look(&question(folder.path())).unwrap();
        assert_eq!((looked.newest, looked.last), (Some(good.clone()), number));
        assert!(looked.refused[0].1.contains(said), "{:?} of {said}", looked.refused);
        fs::remove_dir_all(saved.path).unwrap();
    }
    let saved = save(folder.path(), 9, 9);
    flip(&Path::new(&saved.path).join("shard-00001.safetensors"), true);
    let manifest = open(Path::new(&saved.path), &saved.sha256).unwrap();
    let read = read_shard(Path::new(&saved.path), &manifest.shards[1], ADAM);
    assert!(matches!(read, Err(CheckpointError::Unusable { .. })), "{read:?}");
    let other = open(Path::new(&saved.path), &good.sha256);
    assert!(matches!(other, Err(CheckpointError::Unusable { .. })), "{other:?}");
}

#[test]
fn what_is_another_jobs_or_of_another_model_is_taken_by_nobody_who_has_not_named_it() {
    let folder = TempDir::new().unwrap();
    let saved = save(folder.path(), 4, 5);
    let foreign = LookForCheckpoint { uid: Some("u-2".into()), ..question(folder.path()) };
    let looked = look(&foreign).unwrap();
    assert_eq!((looked.newest, looked.last), (None, 4), "the number is taken all the same");
    assert!(looked.refused[0].1.contains("resumeFrom"), "{:?}", looked.refused);
    for named in [folder.path(), Path::new(&saved.path)] {
        let named = LookForCheckpoint { uid: None, ..question(named) };
        assert_eq!(look(&named).unwrap().newest, Some(saved.clone()));
        let mut other = named.clone();
        other.model.blocks[0].1 = 4;
        assert!(look(&other).unwrap().refused[0].1.contains("another model"));
        let mut other = named;
        other.model.samples = 65;
        assert!(look(&other).unwrap().refused[0].1.contains("other data"));
    }
    // The folder bears its name, and the manifest another's.
    let renamed = folder.path().join("checkpoint-00000005-u-2");
    fs::rename(&saved.path, renamed).unwrap();
    assert!(look(&foreign).unwrap().refused[0].1.contains("ns/job"));
}

#[test]
fn so_many_as_are_to_be_kept_are_kept_and_what_others_have_there_stays() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("checkpoint-00000001-u-9")).unwrap();
    for number in 1..=5 {
        let saved = write(folder.path(), number, number);
        let order = CommitCheckpoint { keep: 2, ..order(folder.path(), number, saved) };
        commit(&order).unwrap();
    }
    let left = ["checkpoint-00000001-u-9", "checkpoint-00000004-u-1", "checkpoint-00000005-u-1"];
    assert_eq!(names(folder.path()), left);
}

#[test]
fn a_number_that_is_taken_is_not_written_over() {
    let folder = TempDir::new().unwrap();
    let first = save(folder.path(), 1, 5);
    let saved = write(folder.path(), 1, 9);
    assert!(matches!(commit(&order(folder.path(), 1, saved)), Err(CheckpointError::Folder { .. })));
    assert_eq!(look(&question(folder.path())).unwrap().newest, Some(first));
}

#[test]
fn folders_that_are_not_one_and_the_same_are_found_out_before_anything_counts() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let [first, second] = states(5);
    let name = temporary_name(UID, 7, 1);
    let saved = vec![
        write_shard(&folder.path().join(&name), &first).unwrap(),
        write_shard(&other.path().join(&name), &second).unwrap(),
    ];
    let refused = commit(&order(folder.path(), 1, saved)).unwrap_err().to_string();
    assert!(refused.contains("not one and the same"), "{refused}");
    assert_eq!(look(&question(folder.path())).unwrap().newest, None);
}

#[test]
fn a_server_that_writes_on_after_its_shard_was_given_to_another_changes_nothing_that_is_complete() {
    let folder = TempDir::new().unwrap();
    let temporary = folder.path().join(temporary_name(UID, 7, 1));
    let [first, _] = states(4);
    write_shard(&temporary, &first).unwrap();
    let open_one = |name: &String| fs::OpenOptions::new().write(true).open(temporary.join(name));
    let late: Vec<File> = names(&temporary).iter().map(|name| open_one(name).unwrap()).collect();
    assert_eq!(late.len(), 1);
    let saved = save(folder.path(), 1, 5);
    for mut file in late {
        io::Write::write_all(&mut file, &[7; 64]).unwrap();
    }
    assert_eq!(look(&question(folder.path())).unwrap().newest, Some(saved.clone()));
    let files = [MANIFEST, "shard-00000.safetensors", "shard-00001.safetensors"];
    assert_eq!(names(Path::new(&saved.path)), files, "what was written twice is removed");
}

#[test]
fn a_folder_that_cannot_be_one_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("deeper");
    let [state, _] = states(1);
    for refused in [look(&question(&inside)).map(drop), write_shard(&inside, &state).map(drop)] {
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("/file") && said.contains("Not a directory"), "{said}");
    }
    let away = CommitCheckpoint { temporary: "../x".into(), ..order(folder.path(), 1, Vec::new()) };
    assert!(matches!(commit(&away), Err(CheckpointError::Unusable { .. })));
}

#[test]
fn a_file_that_cannot_be_read_for_a_moment_is_no_reason_to_pass_a_checkpoint_over() {
    let folder = TempDir::new().unwrap();
    save(folder.path(), 1, 5);
    let newest = save(folder.path(), 2, 9);
    let manifest = open(Path::new(&newest.path), &newest.sha256).unwrap();
    for file in ["shard-00001.safetensors", MANIFEST] {
        let path = Path::new(&newest.path).join(file);
        let (aside, good) = (folder.path().join("aside"), look(&question(folder.path())).unwrap());
        assert_eq!(good.newest, Some(newest.clone()));
        fs::rename(&path, &aside).unwrap();
        // Nobody can open what leads to itself: an error of the system that is not about a missing file.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let looked = look(&question(folder.path()));
        assert!(matches!(looked, Err(CheckpointError::Folder { .. })), "{file}: {looked:?}");
        if file != MANIFEST {
            let read = read_shard(Path::new(&newest.path), &manifest.shards[1], ADAM);
            assert!(matches!(read, Err(CheckpointError::Folder { .. })), "{read:?}");
        }
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn an_exported_model_has_its_tensors_by_name_as_other_programs_read_them() {
    let folder = TempDir::new().unwrap();
    let saved = save(folder.path(), 1, 5);
    let file = folder.path().join("model.safetensors");
    for values in [Values::Average, Values::Latest] {
        let exported = export(Path::new(&saved.path), Some(&saved.sha256), values, &file).unwrap();
        let bytes = fs::read(&file).unwrap();
        assert_eq!((exported.tensors, exported.parameters), (2, 5));
        assert_eq!((exported.bytes, exported.sha256), (bytes.len() as u64, sha256(&bytes)));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["step"], "5");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, state) in ["w", "b"].into_iter().zip(states(5)) {
            let tensor = tensors.tensor(name).unwrap();
            assert_eq!(tensor.shape(), [state.values.len()]);
            let expected = if values == Values::Latest { state.values } else { state.average };
            assert_eq!(numbers(tensor.data()), expected, "{name} {values:?}");
        }
    }
}

#[test]
fn an_export_of_what_was_changed_leaves_the_file_as_it_was() {
    let folder = TempDir::new().unwrap();
    let saved = save(folder.path(), 1, 5);
    let file = folder.path().join("model.safetensors");
    fs::write(&file, "before").unwrap();
    flip(&Path::new(&saved.path).join("shard-00001.safetensors"), true);
    export(Path::new(&saved.path), Some(&saved.sha256), Values::Latest, &file).unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), b"before");
    let left = ["checkpoint-00000001-u-1", "model.safetensors"];
    assert_eq!(names(folder.path()), left, "nothing half written is left");
}

#[test]
fn what_jobs_left_that_are_gone_is_removed_and_what_cannot_be_is_in_nobodys_way() {
    let folder = TempDir::new().unwrap();
    let newest = save(folder.path(), 1, 5);
    let left = |name: &str, hours: u64| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        let at = clock::wall() - Duration::from_hours(hours);
        File::open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let forgotten = left(".saving-another-0000000000000001-3", 72);
    let written = left(".saving-another-0000000000000002-3", 1);
    // It is none that can be removed as one.
    fs::write(folder.path().join(".saving-u-1-0000000000000003-9"), "").unwrap();
    let order = LookForCheckpoint {
        lease: 1,
        folder: folder.path().display().to_string(),
        uid: Some(UID.into()),
        activation: 7,
        verify: true,
        model: model(),
        ranges: RANGES.into(),
    };
    assert_eq!(look(&order).unwrap().newest.map(|one| one.path), Some(newest.path));
    assert_eq!((forgotten.exists(), written.exists()), (false, true));
}

#[test]
fn a_checkpoint_that_nobody_knows_of_is_exported_as_its_manifest_says() {
    let folder = TempDir::new().unwrap();
    let saved = save(folder.path(), 1, 5);
    let (of, file) = (Path::new(&saved.path), folder.path().join("model.safetensors"));
    assert_eq!(export(of, None, Values::Latest, &file).unwrap().step, 5);
    let shard = of.join(file_of(1));
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    export(of, None, Values::Latest, &file).unwrap_err();
}
