// Package e2ekube holds the tests of deploy/k8s on a real Kubernetes: they apply
// each overlay as it is, put load on it, and do to it what happens in a cluster's
// life. They run with the build tag e2ekube, on the cluster that KUBECONFIG names;
// images are brought there by the command in CULVERT_E2E_LOAD. They replace the
// image of Postgres, which has to come from a registry, by a stand-in.
package e2ekube
