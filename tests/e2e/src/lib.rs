//! The e2e crate of Impresario.
