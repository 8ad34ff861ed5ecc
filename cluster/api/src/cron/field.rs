//! One field of a schedule, as a set of bits.

use super::error::CronError;

/// What a field may say.
pub(super) struct Kind {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of its numbers, from the lowest.
    names: &'static [&'static str],
}

pub(super) const MINUTE: Kind = Kind { name: "minute", min: 0, max: 59, names: &[] };
pub(super) const HOUR: Kind = Kind { name: "hour", min: 0, max: 23, names: &[] };
pub(super) const DAY: Kind = Kind { name: "day of the month", min: 1, max: 31, names: &[] };
pub(super) const MONTH: Kind = Kind {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const WEEKDAY: Kind = Kind {
    name: "day of the week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// The numbers that are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Field {
    bits: u64,
    /// Whether it restricts nothing: a `*` or `?` without steps is in it.
    any: bool,
}

impl Field {
    pub(super) fn has(self, number: u32) -> bool {
        number < 64 && (self.bits >> number) & 1 == 1
    }

    pub(super) fn is_any(self) -> bool {
        self.any
    }

    /// Each of them, the lowest first.
    pub(super) fn each(self) -> impl DoubleEndedIterator<Item = u32> {
        (0..64).filter(move |number| self.has(*number))
    }
}

impl Kind {
    /// Reads a list of entries.
    pub(super) fn read(&self, text: &str) -> Result<Field, CronError> {
        let mut field = Field::default();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let one = self.entry(entry)?;
            field = Field { bits: field.bits | one.bits, any: field.any | one.any };
        }
        if field.bits == 0 {
            return Err(CronError::Nothing { field: self.name });
        }
        Ok(field)
    }

    fn entry(&self, entry: &str) -> Result<Field, CronError> {
        let no_range = || CronError::Range { field: self.name, given: entry.to_owned() };
        let mut parts = entry.split('/');
        let range = parts.next().unwrap_or_default();
        let step = parts.next();
        if parts.next().is_some() {
            return Err(no_range());
        }
        let mut ends = range.split('-');
        let (low, high) = (ends.next().unwrap_or_default(), ends.next());
        let is_any = matches!(low, "*" | "?");
        let (start, mut end) = if is_any {
            (self.min, self.max)
        } else {
            let start = self.number(low)?;
            (start, high.map_or(Ok(start), |high| self.number(high))?)
        };
        if ends.next().is_some() {
            return Err(no_range());
        }
        let by = step.map_or(Ok(1), |step| self.digits(step))?;
        // `5/15` goes on to the end.
        if step.is_some() && high.is_none() {
            end = self.max;
        }
        if start < self.min || end > self.max || start > end || by == 0 {
            let (min, max) = (self.min, self.max);
            return Err(CronError::Bounds { field: self.name, given: entry.to_owned(), min, max });
        }
        let step = usize::try_from(by).unwrap_or(usize::MAX);
        let bits = (start..=end).step_by(step).fold(0_u64, |bits, number| bits | (1 << number));
        Ok(Field { bits, any: is_any && by == 1 })
    }

    fn number(&self, word: &str) -> Result<u32, CronError> {
        match self.names.iter().position(|name| name.eq_ignore_ascii_case(word)) {
            Some(at) => Ok(self.min + u32::try_from(at).unwrap_or_default()),
            None => self.digits(word),
        }
    }

    fn digits(&self, word: &str) -> Result<u32, CronError> {
        word.parse().map_err(|_| CronError::Word { field: self.name, given: word.to_owned() })
    }
}
