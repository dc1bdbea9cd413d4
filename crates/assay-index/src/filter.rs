//! Conditions on the metadata of documents.

mod parse;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::properties::{Key, Metadata, Value, ValueKind};

/// A condition on the metadata of a document.
///
/// Its JSON is that of OpenAI's vector store search (`{"type": "eq", "key": "lang", "value": "en"}`, `ne`, `gt`,
/// `gte`, `lt`, `lte`, `in`, `nin`, `and` and `or` with `filters`), with `not` and `exists` beside. On a command
/// line, see [`Filter::parse`].
///
/// A list fulfils a condition if one of its texts does. A document without the field fulfils `ne`, `nin` and `not`
/// and none of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// All of them; without any, every document.
    And {
        /// Conditions.
        filters: Vec<Filter>,
    },
    /// One of them; without any, no document.
    Or {
        /// Conditions.
        filters: Vec<Filter>,
    },
    /// Not this.
    Not {
        /// The condition.
        filter: Box<Filter>,
    },
    /// The field is the value.
    Eq(Comparison),
    /// The field is not the value, or is absent.
    Ne(Comparison),
    /// The field is above the value: a number, a later date, a text behind it by code points.
    Gt(Comparison),
    /// Above or equal.
    Gte(Comparison),
    /// Below.
    Lt(Comparison),
    /// Below or equal.
    Lte(Comparison),
    /// The field is one of the values.
    In(Membership),
    /// The field is none of the values, or is absent.
    Nin(Membership),
    /// The document has the field.
    Exists {
        /// Name of the field.
        key: String,
    },
}

/// A field against a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Name of the field.
    pub key: String,
    /// No list.
    pub value: Value,
}

/// A field against several values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Name of the field.
    pub key: String,
    /// No lists.
    pub value: Vec<Value>,
}

/// What is there instead of an unknown field.
fn there_is(known: &[String]) -> String {
    if known.is_empty() {
        ", nor any other".to_owned()
    } else {
        format!("; there is: {}", known.join(", "))
    }
}

/// Why a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No document that the viewer sees has the field.
    #[error("no document has a field `{field}`{}", there_is(known))]
    UnknownField {
        /// As asked.
        field: String,
        /// Fields of the documents that the viewer sees.
        known: Vec<String>,
        /// The most similar of them.
        like: Option<String>,
    },
    /// No document that the viewer sees has such a value there.
    #[error("`{field}` is compared with a {given}, and it is a {}", found.iter().map(ValueKind::to_string).collect::<Vec<_>>().join(" or "))]
    WrongKind {
        /// The field.
        field: String,
        /// What it is compared with.
        given: ValueKind,
        /// What it is.
        found: Vec<ValueKind>,
    },
    /// Booleans have no order.
    #[error("`{field}` is compared by order with a {given}, which has none")]
    NoOrder {
        /// The field.
        field: String,
        /// What it is compared with.
        given: ValueKind,
    },
    /// A list where one value is compared.
    #[error("`{field}` is compared with a list")]
    List {
        /// The field.
        field: String,
    },
    /// The text is no filter.
    #[error("at character {at} of the filter: {what}")]
    Syntax {
        /// From 1.
        at: usize,
        /// What is expected there.
        what: String,
    },
}

impl FilterError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            FilterError::UnknownField { like, .. } => {
                like.as_ref().map(|like| format!("did you mean `{like}`?"))
            }
            FilterError::WrongKind { found, .. } => match found.first()? {
                ValueKind::Boolean => Some("write true or false".into()),
                ValueKind::Number => Some("write the number without quotes".into()),
                ValueKind::Date => Some("write a date as 2024-05-01".into()),
                ValueKind::String => Some("put the text in quotes".into()),
            },
            FilterError::NoOrder { .. } => Some("use = or !=".into()),
            FilterError::List { .. } => Some("use `in` for one of several values".into()),
            FilterError::Syntax { .. } => {
                Some(r#"for example: lang = "en" and (year >= 2020 or not draft = true)"#.into())
            }
        }
    }
}

/// A [`Filter`] in which every negation is a [`Condition::Not`].
pub(crate) enum Condition<'a> {
    All(&'a [Filter]),
    Any(&'a [Filter]),
    Not(Box<Condition<'a>>),
    Field(&'a str, FieldTest),
}

/// What a field is tested for.
pub(crate) enum FieldTest {
    Exists,
    OneOf(Vec<Key>),
    /// Its order against the key, and whether equal is enough.
    Order(Key, Ordering, bool),
}

impl FieldTest {
    /// Whether a value passes.
    pub(crate) fn passes(&self, key: &Key) -> bool {
        match self {
            FieldTest::Exists => true,
            FieldTest::OneOf(keys) => keys.contains(key),
            FieldTest::Order(than, order, or_equal) => {
                let found = key.cmp(than);
                key.kind() == than.kind() && (found == *order || (*or_equal && found.is_eq()))
            }
        }
    }

    /// What the field is compared with.
    pub(crate) fn kinds(&self) -> Vec<ValueKind> {
        match self {
            FieldTest::Exists => Vec::new(),
            FieldTest::OneOf(keys) => keys.iter().map(Key::kind).collect(),
            FieldTest::Order(key, ..) => vec![key.kind()],
        }
    }
}

impl Filter {
    /// What it says, with each comparison checked for itself.
    pub(crate) fn condition(&self) -> Result<Condition<'_>, FilterError> {
        let not = |condition| Condition::Not(Box::new(condition));
        Ok(match self {
            Filter::And { filters } => Condition::All(filters),
            Filter::Or { filters } => Condition::Any(filters),
            Filter::Not { filter } => not(filter.condition()?),
            Filter::Eq(c) => one_of(&c.key, std::slice::from_ref(&c.value))?,
            Filter::Ne(c) => not(one_of(&c.key, std::slice::from_ref(&c.value))?),
            Filter::In(m) => one_of(&m.key, &m.value)?,
            Filter::Nin(m) => not(one_of(&m.key, &m.value)?),
            Filter::Gt(c) => ordered(c, Ordering::Greater, false)?,
            Filter::Gte(c) => ordered(c, Ordering::Greater, true)?,
            Filter::Lt(c) => ordered(c, Ordering::Less, false)?,
            Filter::Lte(c) => ordered(c, Ordering::Less, true)?,
            Filter::Exists { key } => Condition::Field(key, FieldTest::Exists),
        })
    }

    /// Whether a document with this metadata fulfils the condition.
    ///
    /// # Errors
    /// When a comparison makes no sense for any field. Fields that are absent are no error here; a search knows all
    /// fields, and refuses unknown ones.
    pub fn matches(&self, metadata: &Metadata) -> Result<bool, FilterError> {
        self.condition()?.holds(metadata)
    }
}

impl Condition<'_> {
    fn holds(&self, metadata: &Metadata) -> Result<bool, FilterError> {
        Ok(match self {
            // Every part is looked at, so that a part that makes no sense is always an error.
            Condition::All(filters) => {
                let held: Result<Vec<bool>, _> =
                    filters.iter().map(|f| f.matches(metadata)).collect();
                held?.into_iter().all(|held| held)
            }
            Condition::Any(filters) => {
                let held: Result<Vec<bool>, _> =
                    filters.iter().map(|f| f.matches(metadata)).collect();
                held?.into_iter().any(|held| held)
            }
            Condition::Not(condition) => !condition.holds(metadata)?,
            Condition::Field(key, test) => metadata.get(*key).is_some_and(|value| {
                matches!(test, FieldTest::Exists) || value.keys().iter().any(|k| test.passes(k))
            }),
        })
    }
}

fn one_of<'a>(field: &'a str, values: &[Value]) -> Result<Condition<'a>, FilterError> {
    let keys = values.iter().map(|value| single(field, value)).collect::<Result<_, _>>()?;
    Ok(Condition::Field(field, FieldTest::OneOf(keys)))
}

fn ordered(c: &Comparison, order: Ordering, or_equal: bool) -> Result<Condition<'_>, FilterError> {
    let key = single(&c.key, &c.value)?;
    match key.kind() {
        given @ ValueKind::Boolean => Err(FilterError::NoOrder { field: c.key.clone(), given }),
        ValueKind::Number | ValueKind::Date | ValueKind::String => {
            Ok(Condition::Field(&c.key, FieldTest::Order(key, order, or_equal)))
        }
    }
}

fn single(field: &str, value: &Value) -> Result<Key, FilterError> {
    match (value, value.keys().pop()) {
        (Value::Strings(_), _) | (_, None) => Err(FilterError::List { field: field.to_owned() }),
        (_, Some(key)) => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        serde_json::from_str(
            r#"{"lang": "en", "year": 2021, "price": 9.5, "draft": false, "day": "2024-05-01",
                "tags": ["red", "blue"]}"#,
        )
        .unwrap()
    }

    #[test]
    fn conditions_hold_as_they_read() {
        let check = |text: &str, expected: bool| {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(filter.matches(&metadata()), Ok(expected), "{text}");
            let json = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter, "{json}");
        };
        check(r#"lang = "en""#, true);
        check("lang != 'en'", false);
        check("lang in ['de', 'en']", true);
        check("lang not in ('de')", true);
        check("year >= 2021 and year <= 2021.0 and not year > 2021", true);
        check("year > 2020.5 AND year < 2022", true);
        check("price = 9.5 or draft = true", true);
        check("draft = true or lang = 'de'", false);
        check("day >= 2024-05-01 and day < 2024-05-01T00:00:01Z", true);
        check("day = '2024-04-30T22:00:00-02:00'", true);
        check("tags = 'blue'", true);
        check("tags != 'blue'", false);
        check("tags in ['green', 'red']", true);
        check("tags > 'p'", true);
        check("lang exists and not author exists", true);
        check("author = 'anna'", false);
        check("author != 'anna'", true);
        check("author not in ['anna']", true);
        check("not (author = 'anna' or lang = 'de')", true);
        check("lang = 'de' and lang = 'en' or lang = 'en'", true);
        check("lang = 'de' and (lang = 'en' or lang = 'en')", false);
        check("`year` = 2021", true);
        check("lang > 2020", false);
    }

    #[test]
    fn json_is_openais() {
        let json = r#"{"type": "and", "filters": [{"type": "eq", "key": "lang", "value": "en"},
            {"type": "in", "key": "year", "value": [2020, 2021]}, {"type": "not", "filter": {"type": "exists", "key": "x"}}]}"#;
        let filter: Filter = serde_json::from_str(json).unwrap();
        assert_eq!(filter.matches(&metadata()), Ok(true));
        let refused = |json: &str, word: &str| {
            let error = serde_json::from_str::<Filter>(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(r#"{"type": "equals", "key": "lang", "value": "en"}"#, "`eq`");
        refused(r#"{"type": "eq", "key": "lang"}"#, "value");
        refused(r#"{"type": "eq", "key": "lang", "value": null}"#, "no value");
        refused(r#"{"type": "and", "filters": [], "value": 1}"#, "value");
    }

    #[test]
    fn nonsense_is_refused() {
        let error =
            |text: &str| Filter::parse(text).and_then(|f| f.matches(&metadata())).unwrap_err();
        assert!(matches!(error("draft > false"), FilterError::NoOrder { .. }));
        // Wherever it stands.
        assert!(matches!(error("lang = 'en' or draft > false"), FilterError::NoOrder { .. }));
        let list = Value::Strings(vec!["a".into()]);
        let filter = Filter::Eq(Comparison { key: "tags".into(), value: list });
        assert!(matches!(filter.matches(&metadata()), Err(FilterError::List { .. })));
        for (text, at) in [
            ("", 1),
            ("lang", 5),
            ("lang = ", 8),
            ("lang = en", 8),
            ("lang == 'en'", 7),
            ("lang = 'en", 8),
            ("lang = 'en' or", 15),
            ("(lang = 'en'", 13),
            ("lang = 'en' year = 3", 13),
            ("lang in 'en'", 9),
            ("year = 1e999", 8),
        ] {
            let FilterError::Syntax { at: found, what } = error(text) else { panic!("{text}") };
            assert_eq!(found, at, "{text}: {what}");
            assert!(what.contains("expected"), "{what}");
        }
        assert!(matches!(error(&"(".repeat(100_000)), FilterError::Syntax { .. }));
        assert!(matches!(error(&"not ".repeat(100_000)), FilterError::Syntax { .. }));
    }
}
