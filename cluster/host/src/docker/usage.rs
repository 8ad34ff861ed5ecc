//! What the containers of a node use: one list, and a question about each of those that run. None is inspected: that would be
//! twice as many questions, and the one that hangs would be in the way of all.

use super::{DockerDriver, translate};
use crate::container::{ContainerDriver as _, ContainerId, DriverError, Used, used};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use futures_util::future::BoxFuture;

/// A container that runs, its pod and its name.
type Running = (ContainerId, String, String);

impl DockerDriver {
    pub(super) async fn used(&self) -> Result<Vec<Used>, DriverError> {
        let ours = self.ours(None).await?;
        let ask = |(id, pod_uid, container): Running| -> BoxFuture<'_, Option<Used>> {
            Box::pin(async move {
                let stats = self.stats(&id).await.ok()?;
                Some(Used { id, pod_uid, container, stats })
            })
        };
        let asked = ours.into_iter().filter_map(running).map(ask).collect();
        Ok(used::in_time(asked).await)
    }
}

/// Of a container, if it runs; nothing for a sandbox.
fn running(summary: ContainerSummary) -> Option<Running> {
    if summary.state != Some(ContainerSummaryStateEnum::RUNNING) {
        return None;
    }
    let mut labels = summary.labels?;
    let named = (labels.remove(translate::POD_UID)?, labels.remove(translate::CONTAINER)?);
    Some((ContainerId(summary.id?), named.0, named.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn what_runs_and_is_no_sandbox_is_asked_about() {
        let summary = |state, labels: &[&str]| ContainerSummary {
            id: Some("i".into()),
            state: Some(state),
            labels: Some(
                labels
                    .iter()
                    .map(|it| ((*it).to_owned(), "v".to_owned()))
                    .collect::<HashMap<_, _>>(),
            ),
            ..ContainerSummary::default()
        };
        let both = [translate::POD_UID, translate::CONTAINER];
        let found = running(summary(ContainerSummaryStateEnum::RUNNING, &both));
        assert_eq!(found, Some((ContainerId("i".into()), "v".into(), "v".into())));
        assert_eq!(running(summary(ContainerSummaryStateEnum::EXITED, &both)), None);
        assert_eq!(running(summary(ContainerSummaryStateEnum::RUNNING, &both[..1])), None);
    }
}
