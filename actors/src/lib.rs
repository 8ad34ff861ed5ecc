//! The actors crate of Impresario.

pub mod controllers;
