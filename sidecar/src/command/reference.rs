//! The reference of the admin API in Markdown, made of the OpenAPI document and of the list of codes: what stands between the
//! marks of docs/api.md.

use std::fmt::Write;

use serde_json::Value;

use crate::{code::Code, http::admin};

/// How deep answers are told; none is as deep.
const MAX_DEPTH: usize = 8;
const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// All paths with their fields, and all codes.
pub(super) fn markdown() -> serde_json::Result<String> {
    let document = Reference(serde_json::to_value(admin::document())?);
    let mut page = String::new();
    let paths = document.0["paths"].as_object().into_iter().flatten();
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                document.operation(&mut page, method, path, operation);
            }
        }
    }
    page.push_str("## Codes\n\n| status | code | meaning |\n|---|---|---|\n");
    for code in Code::ALL {
        row(&mut page, &[&code.status().to_string(), &format!("`{}`", code.name()), code.meaning()]);
    }
    Ok(page)
}

/// The OpenAPI document.
struct Reference(Value);

impl Reference {
    fn operation(&self, page: &mut String, method: &str, path: &str, operation: &Value) {
        let text = |field: &str| operation[field].as_str().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "## {} {path}\n", method.to_uppercase());
        let _ = writeln!(page, "{}.\n", text("summary").trim_end_matches('.'));
        if !text("description").is_empty() {
            let _ = writeln!(page, "{}\n", text("description"));
        }
        let asked: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
        if !asked.is_empty() {
            page.push_str("| asked for | in | is | |\n|---|---|---|---|\n");
            for field in asked {
                let name = format!("`{}`", field["name"].as_str().unwrap_or_default());
                let kind = self.kind(&field["schema"]);
                row(page, &[&name, field["in"].as_str().unwrap_or_default(), &kind, &self.meaning(field)]);
            }
            page.push('\n');
        }
        self.content(page, "body", &operation["requestBody"]["content"]);
        self.content(page, "answer", &operation["responses"]["200"]["content"]);
    }

    /// The fields of what is sent or answered, or the type of what is no JSON.
    fn content(&self, page: &mut String, what: &str, content: &Value) {
        let Some(content) = content.as_object() else { return };
        for (kind, content) in content {
            if kind != "application/json" {
                let _ = writeln!(page, "The {what} is `{kind}`.\n");
                continue;
            }
            let mut rows = Vec::new();
            self.fields(&content["schema"], "", &mut rows, 0);
            let _ = writeln!(page, "| {what} | is | |\n|---|---|---|");
            for (name, kind, meaning) in rows {
                row(page, &[&format!("`{name}`"), &kind, &meaning]);
            }
            page.push('\n');
        }
    }

    /// What a schema refers to.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|to| to.strip_prefix('#')) {
            Some(place) => self.0.pointer(place).unwrap_or(schema),
            None => schema,
        }
    }

    /// Every field within, named by the way to it.
    fn fields(&self, schema: &Value, to: &str, rows: &mut Vec<(String, String, String)>, depth: usize) {
        let schema = self.resolved(schema);
        if depth > MAX_DEPTH {
            return;
        }
        for part in ["allOf", "oneOf", "anyOf"].into_iter().filter_map(|way| schema[way].as_array()).flatten()
        {
            self.fields(part, to, rows, depth + 1);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let name = if to.is_empty() { name.clone() } else { format!("{to}.{name}") };
            rows.push((name.clone(), self.kind(field), self.meaning(field)));
            self.fields(field, &name, rows, depth + 1);
        }
        if schema["items"].is_object() {
            self.fields(&schema["items"], &format!("{to}[]"), rows, depth + 1);
        }
    }

    /// A type in words, with its bounds.
    fn kind(&self, schema: &Value) -> String {
        let schema = self.resolved(schema);
        let parts = ["oneOf", "anyOf"].into_iter().filter_map(|way| schema[way].as_array()).flatten();
        let parts: Vec<String> = parts.map(|part| self.kind(part)).collect();
        if !parts.is_empty() {
            return parts.join(" or ");
        }
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<String> =
                words.iter().map(|word| format!("`{}`", word.as_str().unwrap_or_default())).collect();
            return words.join(" or ");
        }
        let mut kind = match &schema["type"] {
            Value::String(kind) if kind == "array" => format!("list of {}", self.kind(&schema["items"])),
            Value::String(kind) => kind.clone(),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
            _ => "object".to_owned(),
        };
        let bounds =
            [("minimum", "from"), ("maximum", "to"), ("maxLength", "at most"), ("default", "by default")];
        for (bound, word) in bounds {
            // That a number is none below zero goes without saying.
            if let Some(value) = schema.get(bound).filter(|value| **value != 0) {
                let _ = write!(kind, ", {word} {value}");
            }
        }
        kind
    }

    /// What a field means: in its own words, or in those of its type.
    fn meaning(&self, field: &Value) -> String {
        let own = field["description"].as_str();
        let parts = ["oneOf", "anyOf"].into_iter().filter_map(|way| field[way].as_array()).flatten();
        let of_parts = || parts.clone().find_map(|part| part["description"].as_str());
        let meaning = own.or_else(of_parts).or_else(|| self.resolved(field)["description"].as_str());
        meaning.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}
