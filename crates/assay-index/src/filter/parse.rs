//! Filters as people write them.

use winnow::ascii::{Caseless, multispace0};
use winnow::combinator::{
    alt, cut_err, delimited, eof, fail, not, opt, peek, preceded, separated, terminated,
};
use winnow::error::{StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::token::{any, one_of, take_while};

use super::{Comparison, Filter, FilterError, Membership};
use crate::properties::{Date, Value};

/// Conditions within each other; more would only be written to exhaust the stack.
const DEEPEST: usize = 64;

impl Filter {
    /// Reads conditions like `lang = "en" and (year >= 2020 or tags in ["red", "blue"]) and not draft = true`.
    ///
    /// There are `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in` and `exists`; `not` binds before `and`, that before
    /// `or`. Texts stand in double or single quotes, in which `\` escapes; numbers, `true`, `false` and dates
    /// stand alone. A field whose name is no plain word stands in backquotes.
    ///
    /// # Errors
    /// [`FilterError::Syntax`].
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let whole = |input: &mut &str| any_of(input, 0);
        let end = (multispace0, eof.context(expected("`and`, `or` or the end")));
        terminated(whole, end).parse(text).map_err(|e| FilterError::Syntax {
            at: 1 + text[..e.offset()].chars().count(),
            what: e.inner().to_string().replace('\n', "; "),
        })
    }
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn any_of(input: &mut &str, depth: usize) -> ModalResult<Filter> {
    let mut filters = vec![all_of(input, depth)?];
    while opt(word("or")).parse_next(input)?.is_some() {
        filters.push(cut_err(|i: &mut &str| all_of(i, depth)).parse_next(input)?);
    }
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::Or { filters } })
}

fn all_of(input: &mut &str, depth: usize) -> ModalResult<Filter> {
    let mut filters = vec![one(input, depth)?];
    while opt(word("and")).parse_next(input)?.is_some() {
        filters.push(cut_err(|i: &mut &str| one(i, depth)).parse_next(input)?);
    }
    Ok(if filters.len() == 1 { filters.remove(0) } else { Filter::And { filters } })
}

fn one(input: &mut &str, depth: usize) -> ModalResult<Filter> {
    multispace0.parse_next(input)?;
    if depth == DEEPEST {
        return cut_err(fail)
            .context(expected("fewer conditions within each other"))
            .parse_next(input);
    }
    if opt(word("not")).parse_next(input)?.is_some() {
        let filter = cut_err(|i: &mut &str| one(i, depth + 1)).parse_next(input)?;
        return Ok(Filter::Not { filter: Box::new(filter) });
    }
    if opt('(').parse_next(input)?.is_some() {
        let inner = cut_err(|i: &mut &str| any_of(i, depth + 1)).parse_next(input)?;
        symbol(")").context(expected("`)`")).parse_next(input)?;
        return Ok(inner);
    }
    condition(input)
}

fn condition(input: &mut &str) -> ModalResult<Filter> {
    let key = field.context(expected("the name of a field, `not` or `(`")).parse_next(input)?;
    if opt(word("exists")).parse_next(input)?.is_some() {
        return Ok(Filter::Exists { key });
    }
    let membership = |value| Membership { key: key.clone(), value };
    if opt((word("not"), word("in"))).parse_next(input)?.is_some() {
        return Ok(Filter::Nin(membership(cut_err(values).parse_next(input)?)));
    }
    if opt(word("in")).parse_next(input)?.is_some() {
        return Ok(Filter::In(membership(cut_err(values).parse_next(input)?)));
    }
    multispace0.parse_next(input)?;
    let operator = cut_err(alt(("!=", "<=", ">=", "=", "<", ">")))
        .context(expected("=, !=, <, <=, >, >=, `in`, `not in` or `exists`"))
        .parse_next(input)?;
    let value = cut_err(value).parse_next(input)?;
    let comparison = Comparison { key, value };
    Ok(match operator {
        "!=" => Filter::Ne(comparison),
        "<=" => Filter::Lte(comparison),
        ">=" => Filter::Gte(comparison),
        "<" => Filter::Lt(comparison),
        ">" => Filter::Gt(comparison),
        _ => Filter::Eq(comparison),
    })
}

fn field(input: &mut &str) -> ModalResult<String> {
    let plain = (
        one_of(|c: char| c.is_alphabetic() || c == '_'),
        take_while(0.., |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')),
    );
    let quoted = delimited('`', take_while(1.., |c| c != '`'), '`');
    alt((plain.take(), quoted)).map(str::to_owned).parse_next(input)
}

fn values(input: &mut &str) -> ModalResult<Vec<Value>> {
    multispace0.parse_next(input)?;
    let close = alt(('['.value("]"), '('.value(")")))
        .context(expected("values in brackets"))
        .parse_next(input)?;
    let all = separated(0.., value, symbol(",")).parse_next(input)?;
    symbol(close).context(expected("`,` or the closing bracket")).parse_next(input)?;
    Ok(all)
}

fn value(input: &mut &str) -> ModalResult<Value> {
    preceded(multispace0, alt((text('"'), text('\''), bare)))
        .context(expected("a text in quotes, a number, a date, true or false"))
        .parse_next(input)
}

fn text<'a>(quote: char) -> impl ModalParser<&'a str, Value, winnow::error::ContextError> {
    move |input: &mut &'a str| {
        any.verify(|c: &char| *c == quote).parse_next(input)?;
        let mut text = String::new();
        loop {
            match any.parse_next(input)? {
                '\\' => text.push(any.parse_next(input)?),
                c if c == quote => return Ok(Value::from(&*text)),
                c => text.push(c),
            }
        }
    }
}

fn bare(input: &mut &str) -> ModalResult<Value> {
    take_while(1.., |c: char| c.is_alphanumeric() || matches!(c, '-' | '+' | '.' | ':' | '_'))
        .verify_map(|word: &str| match word {
            "true" => Some(Value::Boolean(true)),
            "false" => Some(Value::Boolean(false)),
            _ => {
                let number = || word.parse().ok().filter(|f: &f64| f.is_finite()).map(Value::Float);
                let whole = word.parse().ok().map(Value::Integer);
                whole.or_else(number).or_else(|| Date::parse(word).map(Value::Date))
            }
        })
        .parse_next(input)
}

fn symbol<'a>(symbol: &'static str) -> impl ModalParser<&'a str, (), winnow::error::ContextError> {
    (multispace0, symbol).void()
}

/// A whole word, in any case.
fn word<'a>(word: &'static str) -> impl ModalParser<&'a str, (), winnow::error::ContextError> {
    let more = one_of(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    (multispace0, Caseless(word), peek(not(more))).void()
}
