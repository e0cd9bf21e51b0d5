//! Child objects of a Function, reduced to the fields that the operator reads. The caches hold these instead of full
//! objects.
//!
//! Fields that are only compared, and seldom, are kept as JSON text, which takes a tenth of the memory of typed
//! structs.

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::Service,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt as _, core::DeserializeGuard};
use rouse_crds::{
    Function,
    names::{CONFIG_ANNOTATION, CONTAINER_HASH_LABEL, FUNCTION_LABEL},
    pod::{FunctionPod, ObjectCondition},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{cache::Cached, key::FunctionKey};

/// A JSON value, stored as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactJson(Box<str>);

impl CompactJson {
    /// Parses the value. The text comes from a JSON value, so parsing cannot fail.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&Value> for CompactJson {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl<'de> Deserialize<'de> for CompactJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

/// ControllerRevision of a revision: the container fields of the spec, and the pod template that was built from them.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = ControllerRevision)]
pub struct RevisionObject {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Number, from 1.
    #[serde(default)]
    pub revision: i64,
    /// `{"container": …, "template": …}`.
    #[serde(default)]
    pub data: CompactJson,
}

impl RevisionObject {
    /// Returns the hash of the container fields.
    pub fn hash(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(CONTAINER_HASH_LABEL).map(String::as_str)
    }
}

/// Deployment of a revision.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = Deployment)]
pub struct DeploymentObject {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    #[serde(default)]
    pub spec: DeploymentSpec,
    /// Status.
    #[serde(default)]
    pub status: DeploymentStatus,
}

/// See [`DeploymentObject`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Desired number of pods.
    #[serde(default)]
    pub replicas: i32,
    /// Other fields of the spec.
    #[serde(flatten)]
    pub rest: CompactJson,
}

/// See [`DeploymentObject`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Number of pods.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready_replicas: i32,
    /// Conditions; only `ReplicaFailure` is read.
    pub conditions: Vec<ObjectCondition>,
}

impl DeploymentObject {
    /// Returns the desired number of pods.
    pub fn desired(&self) -> u32 {
        u32::try_from(self.spec.replicas).unwrap_or(0)
    }

    /// Returns the number of ready pods.
    pub fn ready(&self) -> u32 {
        u32::try_from(self.status.ready_replicas).unwrap_or(0)
    }
}

/// Service of a Function, for clients inside the cluster.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = Service)]
pub struct ServiceObject {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec; only compared.
    #[serde(default)]
    pub spec: CompactJson,
}

/// Returns the owner that is the controller.
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Returns whether the Function with this `uid` is the controller.
pub fn owned_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller(metadata).is_some_and(|owner| owner.uid == uid)
}

fn by_label<K: Resource>(object: &K) -> Option<FunctionKey> {
    let name = object.labels().get(FUNCTION_LABEL)?;
    Some(FunctionKey::new(object.namespace()?, name))
}

macro_rules! child {
    ($kind:ty) => {
        impl Cached for $kind {
            fn function_key(&self) -> Option<FunctionKey> {
                by_label(self)
            }

            fn prune(&mut self) {
                self.metadata.managed_fields = None;
                self.metadata.annotations = None;
            }
        }
    };
}

impl Cached for RevisionObject {
    fn function_key(&self) -> Option<FunctionKey> {
        by_label(self)
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        let mut annotations = self.metadata.annotations.take();
        if let Some(annotations) = &mut annotations {
            annotations.retain(|name, _| name == CONFIG_ANNOTATION);
        }
        self.metadata.annotations = annotations.filter(|annotations| !annotations.is_empty());
    }
}

child!(DeploymentObject);
child!(ServiceObject);

impl Cached for FunctionPod {
    fn function_key(&self) -> Option<FunctionKey> {
        by_label(self)
    }

    fn prune(&mut self) {
        rouse_crds::pod::prune(self);
    }
}

impl Cached for DeserializeGuard<Function> {
    fn function_key(&self) -> Option<FunctionKey> {
        FunctionKey::of(self)
    }

    fn prune(&mut self) {
        self.meta_mut().managed_fields = None;
        // The largest one is kubectl's copy of the object.
        self.meta_mut().annotations = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parses_a_deployment() {
        let deployment: DeploymentObject = serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {}}},
            "status": {"readyReplicas": 2, "conditions": [{"type": "Available", "status": "True"}]},
        }))
        .unwrap();
        assert_eq!((deployment.desired(), deployment.ready()), (3, 2));
        let rest = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {}}});
        assert_eq!(deployment.spec.rest.value(), rest);
    }

    #[test]
    fn parses_a_revision() {
        let revision: RevisionObject = serde_json::from_value(
            json!({"metadata": {"name": "r"}, "revision": 7, "data": {"container": {"image": "i"}}}),
        )
        .unwrap();
        assert_eq!((revision.revision, revision.data.value()), (7, json!({"container": {"image": "i"}})));
    }
}
