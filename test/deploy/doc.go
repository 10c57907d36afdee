// Package deploy holds the tests of what is in deploy/ and of the Dockerfile:
// that Compose and Kubernetes would accept the files, that what they embed is a
// valid configuration, and that they keep the rules of a hardened deployment. It
// is a module of its own, so that those schemas do not become dependencies of
// Culvert. It does not run containers.
package deploy
