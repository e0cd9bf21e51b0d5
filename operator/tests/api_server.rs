//! The operator against a real kube-apiserver and etcd.
