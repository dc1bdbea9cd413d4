//! What is known of the documents whose chunks the projections hold, in memory: from who asks and the filter to
//! the set of chunks that may be found.
//!
//! It is made from the record, and brought up to date by the record's list of changes, so that a search sees
//! what another process has just deleted or withdrawn.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};

use crate::bits::Bits;
use crate::filter::{Condition, FieldTest, Filter, FilterError};
use crate::properties::{Key, Properties, ValueKind, Viewer};
use crate::remote::Documents;

/// Numbers of documents, ascending.
type Numbers = Vec<u32>;

/// A document of the projections.
#[derive(Clone)]
struct Entry {
    id: i64,
    chunks: Range<u32>,
    /// `None` once it is gone.
    properties: Option<Properties>,
}

/// Sets of documents, by their numbers.
#[derive(Clone)]
pub(crate) struct Catalog {
    /// The last change that is in it.
    pub(crate) sequence: i64,
    entries: Vec<Entry>,
    /// Number of each document id of the record.
    numbers: HashMap<i64, u32>,
    chunks: usize,
    everyone: Bits,
    allowed: HashMap<String, Numbers>,
    shared: Bits,
    tenants: HashMap<String, Numbers>,
    fields: BTreeMap<String, Field>,
}

/// The documents with each value of a field.
#[derive(Clone, Default)]
struct Field {
    /// Those that have it; an empty list is no value.
    any: Numbers,
    by_value: BTreeMap<Key, Numbers>,
}

impl Catalog {
    /// Of documents in the order of their chunks: id, number of chunks, properties.
    pub(crate) fn new(
        sequence: i64,
        documents: impl ExactSizeIterator<Item = (i64, u32, Properties)>,
    ) -> Self {
        let n = documents.len();
        let mut catalog = Catalog {
            sequence,
            entries: Vec::with_capacity(n),
            numbers: HashMap::with_capacity(n),
            chunks: 0,
            everyone: Bits::none(n),
            allowed: HashMap::new(),
            shared: Bits::none(n),
            tenants: HashMap::new(),
            fields: BTreeMap::new(),
        };
        let mut first = 0;
        for ((id, chunks, properties), number) in documents.zip(0..) {
            catalog.numbers.insert(id, number);
            catalog.entries.push(Entry { id, chunks: first..first + chunks, properties: None });
            catalog.put(number, properties);
            first += chunks;
        }
        catalog.chunks = first as usize;
        catalog
    }

    /// Takes over what the record says of a document now: `None` if it is gone. One that is not in the
    /// projections stays unknown.
    pub(crate) fn update(&mut self, id: i64, properties: Option<Properties>) {
        let Some(&number) = self.numbers.get(&id) else { return };
        self.take(number);
        if let Some(properties) = properties {
            self.put(number, properties);
        }
    }

    /// Ids of all documents, those that are gone included.
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.numbers.keys().copied()
    }

    /// The documents of a set of chunks that holds whole documents, and all others, by their ids.
    pub(crate) fn documents(&self, chunks: &Bits) -> Documents {
        let of = |among: bool| {
            let entries = self.entries.iter().filter(|e| !e.chunks.is_empty());
            let entries = entries.filter(|e| chunks.contains(e.chunks.start) == among);
            entries.map(|e| e.id).collect()
        };
        Documents { allowed: of(true), others: of(false) }
    }

    fn put(&mut self, number: u32, properties: Properties) {
        match &properties.allow {
            None => self.everyone.set(number),
            Some(allow) => allow.iter().for_each(|who| {
                insert(self.allowed.entry(who.clone()).or_default(), number);
            }),
        }
        match &properties.tenant {
            None => self.shared.set(number),
            Some(tenant) => {
                insert(self.tenants.entry(tenant.clone()).or_default(), number);
            }
        }
        for (name, value) in &properties.metadata {
            let field = self.fields.entry(name.clone()).or_default();
            insert(&mut field.any, number);
            for key in value.keys() {
                insert(field.by_value.entry(key).or_default(), number);
            }
        }
        self.entries[number as usize].properties = Some(properties);
    }

    fn take(&mut self, number: u32) {
        let Some(properties) = self.entries[number as usize].properties.take() else { return };
        self.everyone.clear(number);
        self.shared.clear(number);
        for who in properties.allow.iter().flatten() {
            forget(&mut self.allowed, who, number);
        }
        if let Some(tenant) = &properties.tenant {
            forget(&mut self.tenants, tenant, number);
        }
        for (name, value) in &properties.metadata {
            let Some(field) = self.fields.get_mut(name) else { continue };
            remove(&mut field.any, number);
            for key in value.keys() {
                if let Some(of_value) = field.by_value.get_mut(&key) {
                    remove(of_value, number);
                    if of_value.is_empty() {
                        field.by_value.remove(&key);
                    }
                }
            }
            if field.any.is_empty() {
                self.fields.remove(name);
            }
        }
    }

    /// The chunks of documents that the viewer sees and that fulfil the filter.
    pub(crate) fn chunks(
        &self,
        viewer: Viewer<'_>,
        filter: Option<&Filter>,
    ) -> Result<Bits, FilterError> {
        let visible = self.visible(viewer);
        let documents = match filter {
            // Where nothing is seen there is nothing to be told about fields either.
            Some(filter) if visible.count() > 0 => {
                self.fulfilling(&visible, &filter.condition()?)?
            }
            Some(_) | None => visible,
        };
        if documents.count() == self.entries.len() {
            return Ok(Bits::all(self.chunks));
        }
        let mut chunks = Bits::none(self.chunks);
        for document in documents.iter() {
            self.entries[document as usize].chunks.clone().for_each(|chunk| chunks.set(chunk));
        }
        Ok(chunks)
    }

    fn visible(&self, viewer: Viewer<'_>) -> Bits {
        let mut allowed = self.everyone.clone();
        for who in viewer.principals {
            self.allowed.get(who).into_iter().flatten().for_each(|&n| allowed.set(n));
        }
        let mut own = self.shared.clone();
        if let Some(tenant) = viewer.tenant {
            self.tenants.get(tenant).into_iter().flatten().for_each(|&n| own.set(n));
        }
        allowed.and_with(&own);
        allowed
    }

    /// The documents of `visible` that fulfil the condition.
    fn fulfilling(&self, visible: &Bits, condition: &Condition<'_>) -> Result<Bits, FilterError> {
        Ok(match condition {
            Condition::All(filters) => {
                let mut all = visible.clone();
                for filter in *filters {
                    all.and_with(&self.fulfilling(visible, &filter.condition()?)?);
                }
                all
            }
            Condition::Any(filters) => {
                let mut any = Bits::none(visible.len());
                for filter in *filters {
                    let these = self.fulfilling(visible, &filter.condition()?)?;
                    these.iter().for_each(|n| any.set(n));
                }
                any
            }
            Condition::Not(condition) => {
                let mut rest = visible.clone();
                self.fulfilling(visible, condition)?.iter().for_each(|n| rest.clear(n));
                rest
            }
            Condition::Field(name, test) => {
                let mut found = Bits::none(visible.len());
                self.field(visible, name, test)?.passing(test).for_each(|n| found.set(n));
                found.and_with(visible);
                found
            }
        })
    }

    /// The field, if a visible document has it with values of the kinds that it is tested for.
    fn field(&self, visible: &Bits, name: &str, test: &FieldTest) -> Result<&Field, FilterError> {
        let seen = |documents: &Numbers| documents.iter().any(|&n| visible.contains(n));
        let Some(field) = self.fields.get(name).filter(|field| seen(&field.any)) else {
            let known = self.fields.iter().filter(|(_, field)| seen(&field.any));
            let known: Vec<String> = known.map(|(name, _)| name.clone()).collect();
            let likeness = |other: &&String| strsim::jaro_winkler(name, other);
            let like = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let like = like.filter(|like| likeness(like) > 0.7).cloned();
            return Err(FilterError::UnknownField { field: name.to_owned(), known, like });
        };
        for given in test.kinds() {
            if !field.of_kind(given).any(|(_, documents)| seen(documents)) {
                let found =
                    [ValueKind::Boolean, ValueKind::Number, ValueKind::Date, ValueKind::String]
                        .into_iter()
                        .filter(|kind| field.of_kind(*kind).any(|(_, documents)| seen(documents)))
                        .collect();
                return Err(FilterError::WrongKind { field: name.to_owned(), given, found });
            }
        }
        Ok(field)
    }
}

impl Field {
    fn of_kind(&self, kind: ValueKind) -> impl Iterator<Item = (&Key, &Numbers)> {
        let from = self.by_value.range(Key::least(kind)..);
        from.take_while(move |(key, _)| key.kind() == kind)
    }

    /// Documents with a value that passes, some perhaps more than once.
    fn passing<'a>(&'a self, test: &'a FieldTest) -> Box<dyn Iterator<Item = u32> + 'a> {
        match test {
            FieldTest::Exists => Box::new(self.any.iter().copied()),
            FieldTest::OneOf(keys) => {
                Box::new(keys.iter().filter_map(|key| self.by_value.get(key)).flatten().copied())
            }
            FieldTest::Order(than, order, or_equal) => {
                let edge = if *or_equal { Bound::Included(than) } else { Bound::Excluded(than) };
                let least = Key::least(than.kind());
                let range = match order {
                    Ordering::Less => self.by_value.range((Bound::Included(&least), edge)),
                    Ordering::Equal | Ordering::Greater => {
                        self.by_value.range((edge, Bound::Unbounded))
                    }
                };
                let kind = than.kind();
                let same = range.take_while(move |(key, _)| key.kind() == kind);
                Box::new(same.flat_map(|(_, documents)| documents).copied())
            }
        }
    }
}

fn insert(numbers: &mut Numbers, number: u32) {
    // Built in ascending order; a principal or a text may be named twice.
    if let Err(place) = numbers.binary_search(&number) {
        numbers.insert(place, number);
    }
}

fn remove(numbers: &mut Numbers, number: u32) {
    if let Ok(place) = numbers.binary_search(&number) {
        numbers.remove(place);
    }
}

fn forget(sets: &mut HashMap<String, Numbers>, name: &str, number: u32) {
    if let Some(set) = sets.get_mut(name) {
        remove(set, number);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::properties::{Metadata, Value};

    /// Values of few kinds and sizes, so that they meet.
    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Boolean),
            (-2i64..3).prop_map(Value::Integer),
            (-4i64..6).prop_map(|n| Value::Float(n as f64 / 2.0)),
            (1u8..5).prop_map(|day| Value::from(&*format!("2024-05-0{day}"))),
            "[a-c]".prop_map(Value::String),
            proptest::collection::vec("[a-c]", 0..3).prop_map(Value::Strings),
        ]
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::sample::select(vec!["lang", "year", "tags"]).prop_map(str::to_owned)
    }

    fn properties() -> impl Strategy<Value = Properties> {
        let who =
            || proptest::sample::select(vec!["anna", "bert", "staff"]).prop_map(str::to_owned);
        let metadata = proptest::collection::btree_map(name(), value(), 0..4);
        let allow = proptest::option::of(proptest::collection::vec(who(), 0..3));
        let tenant = proptest::option::of("[xy]");
        (metadata, allow, tenant).prop_map(|(metadata, allow, tenant)| Properties {
            metadata,
            allow,
            tenant,
        })
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let comparison = (name(), value())
            .prop_map(|(key, value)| crate::filter::Comparison { key, value })
            .boxed();
        let membership = (name(), proptest::collection::vec(value(), 0..3))
            .prop_map(|(key, value)| crate::filter::Membership { key, value })
            .boxed();
        let leaf = prop_oneof![
            comparison.clone().prop_map(Filter::Eq),
            comparison.clone().prop_map(Filter::Ne),
            comparison.clone().prop_map(Filter::Gt),
            comparison.clone().prop_map(Filter::Gte),
            comparison.clone().prop_map(Filter::Lt),
            comparison.prop_map(Filter::Lte),
            membership.clone().prop_map(Filter::In),
            membership.prop_map(Filter::Nin),
            name().prop_map(|key| Filter::Exists { key }),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            let some = proptest::collection::vec(inner.clone(), 0..3);
            prop_oneof![
                some.clone().prop_map(|filters| Filter::And { filters }),
                some.prop_map(|filters| Filter::Or { filters }),
                inner.prop_map(|filter| Filter::Not { filter: Box::new(filter) }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The set is that of asking each document, whatever changed before.
        #[test]
        fn sets_are_those_of_one_document_at_a_time(
            documents in proptest::collection::vec((properties(), 0u32..4), 1..9),
            changes in proptest::collection::vec((0usize..9, proptest::option::of(properties())), 0..6),
            principals in proptest::collection::vec(proptest::sample::select(vec!["anna", "staff"]).prop_map(str::to_owned), 0..3),
            tenant in proptest::option::of("[xy]"),
            filter in proptest::option::of(filter()),
        ) {
            let rows: Vec<_> = (10..).zip(&documents).map(|(id, (p, n))| (id, *n, p.clone())).collect();
            let mut catalog = Catalog::new(1, rows.into_iter());
            let mut now: Vec<Option<Properties>> = documents.iter().map(|(p, _)| Some(p.clone())).collect();
            for (n, properties) in changes {
                catalog.update(10 + n as i64, properties.clone());
                if let Some(document) = now.get_mut(n) {
                    *document = properties;
                }
            }
            let viewer = Viewer { principals: &principals, tenant: tenant.as_deref() };
            let seen: Vec<&Metadata> =
                now.iter().flatten().filter(|p| viewer.sees(p)).map(|p| &p.metadata).collect();
            match catalog.chunks(viewer, filter.as_ref()) {
                Ok(chunks) => {
                    let mut expected = Vec::new();
                    let mut chunk = 0;
                    for (properties, (_, n)) in now.iter().zip(&documents) {
                        let fits = |p: &Properties| filter.as_ref().is_none_or(|f| f.matches(&p.metadata).unwrap());
                        let found = properties.as_ref().is_some_and(|p| viewer.sees(p) && fits(p));
                        expected.extend((chunk..chunk + n).map(|_| found));
                        chunk += n;
                    }
                    let got: Vec<bool> = (0..chunk).map(|n| chunks.contains(n)).collect();
                    prop_assert_eq!(got, expected);
                }
                // Refused for a reason that lies in what is seen.
                Err(FilterError::UnknownField { field, known, .. }) => {
                    prop_assert!(!known.contains(&field));
                    let fields: BTreeSet<String> = seen.iter().flat_map(|m| m.keys().cloned()).collect();
                    prop_assert_eq!(fields, known.into_iter().collect::<BTreeSet<_>>());
                }
                Err(FilterError::WrongKind { field, given, .. }) => {
                    let kinds: Vec<ValueKind> = seen.iter().filter_map(|m| m.get(&field))
                        .flat_map(|v| v.keys()).map(|k| k.kind()).collect();
                    prop_assert!(!kinds.is_empty() || seen.iter().any(|m| m.contains_key(&field)));
                    prop_assert!(!kinds.contains(&given));
                }
                Err(FilterError::NoOrder { .. } | FilterError::List { .. }) => {
                    prop_assert!(filter.unwrap().matches(&Metadata::new()).is_err());
                }
                Err(error @ FilterError::Syntax { .. }) => prop_assert!(false, "{error}"),
            }
        }
    }
}
