//! Which Secret has the certificate of a host. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// Where certificates are: Secrets of the type `kubernetes.io/tls` in the namespace of the release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// For every host for which nothing else is said, default hosts above all.
    pub secret_name: String,
    /// For single hosts.
    pub per_host: BTreeMap<String, String>,
    /// For custom hosts, and for default hosts if there is no `secret_name`: `{host}` stands for the host, with `wildcard`
    /// for a `*`.
    pub secret_name_template: String,
}

/// What stands for the host in a template.
const HOST: &str = "{host}";

impl Tls {
    /// Reads a JSON object. Nothing at all is no TLS.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // By way of an object, or a list would do, too.
        let object = serde_json::from_str::<serde_json::Map<_, _>>(text);
        let tls = object.and_then(|object| serde_json::from_value::<Self>(object.into())).map_err(|error| {
            format!("not a JSON object with secretName, perHost and secretNameTemplate, each of them optional: {error}")
        })?;
        let template = &tls.secret_name_template;
        if !template.is_empty() && template.matches(HOST).count() != 1 {
            return Err(format!("secretNameTemplate `{template}` has to have {HOST} in it once, such as {HOST}-tls"));
        }
        Ok(tls)
    }

    /// The Secret for a host; `custom` if it is no default host.
    pub fn secret(&self, host: &str, custom: bool) -> Option<String> {
        let fixed = || Some(&self.secret_name).filter(|name| !name.is_empty()).cloned();
        let made = || {
            let template = Some(&self.secret_name_template).filter(|template| !template.is_empty())?;
            Some(template.replace(HOST, &host.replace('*', "wildcard")))
        };
        let own = self.per_host.get(host).cloned();
        if custom { own.or_else(made).or_else(fixed) } else { own.or_else(fixed).or_else(made) }
    }

    /// The hosts of each Secret.
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
    fn the_secret_of_a_host(#[case] tls: &str, #[case] host: &str, #[case] custom: bool, #[case] secret: Option<&str>) {
        assert_eq!(Tls::parse(tls).unwrap().secret(host, custom).as_deref(), secret);
    }

    #[rstest]
    #[case("[]", "JSON object")]
    #[case(r#"{"secret": "w"}"#, "unknown field")]
    #[case(r#"{"secretNameTemplate": "tls"}"#, "{host}")]
    fn what_is_none(#[case] text: &str, #[case] wrong: &str) {
        let error = Tls::parse(text).unwrap_err();
        assert!(error.contains(wrong), "{error}");
    }
}
