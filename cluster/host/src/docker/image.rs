//! Images that come to the engine: the pause image is brought along, all others are pulled.

use super::call::{CALL_LIMIT, PULL_LIMIT, Refused, call};
use super::{DockerDriver, pause};
use crate::container::{ContainerSpec, DriverError, PullPolicy, StartError};
use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures_util::TryStreamExt;

impl DockerDriver {
    pub(super) async fn import_pause(&self) -> Result<(), DriverError> {
        let found = self.docker.inspect_image(pause::IMAGE);
        if call("look for an image", CALL_LIMIT, found).await.is_ok() {
            return Ok(());
        }
        let (repo, tag) = pause::IMAGE.split_once(':').unwrap_or((pause::IMAGE, "1"));
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repo).tag(tag).build();
        let archive = bollard::body_full(Bytes::from(pause::archive()));
        let import = self.docker.create_image(Some(options), Some(archive), None);
        let imported = import.try_collect::<Vec<_>>();
        call("import the pause image", CALL_LIMIT, imported).await?;
        Ok(())
    }

    pub(super) async fn image(&self, image: &str, policy: PullPolicy) -> Result<(), StartError> {
        let found = self.docker.inspect_image(image);
        let found = match call("look for an image", CALL_LIMIT, found).await {
            Ok(_) => true,
            Err(Refused { code: 404, .. }) => false,
            Err(Refused { code: 400, message: cause, .. }) => {
                return Err(StartError::ImageName { image: image.to_owned(), cause });
            }
            Err(refused) => return Err(DriverError::from(refused).into()),
        };
        match (policy, found) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, true) => return Ok(()),
            (PullPolicy::Never, false) => {
                return Err(StartError::ImageNeverPull { image: image.to_owned() });
            }
            _ => {}
        }
        // Without a tag the engine would fetch all there are.
        let last = image.rsplit('/').next().unwrap_or(image);
        let tag = if last.contains([':', '@']) { "" } else { "latest" };
        let options = CreateImageOptionsBuilder::new().from_image(image).tag(tag).build();
        let pull = self.docker.create_image(Some(options), None, None).try_collect::<Vec<_>>();
        let pulled = call("pull an image", PULL_LIMIT, pull).await;
        pulled.map(drop).map_err(|refused| StartError::ImagePull {
            image: image.to_owned(),
            cause: refused.message,
        })
    }

    /// Refuses a container that must not be root and would be, as the kubelet does.
    pub(super) async fn refuse_root(&self, spec: &ContainerSpec) -> Result<(), StartError> {
        if !spec.user.must_not_be_root {
            return Ok(());
        }
        let mut image = String::new();
        if spec.user.uid.is_none() {
            let found = self.docker.inspect_image(&spec.image);
            let found = call("look for an image", CALL_LIMIT, found).await;
            let found = found.map_err(DriverError::from)?;
            image = found.config.and_then(|config| config.user).unwrap_or_default();
        }
        non_root(spec.user.uid, &image).map_err(|what| StartError::Config { what })
    }
}

/// Whether a container of this user, in an image of that one, is certain not to be root.
fn non_root(uid: Option<u32>, image: &str) -> Result<(), String> {
    let of_image = image.split(':').next().unwrap_or_default();
    match (uid, of_image.parse::<u32>()) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".into()),
        (None, Ok(0)) => Err("container has runAsNonRoot and image will run as root".into()),
        (Some(_), _) | (None, Ok(_)) => Ok(()),
        (None, Err(_)) if of_image.is_empty() => {
            Err("container has runAsNonRoot and image will run as root".into())
        }
        (None, Err(_)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({of_image}), cannot verify user is non-root"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::non_root;

    #[test]
    fn only_who_is_certain_not_to_be_root_passes_for_that() {
        for (uid, image, passes) in [
            (Some(1000), "", true),
            (Some(0), "1000", false),
            (None, "", false),
            (None, "0:0", false),
            (None, "root", false),
            (None, "app", false),
            (None, "1000:1000", true),
        ] {
            assert_eq!(non_root(uid, image).is_ok(), passes, "{uid:?} {image}");
        }
    }
}
