//! How many nodes only pretend, and what they say that they have.

use clap::Args;
use impresario_api::quantity::Quantity;
use std::path::PathBuf;

/// The most hollow nodes of a cluster: what a cluster is designed for.
pub const HOLLOW_MOST: u16 = 5_000;

/// Nodes that only pretend, to see what a large cluster costs its control plane.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_field_names)] // They are called as the flags are.
pub struct Hollow {
    /// So many nodes more that only pretend: they take pods and run nothing of them. More than there are makes more,
    /// 0 takes all of them away.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(HOLLOW_MOST)))]
    pub hollow: Option<u16>,
    /// The CPUs that each of them says it has [default: 32].
    #[arg(long, value_name = "QUANTITY", requires = "hollow", value_parser = parse_cpu)]
    pub hollow_cpu: Option<u64>,
    /// The memory that each of them says it has [default: 256Gi].
    #[arg(long, value_name = "QUANTITY", requires = "hollow", value_parser = parse_bytes)]
    pub hollow_memory: Option<u64>,
    /// How many pods each of them takes [default: 110].
    #[arg(long, value_name = "N", requires = "hollow", value_parser = clap::value_parser!(u64).range(1..=250))]
    pub hollow_pods: Option<u64>,
}

/// `imp __hollow`.
#[derive(Debug, Clone, Args)]
pub struct HollowGroup {
    /// The folder of the group.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// CPUs as objects have them, such as `32` or `500m`, in thousandths of one.
fn parse_cpu(text: &str) -> Result<u64, String> {
    let quantity: Option<Quantity> = text.parse().ok();
    let millis = quantity.and_then(|quantity| u64::try_from(quantity.millis()).ok());
    millis
        .filter(|millis| *millis > 0)
        .ok_or_else(|| format!("'{text}' is no number of CPUs such as 32 or 500m"))
}

/// Memory as objects have it, such as `256Gi`, in bytes.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let quantity: Option<Quantity> = text.parse().ok();
    let bytes = quantity.and_then(|quantity| u64::try_from(quantity.units()).ok());
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("'{text}' is no amount of memory such as 256Gi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_objects_have_them() {
        assert_eq!((parse_cpu("32"), parse_cpu("500m")), (Ok(32_000), Ok(500)));
        assert_eq!(parse_bytes("256Gi"), Ok(256 << 30));
        for bad in ["", "0", "-1", "many", "1e99x"] {
            assert!(parse_cpu(bad).is_err() && parse_bytes(bad).is_err(), "{bad:?}");
        }
    }
}
