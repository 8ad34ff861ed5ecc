//! The gateway crate of Impresario.
