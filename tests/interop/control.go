package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
)

// control is the management server: go-control-plane's snapshot cache behind its public services,
// with callbacks that note what the proxy said of each response.
type control struct {
	port  uint32
	cache cache.SnapshotCache
	stop  func()

	mu    sync.Mutex
	sent  map[delivery]*verdict // every response that left
	acked map[string]bool       // "type version"
	nacks []nack                // one of each kind: go-control-plane resends at once what was refused
}

// delivery identifies one response: nonces count from 1 on each stream, streams of each variant.
type delivery struct {
	delta  bool
	stream int64
	nonce  string
}

type verdict struct {
	url, version string
	answered     bool
}

type nack struct{ url, version, text string }

func (n nack) String() string {
	return fmt.Sprintf("%s %s: %.400q", n.url[strings.LastIndex(n.url, ".")+1:], n.version, n.text)
}

// startControl serves ADS and the per-type services on a free loopback port. In aggregated mode the
// cache holds EDS and RDS back until every name is asked for and sends types in order.
func startControl(m mode) (*control, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &control{
		port:  portOf(socket),
		cache: cache.NewSnapshotCache(m.aggregated, cache.IDHash{}, nil),
		sent:  map[delivery]*verdict{},
		acked: map[string]bool{},
	}
	xds := server.NewServer(ctx, c.cache, server.CallbackFuncs{
		StreamClosedFunc:        func(id int64, _ *core.Node) { c.closed(false, id) },
		DeltaStreamClosedFunc:   func(id int64, _ *core.Node) { c.closed(true, id) },
		StreamRequestFunc:       c.onRequest,
		StreamResponseFunc:      c.onResponse,
		StreamDeltaRequestFunc:  c.onDeltaRequest,
		StreamDeltaResponseFunc: c.onDeltaResponse,
	})
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, xds)
	clusterservice.RegisterClusterDiscoveryServiceServer(g, xds)
	endpointservice.RegisterEndpointDiscoveryServiceServer(g, xds)
	listenerservice.RegisterListenerDiscoveryServiceServer(g, xds)
	routeservice.RegisterRouteDiscoveryServiceServer(g, xds)
	c.stop = func() { cancel(); g.Stop() }
	go func() { _ = g.Serve(socket) }()
	return c, nil
}

func (c *control) publish(w *world) error {
	s, err := w.snapshot()
	if err != nil {
		return err
	}
	return c.cache.SetSnapshot(context.Background(), nodeID, s)
}

func (c *control) onResponse(_ context.Context, stream int64, _ *discovery.DiscoveryRequest, r *discovery.DiscoveryResponse) {
	c.note(delivery{false, stream, r.GetNonce()}, r.GetTypeUrl(), r.GetVersionInfo())
}

func (c *control) onDeltaResponse(stream int64, _ *discovery.DeltaDiscoveryRequest, r *discovery.DeltaDiscoveryResponse) {
	c.note(delivery{true, stream, r.GetNonce()}, r.GetTypeUrl(), r.GetSystemVersionInfo())
}

func (c *control) note(d delivery, url, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[d] = &verdict{url: url, version: version}
}

// closed forgets what was sent on a stream: a proxy with one stream for each cluster's endpoints closes
// it with the cluster, and then owes no answer.
func (c *control) closed(delta bool, stream int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.sent, func(d delivery, _ *verdict) bool { return d.delta == delta && d.stream == stream })
}

func (c *control) onRequest(stream int64, r *discovery.DiscoveryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, known := c.sent[delivery{false, stream, r.GetResponseNonce()}]
	switch {
	case !known:
	case r.GetErrorDetail() != nil:
		v.answered = true
		c.refused(nack{v.url, v.version, r.GetErrorDetail().GetMessage()})
	case r.GetVersionInfo() == v.version:
		v.answered = true
		c.acked[v.url+" "+v.version] = true
	}
	return nil
}

func (c *control) onDeltaRequest(stream int64, r *discovery.DeltaDiscoveryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, known := c.sent[delivery{true, stream, r.GetResponseNonce()}]
	switch {
	case !known:
	case r.GetErrorDetail() != nil:
		v.answered = true
		c.refused(nack{v.url, v.version, r.GetErrorDetail().GetMessage()})
	default:
		v.answered = true
		c.acked[v.url+" "+v.version] = true
	}
	return nil
}

func (c *control) refused(n nack) {
	if !slices.Contains(c.nacks, n) {
		c.nacks = append(c.nacks, n)
	}
}

// waitAcked waits until the present versions of these types are ACKed.
func (c *control) waitAcked(w *world, types []resource.Type, limit time.Duration) error {
	missing := func() []string {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.DeleteFunc(slices.Clone(types), func(t string) bool { return c.acked[t+" "+w.version(t)] })
	}
	if eventually(limit, func() bool { return len(missing()) == 0 }) {
		return nil
	}
	return fmt.Errorf("no ACK within %v for %s; NACKs so far: %v", limit, strings.Join(missing(), ", "), c.refusals())
}

// waitAnswered waits until no response is left without an ACK or a NACK.
func (c *control) waitAnswered(limit time.Duration) error {
	open := func() (found []verdict) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for v := range maps.Values(c.sent) {
			if !v.answered {
				found = append(found, *v)
			}
		}
		return found
	}
	if eventually(limit, func() bool { return len(open()) == 0 }) {
		return nil
	}
	return fmt.Errorf("responses never answered: %v", open())
}

func (c *control) refusals() []nack {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nacks)
}

// eventually polls until holds is true or the limit has passed; it reports which.
func eventually(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(500 * time.Microsecond) {
		if holds() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
