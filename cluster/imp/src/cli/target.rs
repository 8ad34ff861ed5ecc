//! Which cluster, namespace and object a command is about.

use clap::Args;
use std::path::PathBuf;

/// Where the cluster of this machine keeps its files.
#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// The folder of the cluster [default: ~/.impresario].
    #[arg(long, value_name = "DIR", env = "IMPRESARIO_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The folder that is meant.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
            home.join(".impresario")
        })
    }
}

/// Which cluster and which namespace a command is about.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The folder of the cluster.
    #[command(flatten)]
    pub dir: DataDir,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// The name of an object. An empty one (a variable that is not set) or a step of a path would name the
/// whole collection, or something else.
pub fn parse_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a name is not empty".to_owned()),
        "." | ".." => Err(format!("'{text}' is no name")),
        _ if text.contains(['/', '%']) => Err(format!("'{text}' is no name: it has a / or a %")),
        _ => Ok(text.to_owned()),
    }
}
