//! What the claims of a pod ask of its node. No IO.

use k8s_openapi::api::core::v1::NodeSelectorTerm;
use std::collections::{BTreeMap, BTreeSet};

/// Where a volume can be reached: everywhere, where there is nothing.
pub type Terms = Option<Vec<NodeSelectorTerm>>;

/// What one claim asks of the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Need {
    /// It has a volume, which is there.
    Bound(Terms),
    /// It gets one, which will be there.
    Coming(Terms),
    /// It waits for its pod to have a node.
    Open {
        /// Its name.
        claim: String,
        /// The volumes that it could take, the best one first, by name.
        volumes: Vec<(String, Terms)>,
        /// Where one can be made for it; nothing where nobody makes one.
        made: Option<Terms>,
    },
}

/// What the claims of a pod ask of its node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumeNeeds {
    /// Why no node will do, as things are.
    pub blocked: Option<String>,
    /// What each of its claims asks.
    pub needs: Vec<Need>,
    /// Those of its claims that one pod alone may have at a time, by namespace and name.
    pub alone: Vec<(String, String)>,
}

/// What is written so that a claim gets its volume on the node of its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This claim takes this volume.
    Take {
        /// The claim.
        claim: String,
        /// The volume.
        volume: String,
    },
    /// One is made for this claim on the node.
    Make {
        /// The claim.
        claim: String,
    },
}

impl VolumeNeeds {
    /// Why the pod cannot be on a node, of which this says whether terms choose it.
    pub fn unfit(&self, is_chosen: impl Fn(&[NodeSelectorTerm]) -> bool) -> Option<String> {
        if self.blocked.is_some() {
            return self.blocked.clone();
        }
        let reaches = |terms: &Terms| terms.as_deref().is_none_or(&is_chosen);
        let is_there = |need: &Need| match need {
            Need::Bound(terms) | Need::Coming(terms) => reaches(terms),
            Need::Open { .. } => true,
        };
        if !self.needs.iter().all(is_there) {
            return Some("node(s) had volume node affinity conflict".to_owned());
        }
        let why = "node(s) didn't find available persistent volumes to bind";
        self.shares(&is_chosen).is_none().then(|| why.to_owned())
    }

    /// Whether all claims have their volumes: the pod can be bound.
    pub fn are_settled(&self) -> bool {
        self.needs.iter().all(|need| matches!(need, Need::Bound(_)))
    }

    /// What is to be written before the pod can be bound to a node that is fit. No volume is taken twice.
    pub fn choices(&self, is_chosen: impl Fn(&[NodeSelectorTerm]) -> bool) -> Vec<Choice> {
        self.shares(&is_chosen).unwrap_or_default()
    }

    /// A choice for each claim that waits for one; none where they cannot all have one.
    fn shares(&self, is_chosen: &impl Fn(&[NodeSelectorTerm]) -> bool) -> Option<Vec<Choice>> {
        let reaches = |terms: &Terms| terms.as_deref().is_none_or(is_chosen);
        let open = self.needs.iter().filter_map(|need| match need {
            Need::Open { claim, volumes, made } => Some((claim, volumes, made)),
            Need::Bound(_) | Need::Coming(_) => None,
        });
        let open: Vec<_> = open
            .map(|(claim, volumes, made)| {
                let here = volumes.iter().filter(|(_, terms)| reaches(terms));
                let here: Vec<_> = here.map(|(name, _)| name.as_str()).collect();
                (claim, here, made.as_ref().is_some_and(reaches))
            })
            .collect();
        let wanted: Vec<_> = open.iter().map(|(_, here, _)| here.as_slice()).collect();
        let mut owners = BTreeMap::new();
        // Those for which none can be made come first.
        for made in [false, true] {
            for (number, _) in open.iter().enumerate().filter(|(_, open)| open.2 == made) {
                if !share(number, &wanted, &mut owners, &mut BTreeSet::new()) && !made {
                    return None;
                }
            }
        }
        let volumes: BTreeMap<_, _> =
            owners.into_iter().map(|(volume, number)| (number, volume)).collect();
        let choice = |(number, (claim, ..)): (usize, &(&String, Vec<&str>, bool))| {
            let claim = (*claim).clone();
            match volumes.get(&number) {
                Some(volume) => Choice::Take { claim, volume: (*volume).to_owned() },
                None => Choice::Make { claim },
            }
        };
        Some(open.iter().enumerate().map(choice).collect())
    }
}

/// Gives a claim the first of its volumes that is free; or one whose owner can have another. No deeper than there are claims.
fn share<'a>(
    claim: usize,
    wanted: &[&[&'a str]],
    owners: &mut BTreeMap<&'a str, usize>,
    asked: &mut BTreeSet<&'a str>,
) -> bool {
    let its = wanted.get(claim).copied().unwrap_or_default();
    if let Some(free) = its.iter().find(|volume| !owners.contains_key(*volume)) {
        owners.insert(*free, claim);
        return true;
    }
    for volume in its {
        let Some(owner) = owners.get(volume).copied() else { continue };
        if asked.insert(*volume) && share(owner, wanted, owners, asked) {
            owners.insert(*volume, claim);
            return true;
        }
    }
    false
}
