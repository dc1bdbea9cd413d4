//! What is known of a document beside its text: metadata, who may read it, whose it is.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Named values of a document, by which searches are filtered.
pub type Metadata = BTreeMap<String, Value>;

/// A value of a document's metadata.
///
/// In JSON, TOML and YAML it is what it looks like there. A text that is an ISO 8601 day or an RFC 3339
/// instant is a [`Value::Date`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// Compared with [`Value::Float`] by what they are worth.
    Integer(i64),
    /// Finite.
    Float(f64),
    /// A day or an instant.
    Date(Date),
    /// Any other text.
    String(String),
    /// Texts; a filter on them looks for one that fits.
    Strings(Vec<String>),
}

/// A day, which stands for its first instant in UTC, or an instant; without an offset in UTC.
#[derive(Clone, Debug)]
pub struct Date {
    text: String,
    /// Milliseconds since 1970 in UTC.
    ms: i64,
}

impl Date {
    /// Reads `2024-05-01`, `2024-05-01T10:00:00` or `2024-05-01T10:00:00+02:00`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Date> {
        // A year of four digits, so that few texts are taken for dates.
        if text.len() < 10 || !text.as_bytes()[..4].iter().all(u8::is_ascii_digit) {
            return None;
        }
        let parsed: toml::value::Datetime = text.parse().ok()?;
        let date = parsed.date?;
        let mut ms = days_since_1970(date.year.into(), date.month.into(), date.day.into());
        ms *= 86_400_000;
        if let Some(time) = parsed.time {
            let seconds = i64::from(time.hour) * 3600
                + i64::from(time.minute) * 60
                + i64::from(time.second.unwrap_or(0));
            ms += seconds * 1000 + i64::from(time.nanosecond.unwrap_or(0)) / 1_000_000;
        }
        if let Some(toml::value::Offset::Custom { minutes }) = parsed.offset {
            ms -= i64::from(minutes) * 60_000;
        }
        Some(Date { text: text.to_owned(), ms })
    }

    /// Milliseconds since 1970 in UTC.
    pub fn ms(&self) -> i64 {
        self.ms
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, by counting years from March in eras of 400
/// years. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// By the instant, however it is written.
impl PartialEq for Date {
    fn eq(&self, other: &Self) -> bool {
        self.ms == other.ms
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Date::parse(text).map_or_else(|| Value::String(text.to_owned()), Value::Date)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Date(date) => date.fmt(f),
            other => other.to_json().fmt(f),
        }
    }
}

impl Value {
    /// What a JSON value says; `None` for null, objects, numbers beyond an `f64`, and lists of anything but texts.
    pub fn from_json(json: &serde_json::Value) -> Option<Value> {
        use serde_json::Value as Json;
        match json {
            Json::Bool(b) => Some(Value::Boolean(*b)),
            Json::Number(n) => match n.as_i64() {
                Some(whole) => Some(Value::Integer(whole)),
                None => n.as_f64().filter(|f| f.is_finite()).map(Value::Float),
            },
            Json::String(text) => Some(text.as_str().into()),
            Json::Array(list) => {
                let texts = list.iter().map(|v| v.as_str().map(str::to_owned));
                texts.collect::<Option<_>>().map(Value::Strings)
            }
            Json::Null | Json::Object(_) => None,
        }
    }

    fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Boolean(b) => (*b).into(),
            Value::Integer(i) => (*i).into(),
            Value::Float(f) => (*f).into(),
            Value::Date(date) => date.text.clone().into(),
            Value::String(text) => text.clone().into(),
            Value::Strings(texts) => texts.clone().into(),
        }
    }

    /// The value, or each text of a list, to be compared.
    pub(crate) fn keys(&self) -> Vec<Key> {
        match self {
            Value::Boolean(b) => vec![Key::Boolean(*b)],
            Value::Integer(i) => vec![Key::Number(Number::Integer(*i))],
            Value::Float(f) => vec![Key::Number(Number::Float(*f))],
            Value::Date(date) => vec![Key::Date(date.ms)],
            Value::String(text) => vec![Key::String(text.clone())],
            // Texts of a list that look like dates are compared as dates, as the text beside them in a filter is.
            Value::Strings(texts) => texts.iter().flat_map(|t| Value::from(&**t).keys()).collect(),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        Value::from_json(&json).ok_or_else(|| {
            let expected = "a text, a number, true, false, or a list of texts";
            serde::de::Error::custom(format!("{json} is no value; expected {expected}"))
        })
    }
}

/// A value as it is compared: by kind, then by what it is worth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Boolean(bool),
    Number(Number),
    Date(i64),
    String(String),
}

/// What a value is; only values of one kind are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueKind {
    /// `true` or `false`.
    Boolean,
    /// Whole or not.
    Number,
    /// A day or an instant.
    Date,
    /// A text that is no date, or one of a list.
    String,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueKind::Boolean => "boolean",
            ValueKind::Number => "number",
            ValueKind::Date => "date",
            ValueKind::String => "string",
        })
    }
}

impl Key {
    pub(crate) fn kind(&self) -> ValueKind {
        match self {
            Key::Boolean(_) => ValueKind::Boolean,
            Key::Number(_) => ValueKind::Number,
            Key::Date(_) => ValueKind::Date,
            Key::String(_) => ValueKind::String,
        }
    }

    /// Nothing of this kind comes before it.
    pub(crate) fn least(kind: ValueKind) -> Key {
        match kind {
            ValueKind::Boolean => Key::Boolean(false),
            ValueKind::Number => Key::Number(Number::Float(f64::NEG_INFINITY)),
            ValueKind::Date => Key::Date(i64::MIN),
            ValueKind::String => Key::String(String::new()),
        }
    }
}

/// Whole numbers and others in one exact order; never NaN.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Integer(i64),
    Float(f64),
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Number::Integer(a), Number::Integer(b)) => a.cmp(&b),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Number::Integer(a), Number::Float(b)) => compare(a, b),
            (Number::Float(a), Number::Integer(b)) => compare(b, a).reverse(),
        }
    }
}

/// Without rounding `whole`, which an `f64` may not hold.
fn compare(whole: i64, other: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if other >= BEYOND {
        Ordering::Less
    } else if other < -BEYOND {
        Ordering::Greater
    } else {
        let floor = other.floor();
        whole.cmp(&(floor as i64)).then(if other > floor {
            Ordering::Less
        } else {
            Ordering::Equal
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

/// What is known of a document beside its text.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Properties {
    /// By which searches are filtered.
    pub metadata: Metadata,
    /// Who may read it: `None` is everyone, an empty list nobody.
    pub allow: Option<Vec<String>>,
    /// Whose it is; `None` is shared by all tenants.
    pub tenant: Option<String>,
}

/// Who asks. Nobody sees a document that is not allowed to one of the principals, nor one of another tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Viewer<'a> {
    /// What the viewer is known as: names of users and groups. Without any, only documents that everyone may
    /// read are seen.
    pub principals: &'a [String],
    /// The viewer's tenant, whose documents are seen beside those of none.
    pub tenant: Option<&'a str>,
}

impl Viewer<'_> {
    /// Somebody who is not known: sees what everyone may read and what belongs to no tenant.
    pub const ANYONE: Viewer<'static> = Viewer { principals: &[], tenant: None };

    /// Whether the viewer may know of a document.
    pub fn sees(&self, properties: &Properties) -> bool {
        let allowed = match &properties.allow {
            None => true,
            Some(allow) => allow.iter().any(|a| self.principals.contains(a)),
        };
        let tenant = properties.tenant.as_deref();
        allowed && (tenant.is_none() || tenant == self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_instants() {
        let ms = |text| Date::parse(text).map(|d| d.ms());
        assert_eq!(ms("1970-01-01"), Some(0));
        assert_eq!(ms("2000-03-01"), Some(951_868_800_000));
        assert_eq!(ms("1969-12-31T23:59:59.5Z"), Some(-500));
        assert_eq!(ms("2024-05-01T02:00:00+02:00"), ms("2024-05-01"));
        assert_eq!(Date::parse("2024-05-01T00:00:00Z"), Date::parse("2024-05-01"));
        for no in ["2023-02-29", "2024-13-01", "12:00:00", "2024", "20240501", "soon", ""] {
            assert_eq!(ms(no), None, "{no}");
        }
    }

    #[test]
    fn values_are_what_they_look_like() {
        let check = |json: &str, expected: Value| {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(value, expected);
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        };
        check("true", Value::Boolean(true));
        check("7", Value::Integer(7));
        check("-0.5", Value::Float(-0.5));
        check("\"x\"", Value::String("x".into()));
        check("\"2024-05-01\"", Value::Date(Date::parse("2024-05-01").unwrap()));
        check("[\"a\",\"b\"]", Value::Strings(vec!["a".into(), "b".into()]));
        for no in ["null", "{}", "[1]", "[null]"] {
            let error = serde_json::from_str::<Value>(no).unwrap_err().to_string();
            assert!(error.contains("is no value"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whole_and_other_numbers_have_one_order(a in any::<i64>(), b in -1e19..1e19f64, near in -3i64..3) {
            let exact = (i128::from(a) * 4).cmp(&((b.floor() as i128) * 4 + i128::from(b.fract() != 0.0)));
            prop_assert_eq!(Number::Integer(a).cmp(&Number::Float(b)), exact);
            prop_assert_eq!(Number::Float(b).cmp(&Number::Integer(a)), exact.reverse());
            // 2^53 + 1 is no f64.
            let large = (1 << 53) + near;
            let cmp = Number::Integer(large).cmp(&Number::Float(9_007_199_254_740_992.0));
            prop_assert_eq!(cmp, near.cmp(&0));
        }
    }

    #[test]
    fn access_fails_closed() {
        let principals = ["anna".to_owned(), "staff".to_owned()];
        let sees = |principals: &[String], tenant, allow: Option<&[&str]>, of: Option<&str>| {
            let allow = allow.map(|a| a.iter().map(|s| (*s).to_owned()).collect());
            let tenant_of = of.map(str::to_owned);
            let properties = Properties { allow, tenant: tenant_of, ..Properties::default() };
            Viewer { principals, tenant }.sees(&properties)
        };
        assert!(sees(&[], None, None, None));
        assert!(!sees(&[], None, Some(&["staff"]), None));
        assert!(sees(&principals, None, Some(&["staff"]), None));
        assert!(!sees(&principals, None, Some(&[]), None));
        assert!(!sees(&principals, None, None, Some("acme")));
        assert!(sees(&[], Some("acme"), None, Some("acme")));
        assert!(sees(&[], Some("acme"), None, None));
        assert!(!sees(&[], Some("acme"), None, Some("other")));
        assert!(!sees(&[], Some("acme"), Some(&["staff"]), Some("acme")));
    }
}
