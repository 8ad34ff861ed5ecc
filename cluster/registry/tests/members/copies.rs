//! Directories that were copied or restored, and are started again and again.

use crate::{group::Group, harness::*};
use impresario_registry::{MembershipError, disk::DiskError, member::StartError};
use std::fs;

#[test]
fn a_restored_directory_stays_refused_however_often_it_is_started() {
    run(async {
        let mut group = Group::new().await;
        put(&group.handle(0), "x").await;
        let directory = group.cluster.directory("n2");
        group.stop(2).await;
        let saved = tempfile::tempdir().unwrap();
        image(&directory, saved.path());
        group.start(2).await.unwrap();
        until("the new life in the membership", async || {
            let known = group.members[&0].generation_of("n2");
            (known == Some(2), known)
        })
        .await;
        group.stop(2).await;
        fs::remove_dir_all(&directory).unwrap();
        image(saved.path(), &directory);
        let refused = group.start(2).await.unwrap_err();
        assert!(
            matches!(refused, StartError::Refused(MembershipError::Copied { .. })),
            "{refused:?}"
        );
        // Each start is another life, numbered past the one that the group knows.
        for _ in 0..3 {
            let refused = group.start(2).await.unwrap_err();
            assert!(matches!(refused, StartError::Disk(DiskError::Foreign { .. })), "{refused:?}");
            assert!(refused.to_string().contains("imp member remove n2"), "{refused}");
        }
        put(&group.handle(0), "y").await;
        group.end().await;
    });
}
