use super::*;
use crate::disk::volume::Machine;
use std::fs;

#[tokio::test]
async fn what_waits_together_is_written_in_batches_that_can_be_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room::new(Arc::new(Machine), directory.path());
    let (log, end) = Log::open(directory.path(), room).unwrap();
    // Together more than three batches; one of them is one by itself.
    let mut sizes = vec![BATCH_BYTES / 3; 8];
    sizes.extend([BATCH_BYTES + 1, 5_000, 6_000]);
    let records = sizes.iter().map(|size| (Record::Committed(None), vec![7; *size])).collect();
    let (told, outcome) = oneshot::channel();
    assert!(log.jobs.send(Job { records, done: Done::Told(told) }).await.is_ok());
    outcome.await.unwrap().unwrap();
    drop(log);
    let _ = end.await;

    let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|kind| kind == "log")).collect();
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let (batches, _) = frame::scan(&bytes, true).unwrap();
        for batch in batches {
            let written: Vec<usize> = batch.records.iter().map(|record| record.len()).collect();
            let is_bounded = written.iter().sum::<usize>() <= BATCH_BYTES || written.len() == 1;
            assert!(is_bounded, "a batch of {written:?}");
            // What a file begins with is small.
            found.extend(written.into_iter().filter(|size| *size >= 5_000));
        }
    }
    assert_eq!(found, sizes, "all of it, in its order");
}
