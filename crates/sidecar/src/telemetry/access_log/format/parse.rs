//! From the text of a format to its pieces.

use super::Piece;
use super::operator::{self, Operator};

/// Why a format is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` that neither begins an operator nor is written `%%`.
    #[error("the % at byte {0} begins no operator; write %% for the sign itself")]
    Stray(usize),
    /// No operator has that name.
    #[error("unknown operator %{name}%; supported are {}", operator::names())]
    Unknown {
        /// The name as it was written.
        name: String,
    },
    /// Envoy has it, and we do not.
    #[error("%{name}% is not supported: {reason}")]
    Lacking {
        /// The name as it was written.
        name: String,
        /// Why, and what to use instead.
        reason: &'static str,
    },
    /// It needs something in parentheses.
    #[error("%{0}% needs an argument in parentheses")]
    NeedsArgument(&'static str),
    /// It takes nothing in parentheses.
    #[error("%{0}% takes no argument")]
    TakesNoArgument(&'static str),
    /// What is in the parentheses is not understood.
    #[error("%{operator}({argument})%: {reason}")]
    Argument {
        /// The operator.
        operator: &'static str,
        /// What was written in the parentheses.
        argument: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The length after the colon is not a number.
    #[error("the length after the colon of %{0}% must be a number")]
    Length(String),
}

/// Splits a format into literal text and operators.
pub(super) fn pieces(format: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        literal.push_str(&rest[..percent]);
        let at = format.len() - rest.len() + percent;
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (piece, after) = value(rest, at)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(
                std::mem::take(&mut literal).into_bytes().into(),
            ));
        }
        pieces.push(piece);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into_bytes().into()));
    }
    Ok(pieces)
}

/// Reads `NAME%`, `NAME(argument)%` or either with `:length` before the last `%`.
fn value(text: &str, at: usize) -> Result<(Piece, &str), FormatError> {
    let end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .filter(|end| *end > 0)
        .ok_or(FormatError::Stray(at))?;
    let (name, mut rest) = text.split_at(end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (inside, after) = inside.split_once(')').ok_or(FormatError::Stray(at))?;
        argument = Some(inside);
        rest = after;
    }
    let mut limit = None;
    if let Some(length) = rest.strip_prefix(':') {
        let (digits, _) = length.split_once('%').ok_or(FormatError::Stray(at))?;
        let parsed = digits.parse::<usize>();
        limit = Some(parsed.map_err(|_| FormatError::Length(name.to_owned()))?);
        rest = &length[digits.len()..];
    }
    let rest = rest.strip_prefix('%').ok_or(FormatError::Stray(at))?;
    let operator = Operator::parse(name, argument)?;
    Ok((Piece::Value { operator, limit }, rest))
}
