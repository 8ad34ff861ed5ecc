//! A number of pods, or a part of all of them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What becomes of a part of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Up,
    Down,
}

/// A number, or so many hundredths of a whole. What is neither, or less than nothing, is 0: the API takes no such.
pub(super) fn part(of: &IntOrString, whole: i32, round: Round) -> i32 {
    match of {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i32>().ok());
            let hundredths = i64::from(percent.unwrap_or(0).max(0)) * i64::from(whole);
            let more = if round == Round::Up { 99 } else { 0 };
            i32::try_from((hundredths + more) / 100).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_pod_is_rounded_up_or_down_as_is_asked() {
        let text = |text: &str| IntOrString::String(text.into());
        for (of, whole, down, up) in [
            (IntOrString::Int(3), 10, 3, 3),
            (IntOrString::Int(-3), 10, 0, 0),
            (text("25%"), 10, 2, 3),
            (text("25%"), 8, 2, 2),
            (text("1%"), 1, 0, 1),
            (text("0%"), 10, 0, 0),
            (text("25%"), 0, 0, 0),
            (text("-25%"), 10, 0, 0),
            (text("300%"), 10, 30, 30),
            (text("2147483647%"), i32::MAX, i32::MAX, i32::MAX),
            (text("3"), 10, 0, 0),
        ] {
            let parts = (part(&of, whole, Round::Down), part(&of, whole, Round::Up));
            assert_eq!(parts, (down, up), "{of:?} of {whole}");
        }
    }
}
