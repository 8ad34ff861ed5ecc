//! Orders to members, as a control member gives them.

use crate::cluster::Cluster;
use crate::line::LIMIT;
use impresario_client::protocol::training::{
    Accept, Applied, CommitCheckpoint, Handover, Keep, Leave, LookForCheckpoint, ModelFacts,
    OptimizerKind, ParameterServerRole, Place, Provide, RestoreShards, SaveShards, ShardRange,
    ShardState, TrainerRole, parameter_server_actor, trainer_actor,
};
use impresario_runtime::{ActorPath, NodeName};
use std::net::Ipv4Addr;

/// What the parameter server and the trainer say to each order that there is, of this lease. Those of
/// shards are about one that no model has: followed, they come to another error.
pub async fn orders(cluster: &Cluster, lease: u64) -> Vec<(&'static str, String)> {
    let server = cluster.member::<ParameterServerRole>("parameterServer", parameter_server_actor);
    let trainer = cluster.member::<TrainerRole>("trainer", trainer_actor);
    let to = Place {
        path: ActorPath::new(NodeName::from("nobody"), "nobody"),
        address: (Ipv4Addr::LOCALHOST, 9).into(),
    };
    let range = ShardRange { shard: 9_999, start: 1 << 40, length: 1 };
    let state = ShardState {
        range,
        values: vec![0.0],
        average: vec![0.0],
        version: 0,
        applied: Applied::default(),
        optimizer: OptimizerKind::Momentum { rate: 1.0, decay: 0.0, momentum: 0.0 },
        memory_steps: 0,
        first: vec![0.0],
        second: Vec::new(),
    };
    let (shard, epoch) = (range.shard, 0);
    let handover = Handover { lease, shard, to: to.clone(), epoch };
    let provide = Provide { lease, shards: vec![range], to, epoch, begins: false };
    let said = |said: Result<(), String>| said.err().unwrap_or_default();
    let keep = server.ask(Keep { lease, shard, epoch }, LIMIT).await.unwrap();
    let handover = server.ask(handover, LIMIT).await.unwrap();
    let accept = server.ask(Accept { lease, epoch, state }, LIMIT).await.unwrap();
    let provide = trainer.ask(provide, LIMIT).await.unwrap();
    let leave = trainer.ask(Leave { lease }, LIMIT).await.unwrap();
    let optimizer = OptimizerKind::Momentum { rate: 1.0, decay: 0.0, momentum: 0.0 };
    let (uid, blocks) = ("nobody".to_owned(), Vec::new());
    let model = ModelFacts { blocks, samples: 1, batch: 1, optimizer, seed: 1 };
    let folder = "/dev/null/folder".to_owned();
    let look = LookForCheckpoint {
        lease,
        folder: folder.clone(),
        uid: None,
        activation: 0,
        verify: true,
        model: model.clone(),
        ranges: Vec::new(),
    };
    let look = server.ask(look, LIMIT).await.unwrap();
    let save = SaveShards { lease, folder: folder.clone(), shards: vec![shard] };
    let save = server.ask(save, LIMIT).await.unwrap();
    let commit = CommitCheckpoint {
        lease,
        folder: folder.clone(),
        temporary: "temporary".to_owned(),
        number: 1,
        keep: 1,
        job: String::new(),
        uid,
        model,
        saved: Vec::new(),
    };
    let commit = server.ask(commit, LIMIT).await.unwrap();
    let (path, sha256, shards) = (folder, String::new(), vec![range]);
    let restore = RestoreShards { lease, epoch, path, sha256, shards, optimizer };
    let restore = server.ask(restore, LIMIT).await.unwrap();
    vec![
        ("look", said(look.map(drop).map_err(|error| error.to_string()))),
        ("save", said(save.map(drop).map_err(|error| error.to_string()))),
        ("commit", said(commit.map(drop).map_err(|error| error.to_string()))),
        ("restore", said(restore.map(drop).map_err(|error| error.to_string()))),
        ("keep", said(keep.map_err(|error| error.to_string()))),
        ("hand over", said(handover.map_err(|error| error.to_string()))),
        ("accept", said(accept.map_err(|error| error.to_string()))),
        ("provide", said(provide.map(drop).map_err(|error| error.to_string()))),
        ("leave", said(leave.map_err(|error| error.to_string()))),
    ]
}
