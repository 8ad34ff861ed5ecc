//! The chaos crate of Impresario.
