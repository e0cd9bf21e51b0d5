//! The small part that the operator reads of the objects it makes. Caches hold these and not the whole objects.
//!
//! What is only compared, and seldom, is kept as JSON text: a tenth of the size of the typed structs.

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

/// A JSON value, kept as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactJson(Box<str>);

impl CompactJson {
    /// The value. What was read from JSON is JSON, so it is never anything else than what it was made of.
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

/// A revision: what the user wrote about the container, and the pod template that was made of it.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = ControllerRevision)]
pub struct RevisionObject {
    /// Name, labels, owner.
    pub metadata: ObjectMeta,
    /// Its number, from 1.
    #[serde(default)]
    pub revision: i64,
    /// `{"container": …, "template": …}`.
    #[serde(default)]
    pub data: CompactJson,
}

impl RevisionObject {
    /// Hash of what the user wrote about the container.
    pub fn hash(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(CONTAINER_HASH_LABEL).map(String::as_str)
    }
}

/// The Deployment of a revision.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = Deployment)]
pub struct DeploymentObject {
    /// Name, labels, owner.
    pub metadata: ObjectMeta,
    /// How many pods, and of what.
    #[serde(default)]
    pub spec: DeploymentSpec,
    /// How many there are.
    #[serde(default)]
    pub status: DeploymentStatus,
}

/// See [`DeploymentObject`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Pods asked for.
    #[serde(default)]
    pub replicas: i32,
    /// The rest of the spec.
    #[serde(flatten)]
    pub rest: CompactJson,
}

/// See [`DeploymentObject`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Pods that there are.
    pub replicas: i32,
    /// Pods that the kubelet found ready.
    pub ready_replicas: i32,
    /// `ReplicaFailure` is the one of interest.
    pub conditions: Vec<ObjectCondition>,
}

impl DeploymentObject {
    /// Pods asked for.
    pub fn desired(&self) -> u32 {
        u32::try_from(self.spec.replicas).unwrap_or(0)
    }

    /// Pods that the kubelet found ready.
    pub fn ready(&self) -> u32 {
        u32::try_from(self.status.ready_replicas).unwrap_or(0)
    }
}

/// The Service by which pods of the cluster call a function.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = Service)]
pub struct ServiceObject {
    /// Name, labels, owner.
    pub metadata: ObjectMeta,
    /// Compared, never read.
    #[serde(default)]
    pub spec: CompactJson,
}

/// The controller among the owners.
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether the Function with this `uid` is the controller.
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
        Some(FunctionKey::new(self.namespace()?, self.name_any()))
    }

    fn prune(&mut self) {
        self.meta_mut().managed_fields = None;
        // The largest is kubectl's copy of the whole object.
        self.meta_mut().annotations = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_keeps_its_spec_beside_the_count() {
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
    fn a_revision_keeps_its_data() {
        let revision: RevisionObject = serde_json::from_value(
            json!({"metadata": {"name": "r"}, "revision": 7, "data": {"container": {"image": "i"}}}),
        )
        .unwrap();
        assert_eq!((revision.revision, revision.data.value()), (7, json!({"container": {"image": "i"}})));
    }
}
