//! The speech crate of Impresario.
