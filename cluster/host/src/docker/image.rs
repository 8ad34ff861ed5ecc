//! Images that come to the engine: the pause image is brought along, all others are pulled.

use super::call::{CALL_LIMIT, PULL_LIMIT, Refused, call};
use super::{DockerDriver, pause};
use crate::container::{DriverError, PullPolicy, StartError};
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
}
