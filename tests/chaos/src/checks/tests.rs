use super::*;

fn ledger(outcome: Outcome, kept: &[(u64, u64)]) -> History {
    History {
        ledger: vec![
            LedgerEntry { number: 1, outcome: Outcome::Ok },
            LedgerEntry { number: 2, outcome },
        ],
        ledger_in_the_end: kept.to_vec(),
        ..History::default()
    }
}

#[test]
fn the_ledger_holds_what_was_acknowledged_and_nothing_that_was_said_to_have_failed() {
    let (with, without): (&[_], &[_]) = (&[(1, 1), (2, 2)], &[(1, 1)]);
    let table = [
        (Outcome::Ok, with, true),
        (Outcome::Ok, without, false),
        (Outcome::Ok, &[(1, 1), (2, 7)], false),
        (Outcome::Failed, with, false),
        (Outcome::Failed, without, true),
        (Outcome::Unknown, with, true),
        (Outcome::Unknown, without, true),
        (Outcome::Refused, with, false),
    ];
    for (outcome, kept, fine) in table {
        let judged = lost_write(&ledger(outcome, kept));
        assert_eq!(judged.is_ok(), fine, "{outcome:?} {kept:?}: {judged:?}");
    }
    assert!(lost_write(&History::default()).is_err());
}

#[test]
fn a_controller_with_too_many_pods_is_not_restored_either() {
    let replicas =
        |present, ready| Replicas { name: "rc".into(), wanted: 3, present, ready, said: ready };
    let healed = |one| Healed { controllers: vec![one], ..Healed::default() };
    assert!(super::replicas(&healed(replicas(3, 3))).is_ok());
    assert!(super::replicas(&healed(replicas(4, 3))).is_err());
    assert!(super::replicas(&healed(replicas(3, 2))).is_err());
    assert!(super::replicas(&Healed::default()).is_err());
}

#[test]
fn a_service_that_leads_to_who_is_not_ready_or_to_too_few_is_not_exact() {
    let with = |endpoints: &[&str], slices: &[&str]| {
        let words = |of: &[&str]| of.iter().map(|word| (*word).to_owned()).collect();
        let (ready, endpoints, slices) = (words(&["a", "b"]), words(endpoints), words(slices));
        let evidence = Evidence {
            healed: Healed { service: Served { ready, endpoints, slices }, ..Healed::default() },
            ..Evidence::default()
        };
        let checks = judge(&evidence);
        checks.into_iter().find(|check| check.name == "endpoints_exact").unwrap().passed
    };
    assert!(with(&["a", "b"], &["a", "b"]));
    assert!(!with(&["a", "b", "gone"], &["a", "b"]));
    assert!(!with(&["a", "b"], &["a"]));
    assert!(!with(&[], &[]));
}

#[test]
fn a_history_that_cannot_be_read_in_the_end_proves_nothing() {
    let history =
        History { unreadable: Some("no leader".into()), ..ledger(Outcome::Ok, &[(1, 1), (2, 2)]) };
    assert!(lost_write(&history).is_err());
}

fn effects(uids: &[&str]) -> Effects {
    let once: BTreeMap<_, _> = uids.iter().map(|uid| ((*uid).to_owned(), 1)).collect();
    Effects { begun: once.clone(), ended: once, ..Effects::default() }
}

#[test]
fn a_job_counts_neither_more_nor_less_than_it_promised_and_no_pod_of_it_ran_twice() {
    let with = |succeeded, complete, seen: &[&str], worked| Evidence {
        healed: Healed { succeeded, complete, ..Healed::default() },
        seen: Seen {
            succeeded: seen.iter().map(|uid| (*uid).to_owned()).collect(),
            ..Seen::default()
        },
        completions: 2,
        worked,
        ..Evidence::default()
    };
    let two = || effects(&["a", "b"]);
    assert!(job(&with(2, true, &[], two())).is_ok());
    assert!(job(&with(2, true, &["a", "b"], two())).is_ok());
    // One that is late is not taken for one that counts wrongly.
    let three = || effects(&["a", "b", "c"]);
    for (wrong, why) in [
        (with(3, true, &[], three()), "more successes were counted"),
        (with(2, true, &[], effects(&["a"])), "more successes were counted"),
        (with(2, true, &["a", "b", "c"], three()), "more pods succeeded"),
        (with(1, false, &["a", "b", "c"], three()), "more pods succeeded"),
        (with(2, false, &[], two()), "it is not done"),
        (with(1, false, &["a"], two()), "it is not done"),
        (with(2, true, &["a", "b"], effects(&["a"])), "without having done its work"),
    ] {
        let said = job(&wrong).unwrap_err();
        assert!(said.contains(why), "{why:?}: {said}");
    }
    let mut late = with(2, true, &["a"], two());
    late.seen.late.insert("b".into());
    assert!(job(&late).is_err(), "the work of a pod that does not count stands in for none");
    let mut twice = two();
    twice.begun.insert("a".into(), 2);
    assert!(job(&with(2, true, &[], twice)).unwrap_err().contains("pod a ran 2 times; "));
}

#[test]
fn epochs_that_are_accepted_never_fall_and_none_is_older_than_the_first() {
    let with = |epochs: &[u64], refused| Haunted {
        accepted: BTreeMap::from([(8, (1..).zip(epochs.iter().copied()).collect())]),
        refused,
        ..Haunted::default()
    };
    assert!(one_writer(&with(&[1, 1, 2, 5], 3)).is_ok());
    assert!(one_writer(&with(&[1, 2, 1], 3)).is_err());
    assert!(one_writer(&with(&[0], 3)).is_err());
    assert!(one_writer(&with(&[1], 0)).is_err());
    let unread = Haunted { unread: Some("no leader".into()), ..with(&[1], 3) };
    assert!(one_writer(&unread).is_err());
}

#[test]
fn watches_of_which_none_ever_went_on_are_not_whole() {
    let with = |resumed, gone| Watched { batches: 9, resumed, gone, ..Watched::default() };
    assert!(watched(&with(1, 3)).is_ok());
    assert!(watched(&with(0, 0)).is_ok(), "none broke");
    assert!(watched(&with(0, 1)).is_err());
    assert!(watched(&Watched { batches: 0, ..with(1, 0) }).is_err());
}

#[test]
fn members_that_differ_in_one_resource_do_not_agree() {
    let stand = |hash| Stand { entries: 3, hashes: BTreeMap::from([("pods".to_owned(), hash)]) };
    let with = |stands: Vec<Result<Stand, String>>| Agreement {
        members: ["a", "b", "c"].map(str::to_owned).into_iter().zip(stands).collect(),
        ..Agreement::default()
    };
    assert!(members_agree(&with(vec![Ok(stand(1)), Ok(stand(1))])).is_ok());
    assert!(members_agree(&with(vec![Ok(stand(1)), Ok(stand(2))])).is_err());
    assert!(members_agree(&with(vec![Ok(stand(1)), Err("gone".into())])).is_err());
    assert!(members_agree(&with(vec![Ok(Stand::default()), Ok(Stand::default())])).is_err());
    assert!(members_agree(&with(Vec::new())).is_err());
}

#[test]
fn every_resource_that_is_over_committed_is_seen() {
    for resource in ["cpu", "memory", "nvidia.com/gpu", "pods"] {
        let with = |carried| Seen {
            carried: BTreeMap::from([(
                "n".into(),
                BTreeMap::from([(resource.into(), (carried, String::new()))]),
            )]),
            allocatable: BTreeMap::from([("n".into(), BTreeMap::from([(resource.into(), 4000)]))]),
            ..Seen::default()
        };
        assert!(overcommitted(&with(4000)).is_ok(), "{resource}");
        assert!(overcommitted(&with(4001)).is_err(), "{resource}");
        assert!(overcommitted(&with(2000)).is_err(), "half of it proves nothing");
    }
    let unknown = Seen {
        carried: BTreeMap::from([(
            "n".into(),
            BTreeMap::from([("fpga".into(), (1, String::new()))]),
        )]),
        allocatable: BTreeMap::from([("n".into(), BTreeMap::new())]),
        ..Seen::default()
    };
    assert!(overcommitted(&unknown).is_err());
    assert!(overcommitted(&Seen::default()).is_err());
}

#[test]
fn a_container_that_was_started_twice_was_not_kept() {
    let mut evidence = Evidence { served: effects(&["a"]), ..Evidence::default() };
    assert!(containers_kept(&evidence).is_err(), "none was seen to run");
    evidence.seen.containers.insert(("a".into(), "c".into()), crate::observer::Life::default());
    assert!(containers_kept(&evidence).is_ok());
    evidence.served.begun.insert("a".into(), 2);
    assert!(containers_kept(&evidence).unwrap_err().contains("began anew"));
    evidence.served.begun.insert("a".into(), 1);
    evidence.seen.restarted.push("pod a became another".into());
    assert!(containers_kept(&evidence).unwrap_err().contains("began anew"));
}
