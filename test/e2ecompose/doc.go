// Package e2ecompose holds the tests of the demos in deploy/compose: each is run
// on a real Docker engine as its README page says. No registry is needed: what
// the databases' images are made of are Debian packages that are installed, by
// make-images. The tests carry the build tag e2e and run by make e2e-compose, as
// root on Linux. What can be told without an engine is tested in test/deploy, what
// the programs do in test/e2e.
package e2ecompose
