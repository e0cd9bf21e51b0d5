//! Null as the value of an optional field: it means that the field is not set, as in the types of Kubernetes.
//!
//! `kubectl apply` on the client side drops nulls. Server-side apply, Helm, Flux and Argo CD send them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};

/// Accepts null for every field of `spec` that is not required.
pub(super) fn accept_null(crd: &mut CustomResourceDefinition) {
    let schemas =
        crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for schema in schemas {
        if let Some(spec) = schema.properties.as_mut().and_then(|properties| properties.get_mut("spec")) {
            in_schema(spec);
        }
    }
}

fn one_of(values: &[JSON]) -> ValidationRule {
    let words: Vec<_> = values.iter().filter_map(|JSON(value)| value.as_str()).collect();
    let list: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    ValidationRule {
        rule: format!("self in [{}]", list.join(", ")),
        message: Some(format!("must be one of {}", words.join(", "))),
        ..ValidationRule::default()
    }
}

fn in_schema(schema: &mut JSONSchemaProps) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, property) in schema.properties.iter_mut().flatten() {
        if !required.contains(name) {
            property.nullable = Some(true);
            // The API server rejects null for an enum, even if the enum lists it. It does not apply rules to null.
            if let Some(values) = property.enum_.take() {
                property.x_kubernetes_validations.get_or_insert_default().push(one_of(&values));
            }
        }
        in_schema(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        in_schema(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        in_schema(values);
    }
}
