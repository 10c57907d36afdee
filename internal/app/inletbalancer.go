package app

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/culvert-net/culvert/pkg/channel"
	"github.com/culvert-net/culvert/pkg/code"
	"github.com/culvert-net/culvert/pkg/relay"
	"github.com/culvert-net/culvert/pkg/route"
)

// newBalancer returns what carries clients to any outlet that proves to offer a
// service.
func (in *Inlet) newBalancer(service string, routes []route.Route) *balancer {
	b := newBalancer(service, routes, in.local.Instance(), func(ctx context.Context, r route.Route, service string) ([]relay.Replica, error) {
		return in.find(ctx, r, service)
	})
	told := new(quiet) // of all its links: what relays list can be anything
	b.newLink = func(k replicaKey) *link { return in.newReplicaLink(b, k, told).link }
	fields := func(k replicaKey, more ...zap.Field) []zap.Field {
		return append([]zap.Field{zap.String("service", service), zap.Stringer("peer", k.outlet), zap.Stringer("instance", k.instance)}, more...)
	}
	b.trace = balancerTrace{
		found: func(k replicaKey) { in.log.Info("replica found", fields(k)...) },
		lost: func(k replicaKey, why string) {
			in.log.Info("replica lost, it takes no new streams", fields(k, zap.String("reason", why))...)
		},
		aside: func(k replicaKey, err error) {
			in.quietly(told, zapcore.WarnLevel, "replica is left alone for a while", err.Error(),
				fields(k, zap.String("code", label(err, code.AttributeMissing)), zap.String("reason", err.Error()))...)
		},
		asked: func(r route.Route, err error) {
			if err != nil {
				in.quietly(told, zapcore.WarnLevel, "relay does not say who offers the service, trying on", r.String()+err.Error(),
					zap.String("service", service), zap.Stringer("route", r), zap.String("code", label(err, code.Unreachable)), zap.String("reason", err.Error()))
			}
		},
	}
	return b
}

// newReplicaLink returns a link to one process of an outlet's, which has to prove in
// each handshake that it offers the balancer's service.
func (in *Inlet) newReplicaLink(b *balancer, k replicaKey, told *quiet) *inletLink {
	l := in.newLink(k.outlet, b.discovery.routes())
	l.told = told
	l.instance = &k.instance
	l.service = b.service
	l.admit = func(p channel.Peer) error { return in.trust.offers(p, b.service) }
	l.caller.Instance = l.instance
	l.caller.Settings.Handshake.Admit = l.admit
	return l
}

// replicaCounts is the collector of how many replicas an inlet's services have.
type replicaCounts struct{ in *Inlet }

var replicaCount = prometheus.NewDesc("culvert_inlet_replicas",
	"Outlets that a service by name can be had from: known, as relays list them; in_use, those that have proven it and can be reached.", []string{"service", "state"}, nil)

// Describe implements prometheus.Collector.
func (replicaCounts) Describe(ch chan<- *prometheus.Desc) { ch <- replicaCount }

// Collect implements prometheus.Collector. Of two balancers of one service the larger
// numbers count.
func (c replicaCounts) Collect(ch chan<- prometheus.Metric) {
	most := map[[2]string]int{}
	for _, u := range c.in.wanted() {
		b, ok := u.(*balancer)
		if !ok {
			continue
		}
		known, inUse := b.count()
		for state, n := range map[string]int{"known": known, "in_use": inUse} {
			key := [2]string{b.service, state}
			most[key] = max(most[key], n)
		}
	}
	for key, n := range most {
		ch <- prometheus.MustNewConstMetric(replicaCount, prometheus.GaugeValue, float64(n), key[0], key[1])
	}
}
