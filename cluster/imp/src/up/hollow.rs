//! Nodes that only pretend: groups of them, one process each, besides the nodes of the machine.

use super::away::{pretends, take_away};
use super::begun::Started;
use super::certificates::issue_for;
use super::error::{HollowUpError, UpError};
use super::nodes::{is_ready, nodes_of, process};
use super::ready::{LOOK, READY_LIMIT, ended, in_vain, looked};
use super::start::start_as;
use crate::cli::{HOLLOW_MOST, Hollow};
use crate::layout::{
    CLAIM_LIMIT, ClusterDir, ClusterFile, HollowDir, HollowFile, HollowNode, HollowSize,
};
use impresario_runtime::{ClusterAuthority, Credential, PeerRole};
use indicatif::ProgressBar;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How many nodes one process pretends to be: some of its threads, and its memory, are for all of them.
const GROUP: usize = 1_000;
/// How much longer each of them may take to become Ready than the nodes of the machine.
const READY_EACH: Duration = Duration::from_millis(100);
/// How much less often it is looked for each of them: their objects are many, and looking costs what they need.
const LOOK_EACH: Duration = Duration::from_millis(1);
/// What a hollow node has unless it was said otherwise.
const SIZE: HollowSize =
    HollowSize { cpu_milli: 32_000, memory_bytes: 256 << 30, pods: machine_pods() };

const fn machine_pods() -> u64 {
    impresario_actors::node::machine::PODS
}

/// A group, with what is written of it.
struct Group {
    dir: HollowDir,
    file: HollowFile,
}

fn groups(dir: &ClusterDir) -> Result<Vec<Group>, UpError> {
    let mut groups = Vec::new();
    for dir in dir.hollow()? {
        let file = dir.load()?;
        groups.push(Group { dir, file });
    }
    Ok(groups)
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.file.nodes.len()).sum()
}

/// How many nodes only pretend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pretending {
    /// Those that do.
    pub there: usize,
    /// Those that were taken away.
    pub gone: usize,
}

/// What is there stays as it is: to say something else of it would do nothing.
pub(super) fn refuse_changes(dir: &ClusterDir, args: &Hollow) -> Result<(), UpError> {
    let Some(asked) = args.hollow.map(usize::from) else { return Ok(()) };
    if asked == 0 {
        let sizes = [args.hollow_cpu, args.hollow_memory, args.hollow_pods];
        let has_size = sizes.iter().any(Option::is_some);
        return if has_size { Err(HollowUpError::SizeOfNone.into()) } else { Ok(()) };
    }
    let groups = groups(dir)?;
    let found = count(&groups);
    if asked > found {
        return Ok(()); // what is said is of those that are new
    }
    let path = dir.path().to_owned();
    if asked < found {
        return Err(HollowUpError::Fewer { path, found, asked }.into());
    }
    let differs = |flag, made: u64, asked: Option<u64>| match asked {
        Some(asked) if asked != made => {
            Err(HollowUpError::Size { path: path.clone(), flag, made, asked })
        }
        _ => Ok(()),
    };
    // What was said was said of those that were new then.
    if let Some(Group { file: HollowFile { size, .. }, .. }) = groups.last() {
        differs("--hollow-cpu (in thousandths)", size.cpu_milli, args.hollow_cpu)?;
        differs("--hollow-memory (in bytes)", size.memory_bytes, args.hollow_memory)?;
        differs("--hollow-pods", size.pods, args.hollow_pods)?;
    }
    Ok(())
}

/// Adds the nodes that are asked for and not there yet, starts the processes that do not run, and returns when all their
/// nodes are Ready; or takes all away, if none are asked for. The cluster's own nodes are Ready.
pub(super) async fn start(
    dir: &ClusterDir,
    cluster: &ClusterFile,
    args: &Hollow,
    bar: &ProgressBar,
    begun: &Started,
) -> Result<Pretending, UpError> {
    if args.hollow == Some(0) {
        return end(dir, bar, begun).await;
    }
    let mut groups = groups(dir)?;
    let found = count(&groups);
    let asked = args.hollow.map_or(0, usize::from).min(usize::from(HOLLOW_MOST));
    if found == 0 && asked == 0 {
        return Ok(Pretending::default());
    }
    let authority = ClusterAuthority::load(&dir.pki())?;
    if asked > found {
        let size = HollowSize {
            cpu_milli: args.hollow_cpu.unwrap_or(SIZE.cpu_milli),
            memory_bytes: args.hollow_memory.unwrap_or(SIZE.memory_bytes),
            pods: args.hollow_pods.unwrap_or(SIZE.pods),
        };
        let first = groups.iter().flat_map(|group| &group.file.nodes).map(|node| node.number).max();
        let numbers: Vec<u32> = (first.unwrap_or(0) + 1..).take(asked - found).collect();
        refuse_names(dir, &numbers).await?;
        bar.set_message("making hollow nodes");
        for numbers in numbers.chunks(GROUP) {
            let file = make(cluster, &authority, size, numbers)?;
            let number = groups.last().map_or(0, |group| group.dir.number()) + 1;
            let dir = dir.hollow_group(number);
            begun.note_made(&dir);
            dir.save(&file)?;
            groups.push(Group { dir, file });
        }
    }
    for group in &mut groups {
        renew(group, cluster, &authority)?;
    }
    bar.set_length(bar.length().unwrap_or(0) + count(&groups) as u64);
    bar.set_message("starting hollow nodes");
    await_ready(dir, &groups, bar, begun).await?;
    Ok(Pretending { there: count(&groups), gone: 0 })
}

/// Takes all of them away, those that were made last first.
async fn end(dir: &ClusterDir, bar: &ProgressBar, begun: &Started) -> Result<Pretending, UpError> {
    let groups = dir.hollow()?;
    if groups.is_empty() {
        return Ok(Pretending::default());
    }
    bar.set_message("taking hollow nodes away");
    begun.note_taking_away();
    Ok(Pretending { there: 0, gone: take_away(&groups).await? })
}

fn name(number: u32) -> String {
    format!("hollow-{number}")
}

/// Refuses names that others have: a machine may have joined under any.
async fn refuse_names(dir: &ClusterDir, numbers: &[u32]) -> Result<(), UpError> {
    let names: BTreeSet<String> = numbers.iter().map(|number| name(*number)).collect();
    let listed = nodes_of(dir).await.map_err(HollowUpError::Api)?;
    let others = listed.iter().filter(|node| !pretends(node));
    let mut taken = others.filter_map(|node| node["metadata"]["name"].as_str());
    match taken.find(|name| names.contains(*name)) {
        Some(name) => Err(HollowUpError::Name(name.to_owned()).into()),
        None => Ok(()),
    }
}

fn make(
    cluster: &ClusterFile,
    authority: &ClusterAuthority,
    size: HollowSize,
    numbers: &[u32],
) -> Result<HollowFile, UpError> {
    let mut made = Vec::new();
    for number in numbers {
        made.push(equip(cluster, authority, *number)?);
    }
    Ok(HollowFile {
        listen: cluster.listen,
        address: cluster.address,
        size,
        chaos: cluster.chaos,
        authority: authority.certificate_pem().to_owned(),
        nodes: made,
    })
}

/// A node with a certificate of its own, as every node has one.
fn equip(
    cluster: &ClusterFile,
    authority: &ClusterAuthority,
    number: u32,
) -> Result<HollowNode, UpError> {
    let name = name(number);
    let issued = issue_for(authority, &name, PeerRole::Node, cluster.address, cluster)?;
    let (certificate, key) = (issued.certificate_pem().to_owned(), issued.key_pem().to_owned());
    Ok(HollowNode { name, number, certificate, key })
}

/// New certificates for a group that does not run, where the old ones near their end. While it runs its nodes renew
/// their own, and keep them in memory.
fn renew(
    group: &mut Group,
    cluster: &ClusterFile,
    authority: &ClusterAuthority,
) -> Result<(), UpError> {
    let now = SystemTime::now();
    let file = &group.file;
    let mut old = false;
    for node in &file.nodes {
        let credential = Credential::from_pem(&node.certificate, &node.key, &file.authority)?;
        old |= credential.wants_renewal(now);
    }
    if !old || group.dir.process().is_running() {
        return Ok(());
    }
    let numbers: Vec<u32> = file.nodes.iter().map(|node| node.number).collect();
    group.file = make(cluster, authority, file.size, &numbers)?;
    group.dir.save(&group.file)?;
    Ok(())
}

/// Starts the groups that do not run, and returns when all nodes of all groups are Ready.
async fn await_ready(
    dir: &ClusterDir,
    groups: &[Group],
    bar: &ProgressBar,
    begun: &Started,
) -> Result<(), UpError> {
    let all = u32::try_from(count(groups)).unwrap_or(u32::MAX);
    let limit = READY_LIMIT + READY_EACH * all;
    let look = LOOK + LOOK_EACH * all;
    let deadline = Instant::now() + limit;
    let before = bar.position();
    let mut started: BTreeMap<String, Instant> = BTreeMap::new();
    let (mut missing, mut failed) = (Vec::new(), None);
    while Instant::now() < deadline {
        for Group { dir, .. } in groups.iter().filter(|group| !group.dir.process().is_running()) {
            let name = dir.name();
            match started.get(&name) {
                None => {
                    // Before there is anything to end.
                    begun.note(dir.process());
                    // Until the new one has written its own number, the old one's and objects that are Ready
                    // would both tell of the old.
                    dir.process().forget_process()?;
                    start_as("__hollow", dir.process())?;
                    started.insert(name, Instant::now());
                }
                Some(since) if since.elapsed() > CLAIM_LIMIT => {
                    return Err(ended(name, dir.process()));
                }
                Some(_) => {}
            }
        }
        if let Some(listed) = looked(nodes_of(dir).await, &mut failed)? {
            let ready = listed.iter().filter(|node| is_ready(node));
            let ready: BTreeMap<&str, i32> = ready
                .filter_map(|node| Some((node["metadata"]["name"].as_str()?, process(node)?)))
                .collect();
            missing.clear();
            for Group { dir, file } in groups {
                // An object that is Ready may tell of the process that was here before.
                let own = dir.process();
                let pid = own.pid().filter(|_| own.is_running());
                let is_missing =
                    |node: &&HollowNode| pid.is_none() || ready.get(&*node.name) != pid.as_ref();
                missing.extend(file.nodes.iter().filter(is_missing).map(|node| node.name.clone()));
            }
            bar.set_position(before + u64::from(all) - missing.len() as u64);
            if missing.is_empty() {
                return Ok(());
            }
        }
        tokio::time::sleep(look).await;
    }
    missing.truncate(10);
    Err(UpError::NotReady { limit, missing: missing.join(", "), why: in_vain(failed) })
}
