//! What is used of the quotas of a namespace, counted anew.
//!
//! The quotas are read first and the objects after that; what was counted is written on condition that the quotas are as
//! they were read. So whatever was charged since, at whichever member, makes the count invalid: it is never too low. What
//! is deleted after it was listed is counted once more than it should be, until the next count.

use super::book::{QUOTAS, object_of};
use crate::Objects;
use crate::pause::pause;
use crate::refuse::write_refused;
use impresario_api::catalog::{find, served};
use impresario_api::policy::amounts::Amounts;
use impresario_api::policy::quota::Quota;
use impresario_api::resource::{Row, resource_key};
use impresario_api::status::Status;
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::bytes_of;
use impresario_registry_api::{Compare, Entry, ListRequest, Operation, Selection, TransactError};
use impresario_runtime::clock;
use jiff::Timestamp;

/// How often a count is redone since something was created meanwhile.
const ATTEMPTS: usize = 5;
/// Objects that are read at a time.
const PAGE: usize = 500;

impl Objects {
    /// Counts what is used of the quotas of a namespace, and writes it into them. Whether that came to an end: where
    /// something is created all the time, it is tried again later.
    pub async fn recount(&self, namespace: &str) -> Result<bool, Status> {
        let quotas = find("", "v1", QUOTAS)
            .ok_or_else(|| Status::internal("no resource quotas are served"))?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                pause(attempt).await;
            }
            let now = clock::timestamp();
            let mut counts: Vec<(Entry, Quota, Amounts)> = Vec::new();
            for entry in self.all_of(&quotas, namespace, None).await?.0 {
                let quota = Quota::read(object_of(&entry)?);
                let nothing = quota.nothing();
                counts.push((entry, quota, nothing));
            }
            if counts.is_empty() {
                return Ok(true);
            }
            for kind in served().resources().iter().filter(|kind| kind.namespaced) {
                if counts.iter().any(|(_, quota, _)| quota.is_about(kind)) {
                    self.count(kind, namespace, &mut counts, now).await?;
                }
            }
            if self.write_counts(&quotas, counts).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A page of objects, and behind which the next one begins.
    async fn all_of(
        &self,
        kind: &Row,
        namespace: &str,
        after: Option<(String, String)>,
    ) -> Result<(Vec<Entry>, Option<(String, String)>), Status> {
        let select = Selection::all(resource_key(kind)).within(namespace);
        let request = ListRequest { after, limit: Some(PAGE), ..ListRequest::of(select) };
        let page = self.registry().list(request).await.map_err(|error| read_refused(&error))?;
        let last = page.entries.last().filter(|_| page.remaining > 0);
        let next = last.map(|entry| (entry.key.namespace.clone(), entry.key.name.clone()));
        Ok((page.entries, next))
    }

    async fn count(
        &self,
        kind: &Row,
        namespace: &str,
        counts: &mut [(Entry, Quota, Amounts)],
        now: Timestamp,
    ) -> Result<(), Status> {
        let mut after = None;
        loop {
            // Pages need not be of one state: what is created between two of them is charged.
            let (entries, next) = self.all_of(kind, namespace, after).await?;
            for entry in &entries {
                let object = object_of(entry)?;
                for (_, quota, counted) in counts.iter_mut() {
                    quota.count(counted, kind, &object, now);
                }
            }
            if next.is_none() {
                return Ok(());
            }
            after = next;
        }
    }

    /// Writes what was counted into the quotas that say something else. Whether all were as they were read.
    async fn write_counts(
        &self,
        quotas: &Row,
        counts: Vec<(Entry, Quota, Amounts)>,
    ) -> Result<bool, Status> {
        let mut are_all = true;
        for (entry, quota, counted) in counts {
            let Some(object) = quota.counted(&counted) else { continue };
            let key = entry.key;
            let mut transaction = self
                .begin()
                .when(Compare::Revision { key: key.clone(), revision: entry.mod_revision });
            transaction.operations.push(Operation::Put { key, value: bytes_of(&object)? });
            match self.registry().transact(transaction).await {
                Ok(_) => {}
                Err(TransactError::Conflict { .. }) => are_all = false,
                Err(error) => return Err(write_refused(quotas, quota.name(), &error)),
            }
        }
        Ok(are_all)
    }
}
