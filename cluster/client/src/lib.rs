//! Programs against an Impresario cluster: the messages of its actors, its objects, and who
//! connects to it.

pub mod protocol;
