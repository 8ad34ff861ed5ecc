//! The host crate of Impresario.
