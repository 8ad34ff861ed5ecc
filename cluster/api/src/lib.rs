//! The api crate of Impresario.
