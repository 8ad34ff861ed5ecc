//! The runtime crate of Impresario.
