// Package clients has no code: its tests are the examples of package culvert with
// gRPC and with PostgreSQL. They are a module of their own, so that who imports culvert
// does not get these libraries along.
package clients
