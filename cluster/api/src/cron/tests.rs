use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first times of a schedule after one, as RFC 3339.
fn times(schedule: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(name).unwrap());
    let mut last = at(after);
    let mut times = Vec::new();
    for _ in 0..count {
        let Some(next) = schedule.next(last, &zone) else { break };
        assert!(next > last, "it goes on");
        times.push(written(next, &zone));
        last = next;
    }
    times
}

#[test]
fn schedules_come_when_a_kubernetes_server_says() {
    let utc = [
        ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
        ("*/15 * * * *", "2026-01-01T00:14:59.5Z", "2026-01-01T00:15:00Z"),
        ("20-35/15 * * * *", "2026-01-01T00:20:00Z", "2026-01-01T00:35:00Z"),
        ("5/20 * * * *", "2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"),
        ("0 0 * * *", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 0 29 FEB ?", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("0 12 * * mon-FRI", "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
        // Either day is enough where both are restricted, and both must be where one is not.
        ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("0 0 13 * *", "2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z"),
        ("0 0 */5 * 5", "2026-01-02T00:00:00Z", "2026-01-06T00:00:00Z"),
        ("@hourly", "2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z"),
        ("@weekly", "2026-01-01T00:10:00Z", "2026-01-04T00:00:00Z"),
        ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@every 90m", "2026-01-01T00:10:05.7Z", "2026-01-01T01:40:05Z"),
        ("@every 1ms", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("1,,3 0 * * *", "2026-01-01T00:01:00Z", "2026-01-01T00:03:00Z"),
    ];
    for (schedule, after, expected) in utc {
        assert_eq!(times(schedule, "", after, 1), [expected], "{schedule} after {after}");
    }
}

#[test]
fn a_time_that_a_clock_skips_does_not_come_and_one_that_it_shows_twice_comes_twice() {
    let new_york = "America/New_York";
    assert_eq!(
        times("30 2 * * *", new_york, "2026-03-07T12:00:00Z", 2),
        ["2026-03-09T02:30:00-04:00", "2026-03-10T02:30:00-04:00"]
    );
    assert_eq!(
        times("30 1 * * *", new_york, "2026-11-01T00:00:00-04:00", 3),
        ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-02T01:30:00-05:00"]
    );
    assert_eq!(
        times("0 * * * *", new_york, "2026-11-01T00:30:00-04:00", 3),
        ["2026-11-01T01:00:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T02:00:00-05:00"]
    );
    assert_eq!(
        times("*/30 * * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", 2),
        ["2026-01-01T06:00:00+05:45", "2026-01-01T06:30:00+05:45"]
    );
}

#[test]
fn the_last_time_before_one_is_the_one_after_which_none_comes_before_it() {
    let schedules = ["*/7 3,21 * * *", "0 0 29 2 *", "30 1 * * 0", "@every 61s", "0 0 31 2 *"];
    for schedule in schedules {
        for name in ["UTC", "America/New_York", "America/St_Johns"] {
            let (parsed, zone) = (Schedule::parse(schedule).unwrap(), zone(name).unwrap());
            let (after, until) = (at("2010-10-31T00:00:00Z"), at("2010-11-09T03:30:10Z"));
            let each =
                std::iter::successors(parsed.next(after, &zone), |at| parsed.next(*at, &zone));
            let expected = each.take_while(|at| *at <= until).last();
            assert_eq!(parsed.last(after, until, &zone), expected, "{schedule} in {name}");
        }
    }
    let zone = zone("").unwrap();
    let hourly = Schedule::parse("@hourly").unwrap();
    let noon = at("2026-01-01T12:00:00Z");
    assert_eq!(hourly.last(noon, at("2026-01-01T12:59:00Z"), &zone), None);
    assert_eq!(hourly.last(at("2026-01-01T11:59:59Z"), noon, &zone), Some(noon));
}

#[test]
fn a_day_that_never_comes_is_a_schedule_all_the_same() {
    assert_eq!(times("0 0 31 2 *", "", "2026-01-01T00:00:00Z", 1), Vec::<String>::new());
    assert_eq!(times("0 0 30 feb *", "Europe/Berlin", "2026-01-01T00:00:00Z", 1).len(), 0);
}

#[test]
fn what_is_no_schedule_is_refused_by_name() {
    for (text, word) in [
        ("", "empty"),
        ("every day", "found 2"),
        ("* * * * * *", "found 6"),
        ("TZ=UTC 0 * * * *", "found 6"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of the month"),
        ("* * * 13 *", "month"),
        ("* * * * 7", "day of the week"),
        ("* * * * mond", "day of the week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("1-2-3 * * * *", "range"),
        ("1/2/3 * * * *", "range"),
        ("-1 * * * *", "minute"),
        (", * * * *", "empty list"),
        ("* * L * *", "day of the month"),
        ("@hourly ", "descriptor"),
        ("@reboot", "descriptor"),
        ("@every x", "duration"),
        ("* * * * 5#2", "day of the week"),
    ] {
        let error = Schedule::parse(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text:?}: {error}");
    }
}

#[test]
fn zones_are_told_by_their_exact_names() {
    for name in ["", "UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Ushuaia"] {
        assert!(zone(name).is_some(), "{name}");
    }
    for name in ["Local", "europe/berlin", "Europe/Atlantis", "../etc/passwd", "+02:00"] {
        assert!(zone(name).is_none(), "{name}");
    }
}
