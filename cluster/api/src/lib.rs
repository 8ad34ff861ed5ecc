//! The objects of Impresario: one table of resources, and what may be said about each of them.
//!
//! [`catalog::Catalog`] is the only list of kinds, to which some come and go while the cluster runs; routes, discovery, schemas, tables, defaults
//! and validation are read off it. Objects are JSON values, lossless for what we do not know.
//! Everything here is a plain function of its inputs: no IO, no clock, no actors; whatever a
//! server draws (uids, addresses, name suffixes) is handed in.

pub mod admission;
mod allocator;
pub mod catalog;
mod cause;
pub mod cel;
mod context;
pub mod crd;
pub mod cron;
pub mod discovery;
pub mod dynamic;
pub mod field;
mod formats;
mod go_duration;
mod json_equality;
#[expect(clippy::unnecessary_wraps, reason = "the functions of a row have one signature")]
pub mod kinds;
pub mod managed;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod pattern;
pub mod policy;
pub mod quantity;
pub mod resource;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod status;
pub mod storage;
pub mod structural;
pub mod table;
pub mod wire;
