//! What the claims of a pod ask of its node. No IO.

use k8s_openapi::api::core::v1::NodeSelectorTerm;

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
        self.needs.iter().find_map(|need| match need {
            Need::Bound(terms) | Need::Coming(terms) => {
                (!reaches(terms)).then(|| "node(s) had volume node affinity conflict".to_owned())
            }
            Need::Open { volumes, made, .. } => {
                let is_met = volumes.iter().any(|(_, terms)| reaches(terms))
                    || made.as_ref().is_some_and(reaches);
                let why = "node(s) didn't find available persistent volumes to bind";
                (!is_met).then(|| why.to_owned())
            }
        })
    }

    /// Whether all claims have their volumes: the pod can be bound.
    pub fn are_settled(&self) -> bool {
        self.needs.iter().all(|need| matches!(need, Need::Bound(_)))
    }

    /// What is to be written before the pod can be bound to a node that is fit. No volume is taken twice.
    pub fn choices(&self, is_chosen: impl Fn(&[NodeSelectorTerm]) -> bool) -> Vec<Choice> {
        let mut taken: Vec<&str> = Vec::new();
        let mut choices = Vec::new();
        for need in &self.needs {
            let Need::Open { claim, volumes, made } = need else { continue };
            let is_free = |(name, terms): &&(String, Terms)| {
                !taken.contains(&name.as_str()) && terms.as_deref().is_none_or(&is_chosen)
            };
            let claim = claim.clone();
            if let Some((volume, _)) = volumes.iter().find(is_free) {
                taken.push(volume);
                choices.push(Choice::Take { claim, volume: volume.clone() });
            } else if made.is_some() {
                choices.push(Choice::Make { claim });
            }
        }
        choices
    }
}
