//! Sets of completion indexes as the Job API writes them: `0,2-4` (API reference, JobStatus
//! v1, `completedIndexes`).

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The indexes below `completions` that `text` names. What is not a number or a range is left out: a
/// damaged part must not stop the job. They stand in order, and a text that says one twice costs no
/// more than one that does not.
#[must_use]
pub fn parse(text: &str, completions: u32) -> BTreeSet<u32> {
    let mut indexes = BTreeSet::new();
    let mut next = 0;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            let end = completions.min(last.saturating_add(1));
            indexes.extend(first.max(next)..end);
            next = next.max(end);
        }
    }
    indexes
}

/// The shortest text that names `indexes`: runs of three and more as ranges, as Kubernetes
/// writes a run of two as `1,2`.
#[must_use]
pub fn format(indexes: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.peek() == Some(&(last + 1)) {
            last += 1;
            rest.next();
        }
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match last - first {
            0 => write!(text, "{first}"),
            1 => write!(text, "{first},{last}"),
            _ => write!(text, "{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (indexes, text) in [
            (vec![], ""),
            (vec![0], "0"),
            (vec![0, 1], "0,1"),
            (vec![0, 2, 3, 4, 7, 8], "0,2-4,7,8"),
        ] {
            let set: BTreeSet<u32> = indexes.into_iter().collect();
            assert_eq!(format(&set), text);
            assert_eq!(parse(text, 9), set);
        }
    }

    #[test]
    fn no_text_names_more_indexes_than_the_job_has() {
        assert_eq!(parse("0-4294967295,7,x,3-1,0-2", 3), BTreeSet::from([0, 1, 2]));
    }
}
