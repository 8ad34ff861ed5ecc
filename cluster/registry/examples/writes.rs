//! Prints how many writes a second three members acknowledge, with 1 and with 64 clients.
//!
//! All three run in this process, on disks under the given directory (the system's temporary one by default), and
//! speak QUIC with each other over loopback: `cargo run --release --example writes -- DIRECTORY [OBJECTS]`. With
//! OBJECTS, so many are there before it begins: what a write costs beside them.

use impresario_registry::{
    Beginning, Consistency, Key, Member, MemberConfig, RegistryHandle, RemoteRegistry, Transaction,
};
use impresario_runtime::{ActorNode, ClusterAuthority, NodeConfig, PeerRole, PermitAll};
use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

const VALUE_BYTES: usize = 512;
const POD_BYTES: usize = 2000;
const BATCH: usize = 200;
const FOR: Duration = Duration::from_secs(5);

fn main() -> Outcome<()> {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let runtime = std::cell::Cell::new(Some(runtime));
    let system = actix::System::with_tokio_rt(|| {
        runtime.take().unwrap_or_else(|| unreachable!("one runtime is made"))
    });
    let objects = std::env::args().nth(2).map_or(Ok(0), |objects| objects.parse())?;
    system.block_on(measure(directory.path(), objects))
}

async fn measure(directory: &Path, objects: usize) -> Outcome<()> {
    let authority = ClusterAuthority::create("bench")?;
    let start = async |name: &str, role| -> Outcome<ActorNode> {
        let credential = authority.issue(name, role, &[], Duration::from_hours(1))?;
        let gate = Arc::new(PermitAll);
        Ok(ActorNode::start(NodeConfig { gate, ..NodeConfig::new(credential) }).await?)
    };
    let mut nodes = Vec::new();
    for name in ["n0", "n1", "n2"] {
        nodes.push(start(name, PeerRole::Control).await?);
    }
    let worker = start("worker", PeerRole::Control).await?;
    for node in nodes.iter().chain([&worker]) {
        for other in &nodes {
            node.addresses().set(other.name().clone(), other.local_addr());
        }
    }
    let mut members = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let beginning = match index {
            0 => Beginning::Found { peers: Vec::new() },
            _ => Beginning::Join { members: vec![nodes[0].name().clone()] },
        };
        let mut config = MemberConfig::new(
            directory.join(node.name().as_str()),
            node.clone(),
            node.local_addr(),
            beginning,
        );
        config.harness = Some("worker".to_owned());
        members.push(Member::start(config).await?);
    }
    while members.iter().any(|member| member.status().voters.len() < 3) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let leader = members[0].status().leader;
    let at = |leads: bool| {
        members.iter().find(|member| (leader.as_deref() == Some(&member.status().node)) == leads)
    };
    let remote: RegistryHandle = Arc::new(RemoteRegistry::fixed(
        worker,
        nodes.iter().map(|node| node.name().clone()).collect(),
    ));
    let doors = [
        ("leader", at(true).map(Member::handle)),
        ("follower", at(false).map(Member::handle)),
        ("elsewhere", Some(remote)),
    ];
    if let Some(leader) = at(true) {
        fill(&leader.handle(), objects).await?;
    }
    for (name, door) in doors {
        let Some(door) = door else { continue };
        for clients in [1, 64] {
            let (writes, worst) = writes(&door, clients).await?;
            println!("{name:9} {clients:2} clients: {writes:7.0} writes/s, slowest {worst:?}");
        }
        let reads = reads(&door).await?;
        println!("{name:9}  1 client : {reads:7.0} fresh reads/s");
    }
    for member in members {
        member.stop().await;
    }
    Ok(())
}

/// Objects of a pod's size.
async fn fill(registry: &RegistryHandle, objects: usize) -> Outcome<()> {
    for first in (0..objects).step_by(BATCH) {
        let puts = (first..objects.min(first + BATCH)).map(|number| {
            (Key::new("pods", "bench", format!("{number:06}")), vec![b'x'; POD_BYTES])
        });
        let batch = puts.fold(Transaction::new(), |batch, (key, value)| batch.put(key, value));
        registry.transact(batch).await?;
    }
    Ok(())
}

async fn writes(registry: &RegistryHandle, clients: usize) -> Outcome<(f64, Duration)> {
    let started = Instant::now();
    let client = |client: usize| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let (mut count, mut worst) = (0_u32, Duration::ZERO);
            while started.elapsed() < FOR {
                let key = Key::new("configmaps", "bench", format!("{client}-{}", count % 100));
                let sent = Instant::now();
                registry.transact(Transaction::new().put(key, vec![b'x'; VALUE_BYTES])).await?;
                worst = worst.max(sent.elapsed());
                count += 1;
            }
            Ok::<_, impresario_registry::TransactError>((count, worst))
        })
    };
    let (mut total, mut worst) = (0, Duration::ZERO);
    for running in (0..clients).map(client).collect::<Vec<_>>() {
        let (count, slowest) = running.await??;
        total += count;
        worst = worst.max(slowest);
    }
    Ok((f64::from(total) / started.elapsed().as_secs_f64(), worst))
}

async fn reads(registry: &RegistryHandle) -> Outcome<f64> {
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < FOR {
        registry.get(Key::new("configmaps", "bench", "0-0"), Consistency::Linearizable).await?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}
