//! The actors crate of Impresario.
