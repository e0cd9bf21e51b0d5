//! TLS Secret of each host. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// TLS Secrets (type `kubernetes.io/tls`) in the namespace of the release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// Default Secret, mostly for default hosts.
    pub secret_name: String,
    /// Secrets of individual hosts.
    pub per_host: BTreeMap<String, String>,
    /// Template of the Secret for custom hosts, and for default hosts without `secret_name`. `{host}` stands for the
    /// host, with `wildcard` instead of `*`.
    pub secret_name_template: String,
}

/// Placeholder for the host in a template.
const HOST: &str = "{host}";

impl Tls {
    /// Parses a JSON object. An empty text disables TLS.
    ///
    /// # Errors
    ///
    /// If the text is not such an object.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // Parses an object first, because serde would accept a list as well.
        let object = serde_json::from_str::<serde_json::Map<_, _>>(text);
        let tls = object.and_then(|object| serde_json::from_value::<Self>(object.into())).map_err(|error| {
            format!("not a JSON object with the optional fields secretName, perHost and secretNameTemplate: {error}")
        })?;
        let template = &tls.secret_name_template;
        if !template.is_empty() && template.matches(HOST).count() != 1 {
            return Err(format!(
                "secretNameTemplate `{template}` must contain {HOST} exactly once, such as {HOST}-tls"
            ));
        }
        Ok(tls)
    }

    /// Returns the Secret of a host. `custom` is false for a default host.
    pub fn secret(&self, host: &str, custom: bool) -> Option<String> {
        let fixed = || Some(&self.secret_name).filter(|name| !name.is_empty()).cloned();
        let made = || {
            let template = Some(&self.secret_name_template).filter(|template| !template.is_empty())?;
            Some(template.replace(HOST, &host.replace('*', "wildcard")))
        };
        let own = self.per_host.get(host).cloned();
        if custom { own.or_else(made).or_else(fixed) } else { own.or_else(fixed).or_else(made) }
    }

    /// Groups hosts by their Secret.
    pub fn group<'a>(&self, hosts: impl Iterator<Item = (&'a str, bool)>) -> BTreeMap<String, BTreeSet<&'a str>> {
        let mut secrets: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (host, custom) in hosts {
            if let Some(secret) = self.secret(host, custom) {
                secrets.entry(secret).or_default().insert(host);
            }
        }
        secrets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "*.app.example.com", false, None)]
    #[case(r#"{"secretName": "w"}"#, "*.app.example.com", false, Some("w"))]
    #[case(r#"{"secretName": "w"}"#, "a.example.org", true, Some("w"))]
    #[case(
        r#"{"secretName": "w", "secretNameTemplate": "{host}-tls"}"#,
        "a.example.org",
        true,
        Some("a.example.org-tls")
    )]
    #[case(r#"{"secretName": "w", "secretNameTemplate": "{host}-tls"}"#, "*.a.example.com", false, Some("w"))]
    #[case(r#"{"secretNameTemplate": "{host}-tls"}"#, "*.a.example.com", false, Some("wildcard.a.example.com-tls"))]
    #[case(r#"{"secretName": "w", "perHost": {"a.example.org": "own"}}"#, "a.example.org", true, Some("own"))]
    #[case(r#"{"perHost": {"a.example.org": "own"}}"#, "b.example.org", true, None)]
    fn secret_of_a_host(#[case] tls: &str, #[case] host: &str, #[case] custom: bool, #[case] secret: Option<&str>) {
        assert_eq!(Tls::parse(tls).unwrap().secret(host, custom).as_deref(), secret);
    }

    #[rstest]
    #[case("[]", "JSON object")]
    #[case(r#"{"secret": "w"}"#, "unknown field")]
    #[case(r#"{"secretNameTemplate": "tls"}"#, "{host}")]
    fn rejects_invalid_settings(#[case] text: &str, #[case] wrong: &str) {
        let error = Tls::parse(text).unwrap_err();
        assert!(error.contains(wrong), "{error}");
    }
}
