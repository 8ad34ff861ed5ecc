//! Amounts of things: `1500m` of a CPU, `1Gi` of memory.
//!
//! A quantity is held exactly, in billionths, with the suffix family it was written in; what is
//! finer is rounded up, as Kubernetes does. [`Display`](std::fmt::Display) prints the canonical
//! form, in which equal amounts of one family are spelt alike: `0.5` is `500m`, `1024Mi` is `1Gi`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
/// Kubernetes caps what it reads at the largest 64-bit number.
const LIMIT: i128 = i64::MAX as i128 * NANOS;

/// The family of suffixes that a quantity is printed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m "" k M G T P E`.
    Decimal,
    /// `Ki Mi Gi Ti Pi Ei`.
    Binary,
    /// `e3`, `E6`.
    Exponent,
}

/// An exact amount.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseQuantityError;

impl Quantity {
    /// A whole number of units.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANOS, format: Format::Decimal }
    }

    /// So many thousandths of a unit.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::Decimal }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS, format: Format::Binary }
    }

    /// Nothing.
    pub fn zero() -> Self {
        Self::from_units(0)
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        clamp(ceiling(self.nanos, NANOS))
    }

    /// Thousandths, rounded up.
    pub fn millis(self) -> i64 {
        clamp(ceiling(self.nanos, NANOS / 1000))
    }

    /// The sign: -1, 0 or 1.
    pub fn sign(self) -> i128 {
        self.nanos.signum()
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The family it was written in.
    pub fn format(self) -> Format {
        self.format
    }

    /// Both together, in the format of this one, unless it is zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT), format }
    }

    /// What is left of this one.
    pub fn minus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: (self.nanos - other.nanos).clamp(-LIMIT, LIMIT), format }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division rounded away from zero, which is what reserving resources must do.
fn ceiling(value: i128, by: i128) -> i128 {
    let whole = value / by;
    if value % by == 0 { whole } else { whole + value.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// What a suffix multiplies by: a numerator, a denominator and the family.
fn scale(suffix: &str) -> Option<(i128, i128, Format)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1, Format::Binary));
    let decimal = |power: u32| Some((1000_i128.pow(power), 1, Format::Decimal));
    match suffix {
        "" => decimal(0),
        "n" => Some((1, 1_000_000_000, Format::Decimal)),
        "u" => Some((1, 1_000_000, Format::Decimal)),
        "m" => Some((1, 1000, Format::Decimal)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs().min(37))?;
            Some(if exponent < 0 {
                (1, power, Format::Exponent)
            } else {
                (power, 1, Format::Exponent)
            })
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, suffix) = rest.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError);
        }
        let (by, per, format) = scale(suffix).ok_or(ParseQuantityError)?;
        let mut nanos: i128 = 0;
        // A remainder that no billionth can hold still counts: the amount is rounded up.
        let mut finer = false;
        let add = |amount: Option<i128>, nanos: &mut i128| {
            *nanos = amount.and_then(|a| nanos.checked_add(a)).unwrap_or(LIMIT).min(LIMIT);
        };
        let whole = whole.trim_start_matches('0');
        if whole.len() > 24 {
            nanos = LIMIT;
        } else if !whole.is_empty() {
            let number: i128 = whole.parse().map_err(|_| ParseQuantityError)?;
            let product = number.checked_mul(by).and_then(|n| n.checked_mul(NANOS));
            finer |= product.is_some_and(|n| n % per != 0);
            add(product.map(|n| n / per), &mut nanos);
        }
        let fraction = fraction.trim_end_matches('0');
        let kept = &fraction[..fraction.len().min(18)];
        if !kept.is_empty() {
            let number: i128 = kept.parse().map_err(|_| ParseQuantityError)?;
            let tens = 10_i128.pow(kept.len() as u32);
            // by and NANOS together stay below 2^60 * 2^30; the digits below 2^60: divide in steps.
            let scaled = number.checked_mul(NANOS);
            if let Some(product) = scaled.and_then(|n| n.checked_mul(by)) {
                let divisor = tens.saturating_mul(per);
                finer |= product % divisor != 0;
                add(Some(product / divisor), &mut nanos);
            } else {
                let product = number.checked_mul(by).unwrap_or(LIMIT) / tens;
                add(product.checked_mul(NANOS), &mut nanos);
            }
        }
        finer |= kept.len() < fraction.len();
        if finer && nanos < LIMIT {
            nanos += 1;
        }
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANOS;
        match self.format {
            Format::Binary if !small => {
                let mut amount = ceiling(self.nanos, NANOS);
                let mut power = 0;
                while power < 6 && amount % 1024 == 0 {
                    amount /= 1024;
                    power += 1;
                }
                write!(f, "{amount}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power])
            }
            format => {
                let mut amount = self.nanos;
                let mut power = 0;
                while power < 9 && amount % 1000 == 0 {
                    amount /= 1000;
                    power += 1;
                }
                if format == Format::Exponent {
                    let exponent = power as i32 * 3 - 9;
                    return if exponent == 0 {
                        write!(f, "{amount}")
                    } else {
                        write!(f, "{amount}e{exponent}")
                    };
                }
                write!(f, "{amount}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power])
            }
        }
    }
}

/// The canonical spelling of a quantity that may be given as text or as a number.
pub fn canonical(value: &serde_json::Value) -> Option<String> {
    parse(value).map(|quantity| quantity.to_string())
}

/// Reads a quantity that may be given as text or as a number.
pub fn parse(value: &serde_json::Value) -> Option<Quantity> {
    match value {
        serde_json::Value::String(text) => text.parse().ok(),
        serde_json::Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_amounts_are_spelt_alike() {
        let rows = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e2", "1200"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("-1", "-1"),
            ("+2", "2"),
            ("1E", "1E"),
            (".5", "500m"),
            ("5.", "5"),
            ("9Ei", "9223372036854775807"),
        ];
        for (written, canonical) in rows {
            assert_eq!(written.parse::<Quantity>().unwrap().to_string(), canonical, "{written}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "a", "1x", "1.2.3", "-", "1 ", "1ki", "0x1", "1e", "."] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn reserving_rounds_up() {
        let quantity: Quantity = "1.0001".parse().unwrap();
        assert_eq!((quantity.units(), quantity.millis()), (2, 1001));
    }

    proptest! {
        #[test]
        fn the_canonical_form_reads_back_as_the_same_amount(
            number in -1_000_000_000_i64..1_000_000_000,
            suffix in prop::sample::select(vec!["n", "u", "m", "", "k", "M", "Ki", "Mi", "Gi", "e3", "e-3"]),
        ) {
            let quantity: Quantity = format!("{number}{suffix}").parse().unwrap();
            let again: Quantity = quantity.to_string().parse().unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
