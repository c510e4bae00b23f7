//! `google.api.expr.v1alpha1`: expressions that the control plane has parsed.

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr,
    SelectExpr,
};
use envoy_types::pb::google::api::expr::v1alpha1 as proto;
use envoy_types::pb::google::api::expr::v1alpha1::constant::ConstantKind;
use envoy_types::pb::google::api::expr::v1alpha1::expr::create_struct::entry::KeyKind;
use envoy_types::pb::google::api::expr::v1alpha1::expr::{Call, CreateStruct, ExprKind, Select};

use super::fields::{Within as _, each, one_of, refuse, required};
use crate::config::error::{ConfigError, Result};
use crate::matching::cel::{CelError, DEEPEST, Expression};

/// An expression as a tree.
pub fn tree(proto: &proto::Expr) -> Result<Expression> {
    check_depth(proto)?;
    Expression::new(expression(proto)?).map_err(|error| ConfigError::new("", error))
}

/// An expression as text.
pub fn text(text: &str, field: &str) -> Result<Expression> {
    Expression::parse(text).map_err(|error| ConfigError::new(field, error))
}

/// Refuses a tree that is too deep to be made into an expression, which takes stack for each level.
fn check_depth(proto: &proto::Expr) -> Result<()> {
    let mut left = vec![(proto, 1_u16)];
    while let Some((one, depth)) = left.pop() {
        if depth > DEEPEST {
            return Err(ConfigError::new("", CelError::Deep(DEEPEST)));
        }
        left.extend(parts(one).into_iter().map(|part| (part, depth + 1)));
    }
    Ok(())
}

/// What an expression is made of, but for a comprehension's.
fn parts(proto: &proto::Expr) -> Vec<&proto::Expr> {
    match &proto.expr_kind {
        Some(ExprKind::SelectExpr(select)) => select.operand.as_deref().into_iter().collect(),
        Some(ExprKind::CallExpr(call)) => {
            let target = call.target.as_deref();
            target.into_iter().chain(&call.args).collect()
        }
        Some(ExprKind::ListExpr(list)) => list.elements.iter().collect(),
        Some(ExprKind::StructExpr(entries)) => {
            let parts = entries.entries.iter().flat_map(|entry| {
                let key = match &entry.key_kind {
                    Some(KeyKind::MapKey(key)) => Some(key),
                    Some(KeyKind::FieldKey(_)) | None => None,
                };
                key.into_iter().chain(&entry.value)
            });
            parts.collect()
        }
        Some(ExprKind::ConstExpr(_) | ExprKind::IdentExpr(_) | ExprKind::ComprehensionExpr(_))
        | None => Vec::new(),
    }
}

fn expression(proto: &proto::Expr) -> Result<IdedExpr> {
    let expr = match one_of::<proto::Expr, _>(&proto.expr_kind, "const_expr")? {
        ExprKind::ConstExpr(constant) => literal(constant).within("const_expr")?,
        ExprKind::IdentExpr(ident) => Expr::Ident(ident.name.clone()),
        ExprKind::SelectExpr(select) => self::select(select).within("select_expr")?,
        ExprKind::CallExpr(call) => self::call(call).within("call_expr")?,
        ExprKind::ListExpr(list) => {
            let elements = each("elements", &list.elements, expression).within("list_expr")?;
            refuse(
                !list.optional_indices.is_empty(),
                "list_expr.optional_indices",
                "optional elements are not supported: leave them out",
            )?;
            Expr::List(ListExpr::new(elements))
        }
        ExprKind::StructExpr(entries) => map(entries).within("struct_expr")?,
        ExprKind::ComprehensionExpr(_) => {
            return Err(ConfigError::new("comprehension_expr", CelError::Loop));
        }
    };
    Ok(IdedExpr {
        id: proto.id.unsigned_abs(),
        expr,
    })
}

fn literal(proto: &proto::Constant) -> Result<Expr> {
    let value = match one_of::<proto::Constant, _>(&proto.constant_kind, "null_value")? {
        ConstantKind::NullValue(_) => LiteralValue::Null,
        ConstantKind::BoolValue(value) => LiteralValue::Boolean((*value).into()),
        ConstantKind::Int64Value(value) => LiteralValue::Int((*value).into()),
        ConstantKind::Uint64Value(value) => LiteralValue::UInt((*value).into()),
        ConstantKind::DoubleValue(value) => LiteralValue::Double((*value).into()),
        ConstantKind::StringValue(value) => LiteralValue::String(value.clone().into()),
        ConstantKind::BytesValue(value) => LiteralValue::Bytes(value.clone().into()),
        ConstantKind::DurationValue(_) => {
            return Err(ConfigError::new(
                "duration_value",
                "is deprecated and not supported: call duration() with a string",
            ));
        }
        ConstantKind::TimestampValue(_) => {
            return Err(ConfigError::new(
                "timestamp_value",
                "is deprecated and not supported: call timestamp() with a string",
            ));
        }
    };
    Ok(Expr::Literal(value))
}

fn boxed(proto: &Option<Box<proto::Expr>>, field: &str) -> Result<IdedExpr> {
    required(proto, field).and_then(|proto| expression(proto).within(field))
}

fn select(proto: &Select) -> Result<Expr> {
    Ok(Expr::Select(SelectExpr {
        operand: Box::new(boxed(&proto.operand, "operand")?),
        field: proto.field.clone(),
        test: proto.test_only,
    }))
}

fn call(proto: &Call) -> Result<Expr> {
    let target = proto
        .target
        .as_ref()
        .map(|target| expression(target).within("target").map(Box::new));
    // What older parsers call these operators.
    let function = match proto.function.as_str() {
        "_in_" | "in" => "@in",
        "__not_strictly_false__" => "@not_strictly_false",
        function => function,
    };
    Ok(Expr::Call(CallExpr {
        func_name: function.to_owned(),
        target: target.transpose()?,
        args: each("args", &proto.args, expression)?,
    }))
}

fn map(proto: &CreateStruct) -> Result<Expr> {
    refuse(
        !proto.message_name.is_empty(),
        "message_name",
        "messages cannot be made: compare the fields",
    )?;
    let entries = each("entries", &proto.entries, |entry| {
        refuse(
            entry.optional_entry,
            "optional_entry",
            "optional entries are not supported",
        )?;
        let key = match required(&entry.key_kind, "map_key")? {
            KeyKind::MapKey(key) => expression(key).within("map_key")?,
            KeyKind::FieldKey(_) => {
                return Err(ConfigError::new("field_key", "is for messages only"));
            }
        };
        let value =
            required(&entry.value, "value").and_then(|value| expression(value).within("value"))?;
        Ok(IdedEntryExpr {
            id: entry.id.unsigned_abs(),
            expr: EntryExpr::MapEntry(MapEntryExpr {
                key,
                value,
                optional: false,
            }),
        })
    })?;
    Ok(Expr::Map(MapExpr { entries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `!` so many times, of `true`.
    fn nested(levels: u16) -> proto::Expr {
        let kind = ConstantKind::BoolValue(true);
        let constant = proto::Constant {
            constant_kind: Some(kind),
        };
        let first = proto::Expr {
            id: 1,
            expr_kind: Some(ExprKind::ConstExpr(constant)),
        };
        (1..levels).fold(first, |inner, _| proto::Expr {
            id: 1,
            expr_kind: Some(ExprKind::CallExpr(Box::new(Call {
                function: "!_".to_owned(),
                args: vec![inner],
                target: None,
            }))),
        })
    }

    #[test]
    fn deep_trees_are_refused_before_they_are_converted() {
        tree(&nested(DEEPEST)).unwrap();
        for levels in [DEEPEST + 1, 3_000] {
            let error = tree(&nested(levels)).unwrap_err().to_string();
            assert!(error.contains("deeper than 32"), "{error}");
        }
    }
}
