// Package e2e holds the end-to-end tests: the built programs, real servers and
// their own clients, joined over loopback as a person would join them. The tests
// carry the build tag e2e; with -short they are the set that make test runs,
// without it the full matrix of make e2e. What one package promises is tested
// beside that package, not here.
package e2e
