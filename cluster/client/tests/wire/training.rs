//! What the actors of a training job say.

use crate::record::{Record, every};
use impresario_client::protocol::resources::Resources;
use impresario_client::protocol::training::{
    Accept, Applied, AwaitStep, Batch, Bid, Checkpoint, CheckpointError, CommitCheckpoint,
    Committed, ControlMembers, CurrentMap, Describe, Description, Doing, Elsewhere, Evaluated,
    Handover, HandoverError, Held, HeldShard, Holds, JoinRefused, JoinTraining, Keep, Leave,
    LookForCheckpoint, Looked, ModelFacts, NextPart, NextWork, OptimizerKind, Order, Place,
    Progress, Provide, ProvideError, Pull, PullAt, Pulled, Push, PushPart, Pushed, ReportError,
    RequestBid, RequestUnsureBid, RestoreShards, SaveShards, SavedShard, Scale, ScaleError,
    ServerOrder, ServerReport, ShardMap, ShardRange, ShardState, Size, SpeedModel, StaleLease,
    StepState, TrainerReport, UnsureBid, Welcome, Work,
};
use impresario_runtime::ActorPath;

fn place() -> Place {
    Place {
        path: ActorPath::new("n1", "parameterserver/u1"),
        address: "10.0.0.1:7443".parse().unwrap(),
    }
}

fn distant() -> Place {
    Place { path: ActorPath::new("n2", "trainer/u2"), address: "[fd00::2]:1".parse().unwrap() }
}

fn range() -> ShardRange {
    ShardRange { shard: 2, start: 70_000, length: 300 }
}

fn applied() -> Applied {
    let mut applied = Applied::all_below(300);
    applied.insert(302);
    applied
}

fn map() -> ShardMap {
    ShardMap { epoch: 4, shards: vec![range()], places: vec![place()] }
}

fn optimizers() -> [OptimizerKind; 3] {
    every([
        OptimizerKind::Momentum { rate: 0.1, decay: 0.0, momentum: 0.9 },
        OptimizerKind::Adam { rate: 0.001, decay: 0.5, beta1: 0.9, beta2: 0.999 },
        OptimizerKind::AdamW {
            rate: 0.001,
            decay: 0.5,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.25,
        },
    ])
}

fn stale() -> StaleLease {
    StaleLease { given: 6, current: 7 }
}

fn report_errors() -> [ReportError; 2] {
    every([
        ReportError::Unknown,
        ReportError::Invalid { field: "done.loss".into(), reason: "not a number".into() },
    ])
}

fn evaluated() -> Evaluated {
    Evaluated { version: 300, loss: Some(0.25), accuracy: 0.875 }
}

pub fn record() -> Record {
    checkpoints(parameters(sizing(work(membership(Record::of("training"))))))
}

fn membership(record: Record) -> Record {
    let [_, adam, _] = optimizers();
    let holds = every([
        Holds::Shards(
            [None, Some(place())]
                .map(|leaving| HeldShard {
                    range: range(),
                    epoch: 4,
                    version: 301,
                    applied: applied(),
                    leaving,
                })
                .into(),
        ),
        Holds::Model(ModelFacts {
            blocks: vec![("w".into(), 300)],
            samples: 70_000,
            batch: 32,
            optimizer: adam,
            seed: u64::MAX,
        }),
    ]);
    let refusals = every([
        JoinRefused::NotYours { pod_uid: "u1".into() },
        JoinRefused::Ended,
        JoinRefused::NotYet,
        JoinRefused::OtherModel,
        JoinRefused::Invalid { field: "place".into(), reason: "not yours".into() },
    ]);
    record.ask(
        holds.map(|holds| JoinTraining { pod_uid: "u1".into(), place: place(), holds }),
        [Ok(Welcome { activation: 9, lease: 7 })].into_iter().chain(refusals.map(Err)),
    )
}

fn work(record: Record) -> Record {
    let progress = Progress {
        step: 300,
        samples: 32,
        loss: Some(0.5),
        seconds: 1.5,
        compute_seconds: 1.25,
        gradient_square: None,
    };
    let asked = NextWork {
        activation: 9,
        pod_uid: "u2".into(),
        done: vec![progress],
        returned: vec![301],
        evaluated: Some(evaluated()),
        evaluation: Some(3),
        map_epoch: 4,
    };
    let elsewhere = vec![Elsewhere { shard: 2, epoch: 5, to: distant() }];
    let orders = every([
        Order::Train(vec![Batch { step: 303, epoch: 1, start: 64, length: 32 }]),
        Order::Evaluate { number: 3 },
        Order::Wait { milliseconds: 250 },
        Order::Stop,
        Order::Parts {
            batch: Batch { step: 303, epoch: 1, start: 64, length: 32 },
            parts: vec![1, 2],
            of: 300,
        },
    ]);
    let answers = orders.map(|order| Ok(Work { map: Some(map()), order }));
    let held = Held { step: 303, parts: vec![1, 300], everywhere: true };
    let part = NextPart { asked: NextWork { done: Vec::new(), ..asked.clone() }, held };
    record
        .ask([part], [Err(ReportError::Unknown)])
        .ask([asked], answers.into_iter().chain(report_errors().map(Err)))
        .ask(
            every([Doing::Waiting, Doing::Training(303), Doing::Evaluating]).map(|doing| {
                TrainerReport { activation: 9, pod_uid: "u2".into(), doing, milliseconds: 90_000 }
            }),
            [Ok(true), Ok(false)].into_iter().chain(report_errors().map(Err)),
        )
        .ask(
            [ServerReport {
                activation: 9,
                pod_uid: "u1".into(),
                versions: vec![(2, 301)],
                leaving: [2].into(),
            }],
            [true, false]
                .map(|wanted| {
                    Ok(ServerOrder { wanted, settled: 300, elsewhere: elsewhere.clone() })
                })
                .into_iter()
                .chain(report_errors().map(Err)),
        )
        .ask(
            [ControlMembers { pod_uid: "u2".into() }],
            [vec![("n1".into(), "10.0.0.1:7443".parse().unwrap())], Vec::new()],
        )
        .ask(
            [CurrentMap { activation: 9, pod_uid: "u2".into() }],
            [Ok(map())].into_iter().chain(report_errors().map(Err)),
        )
}

fn sizing(record: Record) -> Record {
    let size = Size { parameter_servers: 1, trainers: 4 };
    let speeds = every([
        SpeedModel::Asynchronous { a: [0.5, 0.25, 0.0, 1.0] },
        SpeedModel::Synchronous { batch: 32.0, a: [0.5, 0.25, 0.0, 1.0, 2.0] },
    ]);
    let bids = speeds.map(|speed| {
        Some(Bid {
            job: "u".into(),
            lease: 7,
            namespace: "ns".into(),
            name: "j".into(),
            created_unix_seconds: 1 << 31,
            remaining_steps: 1000.5,
            remaining_uncertainty: 0.25,
            done_steps: 300,
            speed,
            speed_uncertainty: 0.125,
            measured_trainers: 3,
            current: size,
            wanted: Size { trainers: 5, ..size },
            min: Size { trainers: 1, ..size },
            max: Size { trainers: 8, ..size },
            parameter_server: Resources { cpu_milli: 500, pods: 1, ..Resources::default() },
            trainer: Resources { cpu_milli: 1000, pods: 1, ..Resources::default() },
            rescale_seconds: 2.5,
            rescale_uncertainty: 0.5,
            incomplete_seconds: 12,
        })
    });
    let refusals = every([
        ScaleError::Stale { current: 8 },
        ScaleError::OldLease(stale()),
        ScaleError::InDoubt,
        ScaleError::OutOfRange,
        ScaleError::Ended,
    ]);
    let description = Description {
        size,
        wanted: size,
        step: 300,
        total_steps: Some(1000),
        loss: Some(0.5),
        evaluated: Some(evaluated()),
        steps_per_second: 2.0,
        remaining_seconds: Some(350.0),
        ended: false,
    };
    let unsure: Vec<_> = bids.iter().cloned().map(|bid| bid.map(UnsureBid::from)).collect();
    record
        .ask([RequestUnsureBid { round: 7 }], unsure.into_iter().chain([None]))
        .ask([RequestBid { round: 7 }], bids.into_iter().chain([None]))
        .ask(
            [Scale { round: 7, scheduler: 2, lease: 7, size, reason: "highest gain".into() }],
            [Ok(())].into_iter().chain(refusals.map(Err)),
        )
        .ask([Describe], [description])
}

fn parameters(record: Record) -> Record {
    let pulled = every([
        Pulled::Values { shard: 2, version: 301, applied: applied(), values: vec![0.5, -1.0] },
        Pulled::Elsewhere { shard: 3, to: Some((5, distant())) },
    ]);
    let pushed = every([
        Pushed::Applied { version: 302 },
        Pushed::Already { version: 301 },
        Pushed::Moving,
        Pushed::Moved { to: None },
        Pushed::Misfit { expected: 300 },
    ]);
    let pushed: Vec<_> = (0..).zip(pushed).collect();
    let states_of_step = || {
        let states = every([
            StepState::Applied,
            StepState::Waiting { parts: vec![0, 300] },
            StepState::Moving,
            StepState::Moved { to: Some((5, distant())) },
            StepState::Misfit { expected: 300 },
        ]);
        (0..).zip(states).collect::<Vec<_>>()
    };
    let pulled_at = || vec![Pulled::Elsewhere { shard: 3, to: None }];
    let handover_errors = || {
        every([
            HandoverError::NotHere { shard: 2 },
            HandoverError::Stale { shard: 2, current: 6 },
            HandoverError::Unconfirmed { shard: 2, cause: "no answer".into() },
            HandoverError::OldLease(stale()),
            HandoverError::Invalid { shard: 2, field: "values".into() },
        ])
    };
    let moved = || [Ok(())].into_iter().chain(handover_errors().map(Err));
    let states = optimizers().map(|optimizer| ShardState {
        range: range(),
        values: vec![0.5],
        average: vec![0.25],
        version: 301,
        applied: applied(),
        optimizer,
        memory_steps: 12,
        first: vec![0.125],
        second: vec![2.0],
    });
    let provide_errors = every([
        ProvideError::NoCopy,
        ProvideError::NoSuchShard { shard: 9 },
        ProvideError::NotTaken { shard: 2, cause: "no answer".into() },
        ProvideError::OldLease(stale()),
    ]);
    record
        .ask([true, false].map(|averaged| Pull { shards: vec![2, 300], averaged }), [pulled.into()])
        .ask([Push { step: 303, gradients: vec![(2, vec![0.5, -1.0])] }], [pushed])
        .ask([PullAt { step: 303, shards: vec![2, 300] }], [pulled_at()])
        .ask(
            [PushPart {
                step: 303,
                of: 300,
                part: 2,
                samples: 32,
                gradients: vec![(2, vec![0.5, -1.0])],
            }],
            [states_of_step()],
        )
        .ask(
            [AwaitStep { step: 303, of: 300, shards: vec![2], parts: vec![2, 3] }],
            [states_of_step()],
        )
        .ask([Handover { lease: 7, shard: 2, to: distant(), epoch: 5 }], moved())
        .ask(states.map(|state| Accept { lease: 7, epoch: 5, state }), moved())
        .ask([Keep { lease: 7, shard: 2, epoch: 6 }], moved())
        .ask(
            [Provide { lease: 7, shards: vec![range()], to: place(), epoch: 5, begins: true }],
            [Ok(vec![(2, 301)])].into_iter().chain(provide_errors.map(Err)),
        )
        .ask([Leave { lease: 7 }], [Ok(()), Err(stale())])
}

fn checkpoints(record: Record) -> Record {
    let [_, optimizer, _] = optimizers();
    let model = ModelFacts {
        blocks: vec![("w".into(), 300)],
        samples: 70_000,
        batch: 32,
        optimizer,
        seed: u64::MAX,
    };
    let folder = || "/models/digits".to_owned();
    let checkpoint = || Checkpoint {
        path: "/models/digits/checkpoint-00000007-u".into(),
        step: 301,
        done: applied(),
        sha256: "0f".into(),
        bytes: 70_000,
        unix_seconds: 1 << 31,
    };
    let errors = || {
        every([
            CheckpointError::OldLease(stale()),
            CheckpointError::Folder { path: folder(), cause: "no space".into() },
            CheckpointError::Unusable { path: folder(), cause: "another's".into() },
            CheckpointError::Busy,
        ])
    };
    let saved = || {
        vec![SavedShard {
            range: range(),
            version: 301,
            applied: applied(),
            memory_steps: 12,
            bytes: 70_000,
            sha256: "0f".into(),
        }]
    };
    let look = LookForCheckpoint {
        lease: 7,
        folder: folder(),
        uid: Some("u".into()),
        activation: 9,
        verify: true,
        model: model.clone(),
        ranges: vec![range()],
    };
    let refused = vec![("a".to_owned(), "cut".to_owned())];
    let looked = Looked { newest: Some(checkpoint()), refused, last: 7 };
    let commit = CommitCheckpoint {
        lease: 7,
        folder: folder(),
        temporary: ".saving-u-9-8".into(),
        number: 8,
        keep: 3,
        job: "ns/j".into(),
        uid: "u".into(),
        model,
        saved: saved(),
    };
    let committed = Committed { checkpoint: checkpoint(), left_over: Some("why".into()) };
    let restore = RestoreShards {
        lease: 7,
        epoch: 5,
        path: folder(),
        sha256: "0f".into(),
        shards: vec![range()],
        optimizer,
    };
    record
        .ask([look], [Ok(looked)].into_iter().chain(errors().map(Err)))
        .ask(
            [SaveShards { lease: 7, folder: folder(), shards: vec![2, 300] }],
            [Ok(saved())].into_iter().chain(errors().map(Err)),
        )
        .ask([commit], [Ok(committed)].into_iter().chain(errors().map(Err)))
        .ask([restore], [Ok(vec![(2, 301)])].into_iter().chain(errors().map(Err)))
}
