//! Expressions in the Common Expression Language over Envoy's attributes ("Attributes" in its
//! documentation). An expression that fails, say because it asks for what is not there, does not
//! hold.

mod attributes;
mod limits;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr};
use cel::parser::Parser;
use cel::{Context, Env, IdedExpr, Value, extensions};

use self::attributes::Attribute;
pub use self::limits::DEEPEST;
use crate::telemetry::access_log::record::Record;

/// The functions of the language, and those for strings. It is made for the first expression.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    if let Err(error) = environment.add_extension(extensions::strings) {
        // A fault of the library's alone; its functions then fail where they are called.
        tracing::error!(%error, "no string functions in expressions");
    }
    Arc::new(environment)
});

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// It cannot be parsed.
    #[error("is no expression: {0}")]
    Syntax(String),
    /// It is longer than so many code points.
    #[error("is longer than {0} code points, which is the most: make it several")]
    Long(usize),
    /// It has more than so many levels.
    #[error(
        "is nested, or a chain of operators, deeper than {0}, which is the most: make it several, \
         or use &&, || and `in`, which can be long"
    )]
    Deep(u16),
    /// It cannot be parsed for want of memory or threads.
    #[error("cannot be parsed now: {0}")]
    Resources(String),
    /// It goes through a list or a map.
    #[error(
        "goes through a list or map (exists, all, map, filter), which is not supported, as in \
         Envoy: ask for single values, or use `in`"
    )]
    Loop,
    /// It asks for something that nobody knows.
    #[error("`{0}` is no attribute here; there are {known}", known = attributes::names())]
    Unknown(String),
}

/// An expression that is ready to be evaluated.
#[derive(Debug)]
pub struct Expression {
    expression: IdedExpr,
    /// What it asks for.
    attributes: Vec<Attribute>,
}

impl Expression {
    /// Parses the text of an expression.
    ///
    /// # Errors
    /// [`CelError`]
    pub fn parse(text: &str) -> Result<Self, CelError> {
        limits::check_text(text)?;
        // The parser takes more stack for each bracket than threads have for the most that there
        // may be, so it gets its own.
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(limits::STACK);
            let parser = builder
                .name("expression".to_owned())
                .spawn_scoped(scope, || Expression::parse_here(text))
                .map_err(|error| CelError::Resources(error.to_string()))?;
            parser
                .join()
                .unwrap_or_else(|_| Err(CelError::Syntax("the parser panicked".to_owned())))
        })
    }

    fn parse_here(text: &str) -> Result<Self, CelError> {
        let parsed = Parser::new()
            .max_recursion_depth(limits::DEEPEST)
            .parse(text)
            .map_err(|errors| CelError::Syntax(errors.to_string().trim().replace('\n', "; ")))?;
        Expression::new(parsed)
    }

    /// Of one that was parsed before.
    ///
    /// # Errors
    /// [`CelError::Deep`], [`CelError::Loop`], [`CelError::Unknown`]
    pub fn new(expression: IdedExpr) -> Result<Self, CelError> {
        limits::check_tree(&expression)?;
        let mut names = Vec::new();
        find_names(&expression, &mut names)?;
        names.sort_unstable();
        names.dedup();
        let mut attributes = Vec::new();
        for name in names {
            let found = Attribute::find(&name).ok_or(CelError::Unknown(name))?;
            attributes.extend(found);
        }
        Ok(Expression {
            expression,
            attributes,
        })
    }

    /// Whether it is true of what is known.
    pub fn holds(&self, record: &Record<'_>) -> bool {
        matches!(self.evaluate(record), Some(Value::Bool(true)))
    }

    /// What it comes to; `None` where it fails.
    pub fn evaluate(&self, record: &Record<'_>) -> Option<Value> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for attribute in &self.attributes {
            if let Some(value) = attribute.value(record) {
                context.add_variable_from_value(attribute.name, value);
            }
        }
        match Value::resolve(&self.expression, &context) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::debug!(%error, "an expression fails");
                None
            }
        }
    }
}

/// The names that an expression asks for, such as `request.path` or, where all of it is wanted,
/// `request`.
fn find_names(expression: &IdedExpr, names: &mut Vec<String>) -> Result<(), CelError> {
    match &expression.expr {
        Expr::Ident(name) => names.push(name.clone()),
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(root) if !select.test => names.push(format!("{root}.{}", select.field)),
            _ => find_names(&select.operand, names)?,
        },
        Expr::Comprehension(_) => return Err(CelError::Loop),
        _ => parts(expression).try_for_each(|part| find_names(part, names))?,
    }
    Ok(())
}

/// What an expression is made of, but for a comprehension's.
fn parts(expression: &IdedExpr) -> impl Iterator<Item = &IdedExpr> {
    type Parts<'a> = (Option<&'a IdedExpr>, &'a [IdedExpr], &'a [IdedEntryExpr]);
    let (one, many, entries): Parts<'_> = match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Comprehension(_) => {
            (None, &[], &[])
        }
        Expr::Select(select) => (Some(&select.operand), &[], &[]),
        Expr::Call(call) => (call.target.as_deref(), &call.args, &[]),
        Expr::List(list) => (None, &list.elements, &[]),
        Expr::Map(map) => (None, &[], &map.entries),
        Expr::Struct(it) => (None, &[], &it.entries),
    };
    let entries = entries.iter().flat_map(|entry| of_entry(&entry.expr));
    one.into_iter().chain(many).chain(entries)
}

fn of_entry(entry: &EntryExpr) -> impl Iterator<Item = &IdedExpr> {
    let (key, value) = match entry {
        EntryExpr::StructField(field) => (None, &field.value),
        EntryExpr::MapEntry(entry) => (Some(&entry.key), &entry.value),
    };
    key.into_iter().chain([value])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_ask_for_what_is_known() {
        let parse = |text: &str| match Expression::parse(text) {
            Ok(expression) => {
                let names = expression.attributes.iter().map(|found| found.name);
                Ok(names.collect::<Vec<_>>().join(" "))
            }
            Err(CelError::Unknown(name)) => Err(name),
            Err(CelError::Syntax(_)) => Err("syntax".to_owned()),
            Err(CelError::Loop) => Err("loop".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let cases = [
            (
                "request.path.startsWith('/a') && request.headers['x'] == 'y'",
                Ok("request.headers request.path"),
            ),
            (
                "request.path in [source.address, {'a': upstream.port}['a']]",
                Ok("request.path source.address upstream.port"),
            ),
            ("filter_state['k'] == 'v'", Ok("filter_state")),
            ("request.patth == '/a'", Err("request.patth")),
            ("reqest.path == '/a'", Err("reqest.path")),
            ("name == 'a'", Err("name")),
            ("request.path ==", Err("syntax")),
            ("request.headers.exists(n, n == 'a')", Err("loop")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(parse(text), expected, "{text}");
        }
        // All of it, for `has` looks for what is not there, too.
        assert!(parse("has(request.referer)").unwrap().contains("request"));
    }
}
