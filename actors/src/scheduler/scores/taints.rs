//! Rather not where a taint says so that the pod does not tolerate.

use super::super::fit::tolerates;
use super::super::scene::{Scene, Subject};
use super::wish::{Scale, Wish};

pub(super) const WISH: Wish = Wish {
    name: "TaintToleration",
    weight: 3,
    scale: Scale::Less,
    applies: |scene, _| scene.has_soft_taints,
    of,
};

fn of(scene: &Scene<'_>, subject: &Subject<'_>, node: usize) -> Option<i64> {
    let taints = scene.nodes[node].taints.iter();
    let borne = |taint: &&_| !tolerates(&subject.pod.tolerations, taint);
    let soft = taints.filter(|taint| taint.effect == "PreferNoSchedule").filter(borne);
    i64::try_from(soft.count()).ok()
}
