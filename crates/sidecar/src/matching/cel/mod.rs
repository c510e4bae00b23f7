//! Expressions in the Common Expression Language over Envoy's attributes ("Attributes" in its
//! documentation). An expression that fails, say because it asks for what is not there, does not
//! hold.

mod attributes;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::Parser;
use cel::{Context, Env, IdedExpr, Value, extensions};

use self::attributes::Attribute;
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
        let parsed = Parser::new()
            .parse(text)
            .map_err(|errors| CelError::Syntax(errors.to_string().trim().replace('\n', "; ")))?;
        Expression::new(parsed)
    }

    /// Of one that was parsed before.
    ///
    /// # Errors
    /// [`CelError::Unknown`]
    pub fn new(expression: IdedExpr) -> Result<Self, CelError> {
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
    let mut all = |parts: &mut dyn Iterator<Item = &IdedExpr>| {
        for part in parts {
            find_names(part, names)?;
        }
        Ok(())
    };
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(()),
        Expr::Ident(name) => {
            names.push(name.clone());
            Ok(())
        }
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(root) if !select.test => {
                names.push(format!("{root}.{}", select.field));
                Ok(())
            }
            _ => find_names(&select.operand, names),
        },
        Expr::Call(call) => all(&mut call.target.as_deref().into_iter().chain(&call.args)),
        Expr::List(list) => all(&mut list.elements.iter()),
        Expr::Map(map) => all(&mut map.entries.iter().flat_map(|entry| of_entry(&entry.expr))),
        Expr::Struct(it) => all(&mut it.entries.iter().flat_map(|entry| of_entry(&entry.expr))),
        Expr::Comprehension(_) => Err(CelError::Loop),
    }
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
