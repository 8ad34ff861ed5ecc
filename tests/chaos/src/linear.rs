//! Whether a history of a register is linearizable: some order of the operations that respects real
//! time explains every answer.
//!
//! Depth-first search with memory (Wing and Gong, "Testing and verifying concurrent objects", JPDC
//! 1993; the cache of visited configurations is Lowe's, "Testing for linearizability", 2017).
//! Registers are independent, so each is checked alone (Herlihy and Wing, locality). A search that
//! exceeds its budget is a failure, never a pass.

use crate::history::{Action, Operation, Outcome};
use std::collections::HashSet;
use thiserror::Error;

/// Configurations that one search may visit; a history of a run needs a few thousand.
pub const BUDGET: usize = 5_000_000;

/// Why a history was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotLinearizable {
    /// No order explains the answers.
    #[error(
        "register {register}: no order of its {operations} operations explains the answers; the longest that does ends before {stuck:?}"
    )]
    Impossible {
        /// Which register.
        register: u32,
        /// How many operations it had.
        operations: usize,
        /// An operation that could not be placed.
        stuck: Box<Operation>,
    },
    /// The search was given up.
    #[error(
        "register {register}: not decided within {BUDGET} configurations; run again with fewer clients"
    )]
    Undecided {
        /// Which register.
        register: u32,
    },
}

/// Checks every register of the history.
pub fn check(history: &[Operation]) -> Result<(), NotLinearizable> {
    let mut registers: Vec<u32> = history.iter().map(|operation| operation.register).collect();
    registers.sort_unstable();
    registers.dedup();
    for register in registers {
        let operations: Vec<Operation> =
            history.iter().filter(|operation| operation.register == register).copied().collect();
        check_register(register, operations)?;
    }
    Ok(())
}

/// What a register holds: a value, or nothing.
type State = Option<u64>;

/// The state after `action` was done on `state`, if its answer is right there.
fn step(state: State, action: Action, outcome: Outcome) -> Option<State> {
    match (action, outcome) {
        (Action::Read { seen }, _) => (seen == state).then_some(state),
        (Action::Write { value }, _) => Some(Some(value)),
        (Action::Swap { expected, .. }, Outcome::Refused) => (expected != state).then_some(state),
        (Action::Swap { .. }, Outcome::Failed) => Some(state),
        (Action::Swap { expected, value }, Outcome::Ok) => {
            (expected == state).then_some(Some(value))
        }
        (Action::Swap { expected, value }, Outcome::Unknown) => {
            Some(if expected == state { Some(value) } else { state })
        }
    }
}

fn check_register(register: u32, mut operations: Vec<Operation>) -> Result<(), NotLinearizable> {
    // Reads without an answer say nothing, refused writes did nothing.
    operations.retain(|operation| match (operation.action, operation.outcome) {
        (_, Outcome::Failed) => false,
        (Action::Read { .. }, outcome) => outcome == Outcome::Ok,
        (Action::Write { .. }, outcome) => outcome != Outcome::Refused,
        (Action::Swap { .. }, _) => true,
    });
    operations.sort_by_key(|operation| operation.called);
    let mut search = Search {
        ends: operations
            .iter()
            .map(|operation| match operation.outcome {
                Outcome::Unknown => u128::MAX,
                Outcome::Ok | Outcome::Refused | Outcome::Failed => operation.returned.as_nanos(),
            })
            .collect(),
        seen: HashSet::new(),
        operations,
    };
    search.run(register)
}

struct Search {
    operations: Vec<Operation>,
    /// When each was answered; never for an unknown outcome.
    ends: Vec<u128>,
    seen: HashSet<(Placed, Option<u64>)>,
}

/// Which operations are placed: all below `from`, and those of the set bits after it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Placed {
    from: usize,
    bits: Vec<u64>,
}

impl Placed {
    fn contains(&self, at: usize) -> bool {
        if at < self.from {
            return true;
        }
        let offset = at - self.from;
        self.bits.get(offset / 64).is_some_and(|word| word & (1 << (offset % 64)) != 0)
    }

    fn with(&self, at: usize) -> Self {
        let mut new = self.clone();
        let offset = at - self.from;
        if new.bits.len() <= offset / 64 {
            new.bits.resize(offset / 64 + 1, 0);
        }
        new.bits[offset / 64] |= 1 << (offset % 64);
        // In whole words, so that the bits need no shift.
        while new.bits.first() == Some(&u64::MAX) {
            new.bits.remove(0);
            new.from += 64;
        }
        new
    }
}

impl Search {
    fn run(&mut self, register: u32) -> Result<(), NotLinearizable> {
        let start = Placed { from: 0, bits: Vec::new() };
        let mut stack = vec![(start, None)];
        let mut farthest: (usize, Option<usize>) = (0, None);
        while let Some((placed, state)) = stack.pop() {
            if !self.seen.insert((placed.clone(), state)) {
                continue;
            }
            if self.seen.len() > BUDGET {
                return Err(NotLinearizable::Undecided { register });
            }
            let Some(first_end) = self.first_end(&placed) else { return Ok(()) };
            let mut at = placed.from;
            let mut first_open = None;
            while at < self.operations.len() {
                let operation = self.operations[at];
                if operation.called.as_nanos() > first_end {
                    break; // everything from here on was called after an unplaced one had ended
                }
                if !placed.contains(at) {
                    first_open = first_open.or(Some(at));
                    if let Some(next) = step(state, operation.action, operation.outcome) {
                        stack.push((placed.with(at), next));
                    }
                }
                at += 1;
            }
            if let Some(open) = first_open
                && open >= farthest.0
            {
                farthest = (open, Some(open));
            }
        }
        let stuck = farthest.1.map_or(0, |at| at);
        Err(NotLinearizable::Impossible {
            register,
            operations: self.operations.len(),
            stuck: Box::new(self.operations[stuck]),
        })
    }

    /// The earliest end of an operation that is not placed; nothing when only operations of unknown
    /// outcome are left, which need not have happened.
    fn first_end(&self, placed: &Placed) -> Option<u128> {
        (placed.from..self.operations.len())
            .filter(|&at| !placed.contains(at))
            .map(|at| self.ends[at])
            .min()
            .filter(|end| *end != u128::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn operation(words: &str) -> Operation {
        // "0-3 w1", "2-5 r1", "2-5 r-", "1-9 s1>2 ok|refused|unknown"
        let mut parts = words.split_whitespace();
        let (called, returned) = parts.next().unwrap().split_once('-').unwrap();
        let what = parts.next().unwrap();
        let outcome = match parts.next() {
            None | Some("ok") => Outcome::Ok,
            Some("refused") => Outcome::Refused,
            Some("unknown") => Outcome::Unknown,
            Some(other) => panic!("{other}"),
        };
        let value = |text: &str| text.parse::<u64>().ok();
        let action = match what.split_at(1) {
            ("r", seen) => Action::Read { seen: value(seen) },
            ("w", text) => Action::Write { value: value(text).unwrap() },
            ("s", text) => {
                let (expected, new) = text.split_once('>').unwrap();
                Action::Swap { expected: value(expected), value: value(new).unwrap() }
            }
            _ => panic!("{what}"),
        };
        Operation {
            client: 0,
            register: 0,
            action,
            outcome,
            called: Duration::from_secs(called.parse().unwrap()),
            returned: Duration::from_secs(returned.parse().unwrap()),
        }
    }

    #[test]
    fn answers_that_no_order_explains_are_found() {
        let table = "
            0-1 w1, 2-3 r1                              | yes
            0-1 w1, 2-3 r-                              | no
            0-9 w1, 2-3 r-                              | yes
            0-1 w1, 2-3 w2, 4-5 r1                      | no
            0-1 w1, 2-9 w2, 3-4 r2, 5-6 r1              | no
            0-1 w1, 2-9 w2, 3-4 r1, 5-6 r2              | yes
            0-1 w1 unknown, 5-6 r-, 7-8 r1              | yes
            0-1 w1 unknown, 5-6 r1, 7-8 r-              | no
            0-1 w1, 2-3 s1>2, 4-5 r2                    | yes
            0-1 w1, 2-3 s1>2 refused                    | no
            0-1 w1, 2-3 s7>2 refused, 4-5 r1            | yes
            0-1 w1, 2-3 s1>2 unknown, 4-5 r1, 6-7 r2    | yes
            0-1 w1, 2-9 s1>2, 2-9 s1>3                  | no
            0-1 w1, 2-9 s1>2, 2-9 s1>3 refused, 10-11 r2 | yes";
        for row in table.lines().skip(1) {
            let (words, expected) = row.split_once('|').unwrap();
            let history: Vec<_> = words.split(',').map(operation).collect();
            assert_eq!(check(&history).is_ok(), expected.trim() == "yes", "in row {row}");
        }
    }

    /// Tries every order of every subset that leaves out unknown operations only.
    fn naive(history: &[Operation]) -> bool {
        fn place(history: &[Operation], placed: &mut Vec<bool>, state: Option<u64>) -> bool {
            let open = |at: &usize| !placed[*at];
            let must = (0..history.len())
                .filter(open)
                .filter(|at| history[*at].outcome != Outcome::Unknown)
                .map(|at| history[at].returned)
                .min();
            let Some(must) = must else { return true };
            for at in 0..history.len() {
                if placed[at] || history[at].called > must {
                    continue;
                }
                if let Some(next) = step(state, history[at].action, history[at].outcome) {
                    placed[at] = true;
                    if place(history, placed, next) {
                        return true;
                    }
                    placed[at] = false;
                }
            }
            false
        }
        place(history, &mut vec![false; history.len()], None)
    }

    fn any_operation() -> impl Strategy<Value = Operation> {
        let action = prop_oneof![
            prop::option::of(1_u64..4).prop_map(|seen| Action::Read { seen }),
            (1_u64..4).prop_map(|value| Action::Write { value }),
            (prop::option::of(1_u64..4), 1_u64..4)
                .prop_map(|(expected, value)| Action::Swap { expected, value }),
        ];
        let outcome = prop_oneof![
            4 => Just(Outcome::Ok), 1 => Just(Outcome::Refused), 1 => Just(Outcome::Unknown)];
        (action, outcome, 0_u64..12, 1_u64..6).prop_map(|(action, outcome, called, length)| {
            let outcome = match (action, outcome) {
                (Action::Write { .. }, Outcome::Refused) | (Action::Read { .. }, _) => Outcome::Ok,
                (Action::Write { .. } | Action::Swap { .. }, outcome) => outcome,
            };
            Operation {
                client: 0,
                register: 0,
                action,
                outcome,
                called: Duration::from_secs(called),
                returned: Duration::from_secs(called + length),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn the_search_agrees_with_trying_every_order(
            history in prop::collection::vec(any_operation(), 0..7)
        ) {
            prop_assert_eq!(check(&history).is_ok(), naive(&history));
        }
    }
}
