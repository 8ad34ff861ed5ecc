use super::*;
use k8s_openapi::api::core::v1::EndpointPort as Port;
use proptest::prelude::*;

/// Golden: another name makes every slice of every cluster anew.
const NAMES: [&str; 2] = ["web-bk8nf", "web-qrccw"];

fn subset(ready: &[String], unready: &[String], port: i32) -> EndpointSubset {
    let addresses = |ips: &[String]| {
        let of = |ip: &String| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() };
        (!ips.is_empty()).then(|| ips.iter().map(of).collect())
    };
    EndpointSubset {
        addresses: addresses(ready),
        not_ready_addresses: addresses(unready),
        ports: Some(vec![Port { port, ..Port::default() }]),
    }
}

type Slices = BTreeMap<String, Slice>;

fn fresh(subsets: &[EndpointSubset]) -> Slices {
    slices("web", subsets, |_| About::default(), (&BTreeMap::new(), |_: &str| false))
}

fn after(before: &Slices, subsets: &[EndpointSubset]) -> Slices {
    let present: BTreeMap<String, &[Endpoint]> =
        before.iter().map(|(name, slice)| (name.clone(), &*slice.endpoints)).collect();
    slices("web", subsets, |_| About::default(), (&present, |_: &str| false))
}

fn many(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("127.1.{}.{}", n / 250, n % 250)).collect()
}

fn changed(before: &Slices, after: &Slices) -> usize {
    let differ = after.iter().filter(|(name, slice)| before.get(*name) != Some(*slice));
    differ.count() + before.keys().filter(|name| !after.contains_key(*name)).count()
}

fn count(slices: &Slices) -> usize {
    slices.values().map(|slice| slice.endpoints.len()).sum()
}

#[test]
fn an_endpoint_says_whether_it_is_ready_serves_and_is_on_its_way_out() {
    let ip = |n: u8| format!("127.1.0.{n}");
    let behind = |address: &EndpointAddress| match address.ip.rsplit('.').next()? {
        "1" => Some(Behind { serving: true, terminating: false }),
        "2" => Some(Behind { serving: true, terminating: true }),
        "3" => Some(Behind { serving: false, terminating: true }),
        _ => None,
    };
    let about = |address: &EndpointAddress| About { behind: behind(address), ..About::default() };
    let subset = subset(&[ip(1)], &[ip(2), ip(3), ip(4)], 80);
    let slices = slices("web", &[subset], about, (&BTreeMap::new(), |_: &str| false));
    let slice = slices.values().next().unwrap();
    let said: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.conditions.clone().unwrap())
        .map(|all| (all.ready.unwrap(), all.serving, all.terminating))
        .collect();
    let wanted = [
        (true, Some(true), Some(false)),
        (false, Some(true), Some(true)),
        (false, Some(false), Some(true)),
        (false, None, None), // a user's: nobody knows
    ];
    assert_eq!((slices.len(), said), (1, wanted.to_vec()));
    assert!(slices.keys().all(|name| name.starts_with("web-") && name.len() == 9));
}

#[test]
fn a_name_is_the_same_in_every_release_and_an_address_that_becomes_ready_stays_in_its_slice() {
    let many = many(100..250);
    let before = fresh(&[subset(&many[1..], &many[..1], 80)]);
    let after = after(&before, &[subset(&many, &[], 80)]);
    let names: Vec<_> = before.keys().map(String::as_str).collect();
    assert_eq!(names, NAMES);
    assert_eq!((changed(&before, &after), count(&after)), (1, 150));
}

#[test]
fn all_addresses_stand_in_slices_also_where_two_subsets_have_the_same_ports() {
    let all = many(0..7);
    let apart = [
        subset(&all[..2], &[], 80),
        subset(&["::1".into()], &[], 81),
        subset(&all[2..3], &all[3..4], 80),
        // Who is not ready in one of them is not, whichever comes first.
        subset(&all[4..5], &all[..1], 80),
        subset(&[], &all[5..6], 80),
        subset(&all[5..6], &all[6..], 80),
    ];
    let unready = [&all[..1], &all[3..4], &all[5..]].concat();
    let together = [
        subset(&[&all[1..3], &all[4..5]].concat(), &unready, 80),
        subset(&["::1".into()], &[], 81),
    ];
    let made = fresh(&apart);
    assert_eq!((made.len(), count(&made)), (2, 8));
    assert_eq!(made, fresh(&together));
    assert_eq!(changed(&made, &after(&made, &apart)), 0);
    // What only the protocol of its application tells apart has one name, and so is in one slice.
    let mut spoken = apart[2].clone();
    spoken.ports.as_mut().unwrap()[0].app_protocol = Some("h2c".into());
    let made = fresh(&[apart[0].clone(), spoken]);
    assert_eq!((made.len(), count(&made)), (1, 4));
}

#[test]
fn an_address_that_comes_or_goes_changes_one_slice() {
    let before = fresh(&[subset(&many(100..550), &[], 80)]);
    assert_eq!(before.len(), 5);
    // The first in order comes into the only slice that has room.
    let more: Vec<_> = many(99..550);
    let grown = after(&before, &[subset(&more, &[], 80)]);
    assert_eq!((changed(&before, &grown), grown.len(), count(&grown)), (1, 5, 451));
    let fewer: Vec<_> = more[1..].to_vec();
    let shrunk = after(&grown, &[subset(&fewer, &[], 80)]);
    assert_eq!((changed(&grown, &shrunk), count(&shrunk)), (1, 450));
    // Full slices: one more is made.
    let full = fresh(&[subset(&many(100..300), &[], 80)]);
    let grown = after(&full, &[subset(&many(99..300), &[], 80)]);
    assert_eq!((changed(&full, &grown), grown.len()), (1, 3));
    // Mostly empty ones do not stay for ever.
    let few: Vec<_> = many(100..550).into_iter().step_by(100).collect();
    let packed = after(&before, &[subset(&few, &[], 80)]);
    assert_eq!((packed.len(), count(&packed)), (1, 5));
}

#[test]
fn a_name_that_another_has_is_passed_over_and_what_is_made_instead_stays() {
    let all = many(100..350);
    let first = &fresh(&[subset(&all[..1], &[], 80)]);
    let (first, _) = first.first_key_value().unwrap();
    let is_taken = |name: &str| name == first;
    let made = slices(
        "web",
        &[subset(&all[..150], &[], 80)],
        |_| About::default(),
        (&BTreeMap::new(), is_taken),
    );
    assert_eq!((made.len(), count(&made), made.contains_key(first)), (2, 150, false));
    // The next look knows no more of what another has, and has no need to.
    let grown = after(&made, &[subset(&all[..200], &[], 80)]);
    assert_eq!((changed(&made, &grown), count(&grown)), (1, 200));
    let packed = after(&grown, &[subset(&[], &[], 80)]);
    assert_eq!(packed.len(), 0);
    let five = after(&after(&made, &[subset(&all, &[], 80)]), &[subset(&all[..5], &[], 80)]);
    assert_eq!((five.len(), count(&five)), (1, 5));
}

#[test]
fn a_slice_stays_however_many_names_others_have_before_it() {
    let all = many(100..250);
    let subsets = [subset(&all, &[], 80), subset(&["::1".into()], &[], 81)];
    let ports = fresh(&subsets[..1]).into_values().next().unwrap().ports;
    let taken: BTreeSet<String> =
        (0..50).map(|place| slice_name("web", "IPv4", &ports, place)).collect();
    let made = slices(
        "web",
        &subsets,
        |_| About::default(),
        (&BTreeMap::new(), |name: &str| taken.contains(name)),
    );
    assert_eq!((made.len(), count(&made)), (3, 151));
    assert!(made.keys().all(|name| !taken.contains(name)));
    // The next look has met none of those names, and so knows of none.
    assert_eq!(changed(&made, &after(&made, &subsets)), 0);
    // Nor does a slice that is none of these keep them from being found.
    let mut more = made.clone();
    more.extend(fresh(&[subset(&all, &[], 9)]));
    let kept = after(&more, &subsets);
    assert_eq!(changed(&made, &kept), 0);
}

#[test]
fn what_somebody_wrote_into_a_slice_is_put_right() {
    let before = fresh(&[subset(&many(0..150), &[], 80)]);
    let mut spoilt = before.clone();
    let all: Vec<Endpoint> = before.values().flat_map(|slice| slice.endpoints.clone()).collect();
    for slice in spoilt.values_mut() {
        slice.endpoints.clone_from(&all);
    }
    let after = after(&spoilt, &[subset(&many(0..150), &[], 80)]);
    assert_eq!(count(&after), 150);
    assert!(after.values().all(|slice| slice.endpoints.len() <= MOST));
}

#[test]
fn a_name_stays_while_ports_stay_and_each_slice_has_its_own() {
    let many: Vec<String> = (0..150).map(|n| format!("127.1.0.{n}")).collect();
    let before = fresh(&[subset(&many, &[], 80), subset(&["::1".into()], &[], 81)]);
    let after = fresh(&[subset(&many[..120], &[], 80), subset(&["::2".into()], &[], 81)]);
    assert_eq!(before.len(), 3);
    assert!(before.keys().eq(after.keys()));
    assert_eq!(before.values().filter(|slice| slice.address_type == "IPv6").count(), 1);
}

#[test]
fn who_comes_goes_where_something_is_written_anyway_or_where_all_have_room() {
    let ip = |n: u32| format!("127.1.{}.{}", 100 + n / 100, 100 + n % 100);
    let all: Vec<String> = (0..900).map(ip).collect();
    let before = fresh(&[subset(&all[..500], &[], 80)]);
    // Five of each slice go, so that each has some room.
    let left = all[..500].iter().enumerate().filter(|(n, _)| n % 20 != 0);
    let left: Vec<_> = left.map(|(_, ip)| ip.clone()).collect();
    let holed = after(&before, &[subset(&left, &[], 80)]);
    assert_eq!((changed(&before, &holed), count(&holed)), (5, 475));
    let more = |n: usize| [&left[..], &all[500..500 + n]].concat();
    for (come, written) in [(1, 1), (5, 1), (6, 1), (25, 1), (100, 1), (101, 2)] {
        let grown = after(&holed, &[subset(&more(come), &[], 80)]);
        assert_eq!(changed(&holed, &grown), written, "{come}");
    }
    // One that goes makes room in a slice that is written for it.
    let turned: Vec<_> = left[1..].iter().chain(&all[500..506]).cloned().collect();
    assert_eq!(changed(&holed, &after(&holed, &[subset(&turned, &[], 80)])), 1);
}

/// Which addresses come, go, or are ready no longer, or listen elsewhere.
fn changes() -> impl Strategy<Value = Vec<(u32, u8)>> {
    proptest::collection::vec((0_u32..450, 0_u8..4), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_changes_each_endpoint_stands_in_one_slice_and_few_slices_are_written(
        changes in changes(), begin in 0_u32..450,
    ) {
        // Which there are, whether they are ready, and whether they listen elsewhere.
        let mut all: BTreeMap<u32, (bool, bool)> = (0..begin).map(|n| (n, (true, n % 3 == 0))).collect();
        let subsets = |all: &BTreeMap<u32, (bool, bool)>| -> Vec<EndpointSubset> {
            [false, true].into_iter().map(|elsewhere| {
                let of = |ready: bool| -> Vec<String> {
                    let these = all.iter().filter(|(_, it)| **it == (ready, elsewhere));
                    these.flat_map(|(n, _)| many(*n..*n + 1)).collect()
                };
                subset(&of(true), &of(false), if elsewhere { 81 } else { 80 })
            }).collect()
        };
        let mut there = fresh(&subsets(&all));
        for (n, what) in changes {
            match what {
                0 => { all.remove(&n); }
                1 => { all.insert(n, (true, false)); }
                2 => { all.entry(n).and_modify(|it| it.0 = !it.0); }
                _ => { all.entry(n).and_modify(|it| it.1 = !it.1); }
            }
            let now = after(&there, &subsets(&all));
            prop_assert!(now.values().all(|slice| (1..=MOST).contains(&slice.endpoints.len())));
            let mut stand: Vec<(i32, String)> = now.values().flat_map(|slice| {
                let port = slice.ports[0].port.unwrap();
                slice.endpoints.iter().map(move |it| (port, it.addresses[0].clone()))
            }).collect();
            stand.sort();
            let mut expected: Vec<(i32, String)> = all.iter().map(|(n, (_, elsewhere))| {
                (if *elsewhere { 81 } else { 80 }, many(*n..*n + 1).remove(0))
            }).collect();
            expected.sort();
            prop_assert_eq!(stand, expected);
            // Beside the slice that it leaves and the one into which it comes, only those of which two became one.
            let gone = there.keys().filter(|name| !now.contains_key(*name)).count();
            let written = changed(&there, &now);
            prop_assert!(written <= 2 + 2 * gone, "{} written, {} gone", written, gone);
            prop_assert_eq!(changed(&now, &after(&now, &subsets(&all))), 0);
            there = now;
        }
    }
}
