//! The client crate of Impresario.
