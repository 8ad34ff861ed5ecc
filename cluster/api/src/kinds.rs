//! One file a kind: its row of the table, its columns, its defaults and what it forbids.

pub mod configmaps;
pub mod controllerrevisions;
pub mod customresourcedefinitions;
pub mod daemonsets;
pub mod deployments;
pub mod endpoints;
pub mod endpointslices;
pub mod events;
pub mod jobs;
pub mod leases;
pub mod limitranges;
pub mod namespaces;
pub mod nodes;
pub mod pods;
pub mod priorityclasses;
pub mod replicasets;
pub mod replicationcontrollers;
pub mod resourcequotas;
pub mod secrets;
pub mod serviceaccounts;
pub mod services;
pub mod trainingjobs;
