//! The cast of Impresario: one module for each kind of actor.

pub mod auction;
pub mod controllers;
pub mod training;
pub mod parameter_server;
pub mod trainer;
pub mod training_job;
