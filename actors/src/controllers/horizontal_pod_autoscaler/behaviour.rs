//! How fast a recommendation is followed: windows in which the most cautious counts, and how much may change in a time.
//!
//! (API reference, HorizontalPodAutoscaler v2, `spec.behavior`; Kubernetes documentation, "Configurable scaling behavior".)

use impresario_api::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What differs less from what is wanted is left as it is.
const TOLERANCE: f64 = 0.1;
/// How long the highest recommendation counts before fewer are made, where nothing is said.
const DOWN_WINDOW: Duration = Duration::from_mins(5);
/// The most recommendations that are remembered: one a second over the longest window.
const REMEMBERED: usize = 3_600;

/// Which of the policies of a direction counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Select {
    Most,
    Least,
    Disabled,
}

/// So much in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    is_percent: bool,
    value: i32,
    period: Duration,
}

/// The rules of one direction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Direction {
    window: Duration,
    select: Select,
    policies: Vec<Policy>,
    pub(super) tolerance: f64,
}

/// The rules of both.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    pub(super) up: Direction,
    pub(super) down: Direction,
}

impl Rules {
    /// What is said, and else what Kubernetes does.
    pub(super) fn of(spec: &HorizontalPodAutoscalerSpec) -> Self {
        let behavior = spec.behavior.as_ref();
        let policy =
            |is_percent, value| Policy { is_percent, value, period: Duration::from_secs(15) };
        let up = behavior.and_then(|rules| rules.scale_up.as_ref());
        let down = behavior.and_then(|rules| rules.scale_down.as_ref());
        let all = vec![policy(true, 100)];
        Self {
            up: Direction::of(up, Duration::ZERO, vec![policy(false, 4), policy(true, 100)]),
            down: Direction::of(down, DOWN_WINDOW, all),
        }
    }
}

impl Direction {
    fn of(rules: Option<&HPAScalingRules>, window: Duration, usual: Vec<Policy>) -> Self {
        let seconds = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let given = rules.and_then(|rules| rules.policies.as_ref()).filter(|all| !all.is_empty());
        let read = given.map(|all| {
            let read = all.iter().map(|policy| Policy {
                is_percent: policy.type_ == "Percent",
                value: policy.value,
                period: seconds(policy.period_seconds),
            });
            read.collect()
        });
        let tolerance = rules.and_then(|rules| rules.tolerance.as_ref());
        let tolerance = tolerance.and_then(|written| written.0.parse::<Quantity>().ok());
        Self {
            window: rules
                .and_then(|rules| rules.stabilization_window_seconds)
                .map_or(window, seconds),
            select: match rules.and_then(|rules| rules.select_policy.as_deref()) {
                Some("Min") => Select::Least,
                Some("Disabled") => Select::Disabled,
                _ => Select::Most,
            },
            policies: read.unwrap_or(usual),
            tolerance: tolerance.map_or(TOLERANCE, |quantity| quantity.millis() as f64 / 1000.0),
        }
    }

    fn longest_period(&self) -> Duration {
        self.policies.iter().map(|policy| policy.period).max().unwrap_or_default()
    }
}

/// What was recommended and done lately, by the monotonic clock: the time of day may jump. Kept in memory: who takes over
/// begins anew, with what there is.
#[derive(Debug, Default)]
pub(super) struct History {
    recommended: VecDeque<(Instant, i32)>,
    added: Vec<(Instant, i32)>,
    removed: Vec<(Instant, i32)>,
}

/// What is done about a recommendation, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) replicas: i32,
    /// The reason and message of `AbleToScale`.
    pub(super) able: (&'static str, &'static str),
    /// Whether it is held back, and the reason and message of `ScalingLimited`.
    pub(super) limited: (bool, &'static str, &'static str),
}

/// What there is, and may be at least and at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) current: i32,
    pub(super) least: i32,
    pub(super) most: i32,
}

impl History {
    /// What there is when nothing was recommended yet counts as a recommendation: who takes over removes nothing at once.
    pub(super) fn begin(&mut self, current: i32, now: Instant) {
        if self.recommended.is_empty() {
            self.recommended.push_back((now, current));
        }
    }

    fn recommend(&mut self, replicas: i32, now: Instant, keep: Duration) {
        // Of the same again the last time says all.
        match self.recommended.back_mut() {
            Some((at, last)) if *last == replicas => *at = now,
            _ => self.recommended.push_back((now, replicas)),
        }
        let from = before(now, keep);
        while self.recommended.len() > REMEMBERED
            || self.recommended.front().is_some_and(|(at, _)| Some(*at) < from)
        {
            self.recommended.pop_front();
        }
    }

    /// That so many were changed to so many.
    pub(super) fn scaled(&mut self, from: i32, to: i32, rules: &Rules, now: Instant) {
        let (log, period, change) = if to > from {
            (&mut self.added, rules.up.longest_period(), to - from)
        } else {
            (&mut self.removed, rules.down.longest_period(), from - to)
        };
        let oldest = before(now, period);
        log.retain(|(at, _)| Some(*at) > oldest);
        log.push((now, change));
    }

    /// What is done about the recommendation of so many.
    pub(super) fn follow(
        &mut self,
        wanted: i32,
        bounds: Bounds,
        rules: &Rules,
        now: Instant,
    ) -> Followed {
        let stable = self.stabilize(wanted, bounds.current, rules, now);
        let able = if stable == wanted {
            ("ReadyForNewScale", "recommended size matches current size")
        } else if wanted >= bounds.current {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        let (replicas, reason, message) = self.limit(stable, bounds, rules, now);
        Followed { replicas, able, limited: (replicas != stable, reason, message) }
    }

    fn stabilize(&mut self, wanted: i32, current: i32, rules: &Rules, now: Instant) -> i32 {
        let (up_from, down_from) = (before(now, rules.up.window), before(now, rules.down.window));
        let (mut lowest, mut highest) = (wanted, wanted);
        for (at, recommended) in &self.recommended {
            if Some(*at) > up_from {
                lowest = lowest.min(*recommended);
            }
            if Some(*at) > down_from {
                highest = highest.max(*recommended);
            }
        }
        self.recommend(wanted, now, rules.up.window.max(rules.down.window));
        current.max(lowest).min(highest)
    }

    fn limit(
        &self,
        stable: i32,
        bounds: Bounds,
        rules: &Rules,
        now: Instant,
    ) -> (i32, &'static str, &'static str) {
        let Bounds { current, least, most } = bounds;
        if stable > current {
            let allowed = self.most_by_rules(current, rules, now).max(current);
            let (most, reason, message) = if most > allowed {
                (
                    allowed,
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate",
                )
            } else {
                (
                    most,
                    "TooManyReplicas",
                    "the desired replica count is more than the maximum replica count",
                )
            };
            if stable > most {
                return (most, reason, message);
            }
        } else if stable < current {
            let allowed = self.least_by_rules(current, rules, now).min(current);
            let (least, reason, message) = if least < allowed {
                (
                    allowed,
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                )
            } else {
                (
                    least,
                    "TooFewReplicas",
                    "the desired replica count is less than the minimum replica count",
                )
            };
            if stable < least {
                return (least, reason, message);
            }
        } else if stable > most {
            return (
                most,
                "TooManyReplicas",
                "the desired replica count is more than the maximum replica count",
            );
        } else if stable < least {
            return (
                least,
                "TooFewReplicas",
                "the desired replica count is less than the minimum replica count",
            );
        }
        (stable, "DesiredWithinRange", "the desired count is within the acceptable range")
    }

    fn changed(log: &[(Instant, i32)], period: Duration, now: Instant) -> i32 {
        let from = before(now, period);
        log.iter()
            .filter(|(at, _)| Some(*at) > from)
            .fold(0_i32, |sum, (_, change)| sum.saturating_add(*change))
    }

    /// How many there were when the period of a policy began.
    fn at_start(&self, current: i32, period: Duration, now: Instant) -> i32 {
        current
            .saturating_sub(Self::changed(&self.added, period, now))
            .saturating_add(Self::changed(&self.removed, period, now))
    }

    fn most_by_rules(&self, current: i32, rules: &Rules, now: Instant) -> i32 {
        let allowed = rules.up.policies.iter().map(|policy| {
            let start = self.at_start(current, policy.period, now);
            if policy.is_percent {
                rounded((f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil())
            } else {
                start.saturating_add(policy.value)
            }
        });
        match rules.up.select {
            Select::Disabled => current,
            Select::Most => allowed.max().unwrap_or(current),
            Select::Least => allowed.min().unwrap_or(current),
        }
    }

    fn least_by_rules(&self, current: i32, rules: &Rules, now: Instant) -> i32 {
        let allowed = rules.down.policies.iter().map(|policy| {
            let start = self.at_start(current, policy.period, now);
            if policy.is_percent {
                rounded((f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)).trunc())
            } else {
                start.saturating_sub(policy.value)
            }
        });
        // Who may change most goes lowest.
        match rules.down.select {
            Select::Disabled => current,
            Select::Most => allowed.min().unwrap_or(current),
            Select::Least => allowed.max().unwrap_or(current),
        }
    }
}

/// A whole number within what a count may be.
fn rounded(number: f64) -> i32 {
    // The cast keeps to the bounds of the type.
    number as i32
}

/// So long before now; nothing where the clock does not reach back so far: everything is later than that.
fn before(now: Instant, time: Duration) -> Option<Instant> {
    now.checked_sub(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use impresario_runtime::clock;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    fn rules(behavior: &Value) -> Rules {
        let spec = json!({"maxReplicas": 100, "behavior": behavior,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
        Rules::of(&serde_json::from_value(spec).unwrap())
    }

    fn at(second: u64) -> Instant {
        static BEGIN: LazyLock<Instant> = LazyLock::new(clock::now);
        *BEGIN + Duration::from_secs(second)
    }

    /// Follows `second:wanted` one after the other from 10 replicas on, and says how many there are after each.
    fn followed(behavior: &Value, wanted: &str) -> String {
        let rules = rules(behavior);
        let (mut history, mut current) = (History::default(), 10);
        history.begin(current, at(0));
        let steps = wanted.split_whitespace().map(|step| {
            let (second, wanted) = step.split_once(':').unwrap();
            let now = at(second.parse().unwrap());
            let bounds = Bounds { current, least: 2, most: 60 };
            let next = history.follow(wanted.parse().unwrap(), bounds, &rules, now);
            if next.replicas != current {
                history.scaled(current, next.replicas, &rules, now);
            }
            current = next.replicas;
            format!("{}{}", current, if next.limited.0 { "!" } else { "" })
        });
        steps.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn recommendations_are_followed_as_fast_as_the_rules_allow() {
        let up = |rules: Value| json!({"scaleUp": rules});
        let down = |rules: Value| json!({"scaleDown": rules});
        let policy = |kind: &str, value: i32, period: i32| json!({"type": kind, "value": value, "periodSeconds": period});
        let rows = [
            // Usually: twice as many in 15 seconds, or four more; fewer only when five minutes ask for no more.
            (json!({}), "1:12", "12"),
            (json!({}), "1:50 2:50 16:50 17:50", "20! 20! 40! 40!"),
            (json!({}), "1:50 17:80 18:80", "20! 40! 40!"),
            (json!({}), "1:4 200:4 299:4 301:4", "10 10 10 4"),
            (json!({}), "1:4 200:8 301:4 501:4", "10 10 8 4"),
            (json!({}), "1:4 300:1", "10 4"),
            (json!({}), "301:1", "2!"),
            // A window upwards: the lowest recommendation counts.
            (up(json!({"stabilizationWindowSeconds": 60})), "30:20 59:20 61:20", "10 10 20"),
            // No window downwards.
            (down(json!({"stabilizationWindowSeconds": 0})), "1:4", "4"),
            // Policies: of both directions, the most, the least, none.
            (
                down(json!({"stabilizationWindowSeconds": 0, "policies": [policy("Pods", 2, 60)]})),
                "1:3 2:3 60:3 61:3",
                "8! 8! 8! 6!",
            ),
            (
                down(json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
                    "policies": [policy("Pods", 5, 60), policy("Percent", 10, 60)]})),
                "1:3",
                "9!",
            ),
            (
                down(json!({"stabilizationWindowSeconds": 0,
                    "policies": [policy("Pods", 5, 60), policy("Percent", 10, 60)]})),
                "1:3",
                "5!",
            ),
            (
                down(json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"})),
                "1:3",
                "10!",
            ),
            (up(json!({"selectPolicy": "Disabled"})), "1:30", "10!"),
            (
                up(json!({"selectPolicy": "Min",
                    "policies": [policy("Pods", 5, 60), policy("Percent", 10, 60)]})),
                "1:30 2:30 62:30",
                "11! 11! 13!",
            ),
        ];
        for (behavior, wanted, expected) in rows {
            assert_eq!(followed(&behavior, wanted), expected, "{behavior} {wanted}");
        }
    }

    #[test]
    fn why_it_is_not_followed_is_said() {
        let rules = rules(&json!({}));
        let mut history = History::default();
        history.begin(10, at(0));
        let bounds = Bounds { current: 10, least: 2, most: 15 };
        let down = history.follow(4, bounds, &rules, at(1));
        assert_eq!((down.replicas, down.able.0), (10, "ScaleDownStabilized"));
        let up = history.follow(40, bounds, &rules, at(2));
        assert_eq!((up.replicas, up.limited.1), (15, "TooManyReplicas"));
        let same = history.follow(10, bounds, &rules, at(400));
        assert_eq!((same.able.0, same.limited.1), ("ReadyForNewScale", "DesiredWithinRange"));
    }

    #[test]
    fn what_is_remembered_is_bounded_whatever_is_recommended() {
        let rules = rules(&json!({"scaleDown": {"stabilizationWindowSeconds": 3600}}));
        let mut history = History::default();
        let bounds = Bounds { current: 10, least: 1, most: 100 };
        let mut now = at(0);
        for step in 0..8_000_i32 {
            now += Duration::from_millis(100);
            history.follow(10 + step % 2, bounds, &rules, now);
            history.scaled(10, 11, &rules, now);
        }
        assert!(history.recommended.len() <= REMEMBERED && history.added.len() <= 151);
    }
}
