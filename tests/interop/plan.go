package main

import (
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// step is one change of the world. It names the types it touches, and apply returns the cluster whose
// probe shows the effect.
type step struct {
	name    string
	types   []resource.Type
	removes bool
	apply   func(*world) string
}

const guest = "guest" // the cluster that comes and goes

// plan is repeated until enough snapshots are out. Each snapshot alone is make before break, as a careful
// control plane would have it: a route moves to a cluster that already answers, and a cluster goes when
// no route of a client uses it. What is left to the proxy is to lose nothing on the way.
var plan = []step{
	{"routes flip", []resource.Type{resource.RouteType}, false, func(w *world) string {
		w.active = w.other()
		w.probes = []string{"left", "right"}
		return w.active
	}},
	{"endpoints of the active cluster change", []resource.Type{resource.EndpointType}, false, func(w *world) string {
		w.swap(w.active)
		return w.active
	}},
	{"a cluster comes", []resource.Type{resource.ClusterType, resource.EndpointType, resource.RouteType}, false, func(w *world) string {
		w.clusters[guest] = slices.Clone(w.clusters[w.other()])
		w.probes = []string{"left", "right", guest}
		return guest
	}},
	{"routes move to the new cluster", []resource.Type{resource.RouteType}, false, func(w *world) string {
		w.active = guest
		return guest
	}},
	{"endpoints grow", []resource.Type{resource.EndpointType}, false, func(w *world) string {
		w.clusters[guest] = []int{0, 1}
		return guest
	}},
	{"the listener changes", []resource.Type{resource.ListenerType}, false, func(w *world) string {
		w.listener++
		return guest
	}},
	{"routes leave the new cluster", []resource.Type{resource.RouteType}, false, func(w *world) string {
		w.active = "right"
		return w.active
	}},
	{"the cluster goes", []resource.Type{resource.ClusterType, resource.EndpointType}, true, func(w *world) string {
		delete(w.clusters, guest)
		return guest
	}},
	{"the route configuration's name changes", []resource.Type{resource.ListenerType, resource.RouteType}, false, func(w *world) string {
		w.renames++
		w.listener++
		w.active = w.other()
		return w.active
	}},
	{"routes and endpoints change together", []resource.Type{resource.EndpointType, resource.RouteType}, false, func(w *world) string {
		w.swap(w.active)
		w.active = w.other()
		return w.active
	}},
}
