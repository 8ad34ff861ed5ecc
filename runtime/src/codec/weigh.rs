//! Decoding that counts what a value takes in memory, before it takes it.
//!
//! A few bytes can say a large value: an element of a list may be 1 byte on the wire and 200 in memory. So each element of
//! a list or map is weighed by the size of its type, and each text by its length, against a [`Scale`], while the value is
//! decoded; the bytes are never more than what the scale has room for by more than one element. Boxes are not seen; the
//! messages of this program have none that repeat.

use crate::budget::{Account, Hold};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

/// What a value may weigh before it is put on an account: most messages never are.
const FREE_BYTES: usize = 4 << 10;
/// How much is taken from an account at a time.
const STEP_BYTES: usize = 16 << 10;
/// What an entry of a map takes besides its key and value.
const MAP_ENTRY_BYTES: usize = 16;

/// Weighs one value, on the account of whom it is held for.
pub(crate) struct Scale<'a> {
    account: Option<&'a Arc<Account>>,
    left: Cell<usize>,
    holds: RefCell<Vec<Hold>>,
    over: Cell<bool>,
}

impl<'a> Scale<'a> {
    /// Weighs on an account; without one, anything is light enough.
    pub(crate) fn new(account: Option<&'a Arc<Account>>) -> Self {
        let left = if account.is_some() { FREE_BYTES } else { usize::MAX };
        Self { account, left: Cell::new(left), holds: RefCell::default(), over: Cell::new(false) }
    }

    /// Whether there was no room for the value.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether the value is somebody's, who answers for what is done with it.
    pub(crate) fn is_on_account(&self) -> bool {
        self.account.is_some()
    }

    /// Whether anything is held for the value.
    pub(crate) fn holds(&self) -> bool {
        !self.holds.borrow().is_empty()
    }

    /// What is held for the value, until this is dropped.
    pub(crate) fn into_holds(self) -> Vec<Hold> {
        self.holds.into_inner()
    }

    fn add<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.left.get();
        if bytes <= left {
            self.left.set(left - bytes);
            return Ok(());
        }
        let Some(account) = self.account else { return Ok(()) };
        let more = (bytes - left).max(STEP_BYTES << self.holds.borrow().len().min(8));
        let hold = account.take(more).or_else(|| account.take(bytes - left));
        let Some(hold) = hold else {
            self.over.set(true);
            return Err(E::custom("the value takes more memory than its sender may have here now"));
        };
        self.left.set(left + hold.bytes() - bytes);
        self.holds.borrow_mut().push(hold);
        Ok(())
    }
}

/// Anything of serde's that is passed on with the scale.
pub(super) struct Weighed<'s, T> {
    pub(super) inner: T,
    pub(super) scale: &'s Scale<'s>,
}

impl<'s, T> Weighed<'s, T> {
    fn with<U>(&self, inner: U) -> Weighed<'s, U> {
        Weighed { inner, scale: self.scale }
    }
}

/// Weighs a value of a known type.
pub(super) struct Whole<'s, T> {
    pub(super) scale: &'s Scale<'s>,
    pub(super) value: PhantomData<T>,
}

impl<'de, T: serde::Deserialize<'de>> DeserializeSeed<'de> for Whole<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(Weighed { inner: deserializer, scale: self.scale })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Weighed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let weighed = self.with(deserializer);
        self.inner.deserialize(weighed)
    }
}

/// Elements of a list or map, which take memory beside what holds them.
struct Elements<'s, A> {
    inner: A,
    scale: &'s Scale<'s>,
    /// Fields of a struct lie in the struct, which is weighed already.
    counts: bool,
}

/// Methods that have no value within them to weigh.
macro_rules! plain {
    ($($method:ident),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Weighed<'_, D> {
    type Error = D::Error;

    plain! {
        deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64, deserialize_i128,
        deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64, deserialize_u128,
        deserialize_f32, deserialize_f64, deserialize_char, deserialize_unit,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Visits::elements(self.scale, visitor))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(Visits::elements(self.scale, visitor))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        // Borrowed, so that it is weighed before it is copied.
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_bytes(Visits::elements(self.scale, visitor))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Visits::fields(self.scale, visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Visits::fields(self.scale, visitor))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_seq(Visits::elements(self.scale, visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(length, Visits::fields(self.scale, visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, length, Visits::fields(self.scale, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Visits::elements(self.scale, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Visits::fields(self.scale, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Visits::fields(self.scale, visitor))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

struct Visits<'s, V> {
    inner: V,
    scale: &'s Scale<'s>,
    counts: bool,
}

impl<'s, V> Visits<'s, V> {
    fn elements(scale: &'s Scale<'s>, inner: V) -> Self {
        Self { inner, scale, counts: true }
    }

    fn fields(scale: &'s Scale<'s>, inner: V) -> Self {
        Self { inner, scale, counts: false }
    }
}

/// Visits of values that are in their place already.
macro_rules! visits {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

/// Visits of what takes as much memory as it is long.
macro_rules! visits_long {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.scale.add(value.len())?;
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Visits<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visits! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128,
        visit_f32: f32, visit_f64: f64, visit_char: char,
    }

    visits_long! {
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Weighed { inner: deserializer, scale: self.scale })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Weighed { inner: deserializer, scale: self.scale })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements { inner: access, scale: self.scale, counts: self.counts })
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Elements { inner: access, scale: self.scale, counts: self.counts })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Weighed { inner: access, scale: self.scale })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        if self.counts {
            self.scale.add(size_of::<T::Value>())?;
        }
        self.inner.next_element_seed(Weighed { inner: seed, scale: self.scale })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        if self.counts {
            self.scale.add(size_of::<K::Value>() + MAP_ENTRY_BYTES)?;
        }
        self.inner.next_key_seed(Weighed { inner: seed, scale: self.scale })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        if self.counts {
            self.scale.add(size_of::<T::Value>())?;
        }
        self.inner.next_value_seed(Weighed { inner: seed, scale: self.scale })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 's, A: EnumAccess<'de>> EnumAccess<'de> for Weighed<'s, A> {
    type Error = A::Error;
    type Variant = Weighed<'s, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Weighed { inner: variant, scale: self.scale }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Weighed<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Weighed { inner: seed, scale: self.scale })
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Visits::fields(self.scale, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Visits::fields(self.scale, visitor))
    }
}
