//! Holds a document against a JSON schema. Stricter than the standard: what the schema does not describe is wrong, and so
//! is a word of the schema that is not known here.

use serde_json::Value;

/// Fails with the place of the first thing that is not as the schema says.
pub(crate) fn assert_valid(schema: &Value, document: &Value) {
    if let Err(wrong) = check(schema, document, "$") {
        panic!("{wrong}");
    }
}

fn check(schema: &Value, document: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{at}: {what}: {document}"));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    for (word, said) in schema.as_object().expect("a schema is an object") {
        match word.as_str() {
            "$schema" | "title" | "description" | "default" | "format" => {}
            "type" if list(said).iter().any(|kind| is_a(kind.as_str().expect("a type"), document)) => {}
            "const" if said == document => {}
            "type" | "const" => return wrong(&format!("not {said}")),
            "enum" if list(said).contains(document) => {}
            "enum" => return wrong(&format!("none of {said}")),
            "minimum" if document.as_f64().is_none_or(|number| Some(number) >= said.as_f64()) => {}
            "minimum" => return wrong(&format!("below {said}")),
            "oneOf" | "anyOf" if list(said).iter().any(|one| check(one, document, at).is_ok()) => {}
            "oneOf" | "anyOf" => return wrong("none of the alternatives"),
            "items" => {
                for (number, item) in document.as_array().into_iter().flatten().enumerate() {
                    check(said, item, &format!("{at}[{number}]"))?;
                }
            }
            "required" => {
                for name in list(said) {
                    if document.get(name.as_str().expect("a name")).is_none() {
                        return wrong(&format!("{name} is not there"));
                    }
                }
            }
            "properties" => {
                for (name, value) in document.as_object().into_iter().flatten() {
                    let Some(schema) = said.get(name) else {
                        return wrong(&format!("{name} is not described"));
                    };
                    check(schema, value, &format!("{at}.{name}"))?;
                }
            }
            other => return wrong(&format!("`{other}` is not known here")),
        }
    }
    Ok(())
}

fn is_a(kind: &str, document: &Value) -> bool {
    match kind {
        "null" => document.is_null(),
        "boolean" => document.is_boolean(),
        "integer" => document.is_u64() || document.is_i64(),
        "number" => document.is_number(),
        "string" => document.is_string(),
        "array" => document.is_array(),
        "object" => document.is_object(),
        _ => false,
    }
}
