package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	versionHeader = "x-route-version" // the route configuration's generation, in every answer
	brokenCluster = "broken"          // the name of the deliberately bad resource
)

// world is what the management server means the proxy to do. A step changes it and touches the
// resource types concerned; each type has a version of its own, so that an unchanged type is not sent.
type world struct {
	mode     mode
	origins  []origin
	port     uint32           // the listener's, the same through all snapshots
	clusters map[string][]int // name -> origins behind it
	probes   []string         // clusters that have a /probe/NAME/ route, present or not
	active   string           // the cluster of every other path
	renames  int              // the route configuration's name changes with it
	listener int              // the listener's generation, shown in the `server` header
	broken   bool             // whether the bad cluster is in the set
	versions map[resource.Type]int
}

func newWorld(m mode, origins []origin, port uint32) *world {
	w := &world{
		mode: m, origins: origins, port: port, active: "left",
		clusters: map[string][]int{"left": {0}, "right": {1}},
		probes:   []string{"left", "right"},
		versions: map[resource.Type]int{},
	}
	w.touch(resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType)
	return w
}

func (w *world) touch(types ...resource.Type) {
	for _, t := range types {
		w.versions[t]++
	}
}

func (w *world) version(t resource.Type) string { return fmt.Sprintf("v%d", w.versions[t]) }

// serverName is the `server` header of answers made under the present listener.
func (w *world) serverName() string { return fmt.Sprintf("generation-%d", w.listener) }

// behind names the origins of a cluster: none when it is not in the set.
func (w *world) behind(name string) map[string]bool {
	names := map[string]bool{}
	for _, index := range w.clusters[name] {
		names[w.origins[index].name] = true
	}
	return names
}

// change applies a step. It returns what may answer now and the cluster whose probe shows the effect.
func (w *world) change(s step) (allowance, string) {
	before := world{origins: w.origins, clusters: maps.Clone(w.clusters), active: w.active}
	touched := s.apply(w)
	w.touch(s.types...)
	legal := allowance{here: w.behind(w.active), underway: map[string]bool{}}
	for _, mixed := range []map[string]bool{
		legal.here, before.behind(before.active), before.behind(w.active), w.behind(before.active),
	} {
		maps.Copy(legal.underway, mixed)
	}
	return legal, touched
}

// swap gives a cluster the other origin.
func (w *world) swap(name string) { w.clusters[name] = []int{1 - w.clusters[name][0]} }

// other is the standing cluster that is not active.
func (w *world) other() string {
	if w.active == "left" {
		return "right"
	}
	return "left"
}

// snapshot renders the world for go-control-plane's cache.
func (w *world) snapshot() (*cache.Snapshot, error) {
	clusters, endpoints := []types.Resource{}, []types.Resource{}
	for _, name := range slices.Sorted(maps.Keys(w.clusters)) {
		clusters = append(clusters, w.cluster(name))
		endpoints = append(endpoints, w.assignment(name))
	}
	if w.broken {
		clusters = append(clusters, &cluster.Cluster{
			Name:                 brokenCluster,
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
			ConnectTimeout:       durationpb.New(-time.Second),
		})
	}
	gateway, err := w.gateway()
	if err != nil {
		return nil, err
	}
	s := &cache.Snapshot{}
	s.Resources[types.Cluster] = cache.NewResources(w.version(resource.ClusterType), clusters)
	s.Resources[types.Endpoint] = cache.NewResources(w.version(resource.EndpointType), endpoints)
	s.Resources[types.Listener] = cache.NewResources(w.version(resource.ListenerType), []types.Resource{gateway})
	s.Resources[types.Route] = cache.NewResources(w.version(resource.RouteType), []types.Resource{w.routes()})
	return s, s.Consistent()
}

func (w *world) cluster(name string) *cluster.Cluster {
	return &cluster.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(2 * time.Second),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: w.mode.source()},
	}
}

func (w *world) assignment(name string) *endpoint.ClusterLoadAssignment {
	hosts := []*endpoint.LbEndpoint{}
	for _, index := range w.clusters[name] {
		hosts = append(hosts, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{
			Endpoint: &endpoint.Endpoint{Address: loopback(w.origins[index].port)},
		}})
	}
	return &endpoint.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints:   []*endpoint.LocalityLbEndpoints{{LbEndpoints: hosts}},
	}
}

func (w *world) routeName() string { return fmt.Sprintf("routes-%d", w.renames) }

func (w *world) routes() *route.RouteConfiguration {
	routes := []*route.Route{}
	for _, name := range w.probes {
		routes = append(routes, forward(probePath(name), name))
	}
	routes = append(routes, forward("/", w.active))
	return &route.RouteConfiguration{
		Name:         w.routeName(),
		VirtualHosts: []*route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}},
		ResponseHeadersToAdd: []*core.HeaderValueOption{{
			Header: &core.HeaderValue{Key: versionHeader, Value: w.version(resource.RouteType)},
		}},
	}
}

func (w *world) gateway() (*listener.Listener, error) {
	routing, err := anypb.New(&router.Router{})
	if err != nil {
		return nil, err
	}
	manager, err := anypb.New(&hcm.HttpConnectionManager{
		StatPrefix: fmt.Sprintf("gateway_%d", w.listener),
		ServerName: w.serverName(),
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
			ConfigSource: w.mode.source(), RouteConfigName: w.routeName(),
		}},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: routing},
		}},
	})
	if err != nil {
		return nil, err
	}
	return &listener.Listener{
		Name:    "gateway",
		Address: loopback(w.port),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listener.Filter_TypedConfig{TypedConfig: manager},
		}}}},
	}, nil
}

func probePath(name string) string { return "/probe/" + name + "/" }

func forward(prefix, name string) *route.Route {
	return &route.Route{
		Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: prefix}},
		Action: &route.Route_Route{Route: &route.RouteAction{
			ClusterSpecifier: &route.RouteAction_Cluster{Cluster: name},
		}},
	}
}

func loopback(port uint32) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       "127.0.0.1",
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: port},
	}}}
}

// mode is how the proxy subscribes: over one aggregated stream or one a type, whole states or deltas.
type mode struct{ aggregated, delta bool }

func (m mode) String() string {
	name := map[bool]string{true: "ads", false: "per-type"}[m.aggregated]
	return name + "/" + map[bool]string{true: "delta", false: "sotw"}[m.delta]
}

// api is the `api_type` of the bootstrap's sources.
func (m mode) api() core.ApiConfigSource_ApiType {
	if m.delta {
		return core.ApiConfigSource_DELTA_GRPC
	}
	return core.ApiConfigSource_GRPC
}

// server is the source that names the management server itself.
func (m mode) server() *core.ApiConfigSource {
	return &core.ApiConfigSource{
		ApiType:             m.api(),
		TransportApiVersion: core.ApiVersion_V3,
		GrpcServices: []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: managementCluster},
		}}},
	}
}

// source is where a resource says that those it refers to come from.
func (m mode) source() *core.ConfigSource {
	s := &core.ConfigSource{ResourceApiVersion: core.ApiVersion_V3}
	if m.aggregated {
		s.ConfigSourceSpecifier = &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}
	} else {
		s.ConfigSourceSpecifier = &core.ConfigSource_ApiConfigSource{
			ApiConfigSource: proto.Clone(m.server()).(*core.ApiConfigSource),
		}
	}
	return s
}
