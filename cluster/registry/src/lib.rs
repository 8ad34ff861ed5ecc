//! The registry crate of Impresario.
