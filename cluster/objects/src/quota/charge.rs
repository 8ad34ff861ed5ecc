//! What writes of objects ask of quotas.

use super::book::{Book, mark_of};
use super::desk::{Order, Outcome};
use crate::Objects;
use impresario_api::policy::quota::{counts, growth, is_counted_when_changed};
use impresario_api::resource::{Row, resource_key};
use impresario_api::status::{Reason, Status};
use impresario_client::objects::refuse::read_refused;
use impresario_client::objects::stored::text;
use impresario_registry_api::{
    Compare, Consistency, Key, ReadError, Revision, TransactError, Transaction,
};
use impresario_runtime::clock;
use serde_json::Value;

/// The first look may be at an older state: the conditions of the write find out.
fn look(attempt: usize) -> Consistency {
    if attempt == 0 { Consistency::Local } else { Consistency::Linearizable }
}

impl Objects {
    /// Applies the transaction that creates an object, if there is room for it.
    pub(crate) async fn create_counted(
        &self,
        resource: &Row,
        namespace: &str,
        object: &Value,
        mut transaction: Transaction,
        attempt: usize,
    ) -> Outcome {
        if !resource.namespaced {
            return Ok(self.registry().transact(transaction).await.map(|it| it.revision));
        }
        let mark = mark_of(namespace);
        let found = match self.registry().get(mark.clone(), look(attempt)).await {
            Ok((found, _)) => found,
            // A node creates at a member, which reads the mark and counts itself; it may not read it.
            Err(ReadError::Refused { .. }) => {
                return Ok(self.registry().transact(transaction).await.map(|it| it.revision));
            }
            Err(error) => return Err(read_refused(&error)),
        };
        // Where there never was a quota, this is all that it costs: revision 0 stands for nothing.
        let marked = found.map_or(0, |entry| entry.mod_revision);
        if marked == 0 || !self.is_counted(resource, namespace, marked).await? {
            transaction.compares.push(Compare::Revision { key: mark, revision: marked });
            return Ok(self.registry().transact(transaction).await.map(|it| it.revision));
        }
        let name = text(object, "/metadata/name").to_owned();
        let usage = growth(resource, object, None, clock::timestamp());
        let key = Key::new(resource_key(resource), namespace, name.as_str());
        let (resource, object) = (resource.clone(), object.clone());
        let order = Order { resource, object, usage, name, transaction };
        let outcome = self.desks.place(self.registry(), namespace, order).await;
        match outcome {
            Err(status) if status.reason == Reason::Forbidden => self.present_or(key, status).await,
            outcome => outcome,
        }
    }

    /// Who creates what is there needs no room for it: that it is there is what is told, so that whoever only makes sure
    /// of something is content.
    async fn present_or(&self, key: Key, refused: Status) -> Outcome {
        let read = self.registry().get(key.clone(), Consistency::Linearizable).await;
        match read.map_err(|error| read_refused(&error))?.0 {
            Some(found) => {
                Ok(Err(TransactError::Conflict { key, expected: 0, found: found.mod_revision }))
            }
            None => Err(refused),
        }
    }

    /// Whether objects of a kind are counted in a namespace whose mark is at this revision. Where another is read, the
    /// condition on the mark finds out.
    async fn is_counted(
        &self,
        resource: &Row,
        namespace: &str,
        marked: Revision,
    ) -> Result<bool, Status> {
        if let Some(is_counted) = self.desks.counts(namespace, marked, resource) {
            return Ok(is_counted);
        }
        let book = Book::read(self.registry(), namespace, Consistency::Local).await?;
        let bounded = book.bounded();
        // What is read at an earlier revision of the mark is not what holds at this one.
        if bounded.0 != marked {
            return Ok(true);
        }
        let is_counted = bounded.1.iter().any(|name| counts(resource, name));
        self.desks.remember(namespace, bounded);
        Ok(is_counted)
    }

    /// Whether there would be room for an object that is not written.
    pub(crate) async fn would_be_counted(
        &self,
        resource: &Row,
        namespace: &str,
        object: &Value,
    ) -> Result<(), Status> {
        if !resource.namespaced {
            return Ok(());
        }
        let mut book = Book::read(self.registry(), namespace, Consistency::Linearizable).await?;
        let name = text(object, "/metadata/name");
        let grown = growth(resource, object, None, clock::timestamp());
        book.charge(resource, object, &grown, true)
            .map_err(|why| Status::forbidden(resource, name, why))
    }

    /// Adds to the transaction that changes an object what charges the quotas with what it needs more than before.
    pub(crate) async fn count_change(
        &self,
        resource: &Row,
        namespace: &str,
        (old, new): (&Value, &Value),
        transaction: &mut Transaction,
        attempt: usize,
    ) -> Result<(), Status> {
        if !is_counted_when_changed(resource) {
            return Ok(());
        }
        let grown = growth(resource, new, Some(old), clock::timestamp());
        if grown.is_empty() {
            // Status, finalizers, the mark of a deletion: no quota has a say in it, counted or not.
            return Ok(());
        }
        let mut book = Book::read(self.registry(), namespace, look(attempt)).await?;
        let charged = book.charge(resource, new, &grown, false);
        if charged.is_err() {
            // By what was read a while ago nobody is refused.
            book = Book::read(self.registry(), namespace, Consistency::Linearizable).await?;
            book.charge(resource, new, &grown, false)
                .map_err(|why| Status::forbidden(resource, text(new, "/metadata/name"), why))?;
        }
        transaction.compares.extend(book.compares());
        transaction.operations.extend(book.operations()?);
        Ok(())
    }
}
