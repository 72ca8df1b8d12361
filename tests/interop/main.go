// Command interop drives a proxy with go-control-plane's snapshot cache, over every variant of the xDS
// transport protocol, while clients send requests: no request may fail, every snapshot must be ACKed and
// its effect must show in traffic, and a bad snapshot must be refused by name with the good state kept.
//
//	interop -proxy target/release/nuncio
//	interop -proxy envoy -extra-args "--use-dynamic-base-id --drain-strategy immediate" -nack-names duration
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

var (
	binary    = flag.String("proxy", "", "the proxy to drive: its `path`")
	extra     = flag.String("extra-args", "", "more arguments for the proxy, separated by spaces")
	only      = flag.String("only", "", "run this mode alone: ads/sotw, ads/delta, per-type/sotw or per-type/delta")
	snapshots = flag.Int("snapshots", 100, "good snapshots a mode")
	clients   = flag.Int("clients", 8, "keep-alive clients")
	names     = flag.String("nack-names", brokenCluster+",connect_timeout", "what the NACK of the bad snapshot must name")
	limit     = flag.Duration("limit", 5*time.Second, "how long an ACK, and then an effect, may take")
)

func main() {
	// The proxy is told to die with the thread that started it: this one.
	runtime.LockOSThread()
	flag.Parse()
	if *binary == "" {
		flag.Usage()
		os.Exit(2)
	}
	passed := true
	for _, m := range []mode{{true, false}, {true, true}, {false, false}, {false, true}} {
		if *only != "" && *only != m.String() {
			continue
		}
		r := &run{mode: m}
		if err := r.all(); err != nil {
			fmt.Printf("%-14s FAILED: %v\n", m, err)
			passed = false
			continue
		}
		fmt.Printf("%-14s ok: %s\n", m, r.summary())
	}
	if !passed {
		os.Exit(1)
	}
}

// run is one mode from start to end.
type run struct {
	mode    mode
	world   *world
	control *control
	proxy   *proxy
	traffic traffic
	probe   *http1
	acks    []time.Duration
	effects []time.Duration
	nacks   int
	total   int
}

func (r *run) all() (err error) {
	dir, err := os.MkdirTemp("", "nuncio-interop-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	origins := make([]origin, 2)
	for i, name := range []string{"one", "two"} {
		if origins[i], err = startOrigin(name); err != nil {
			return err
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	if r.control, err = startControl(r.mode); err != nil {
		return err
	}
	defer r.control.stop()
	r.world = newWorld(r.mode, origins, port)
	r.traffic.publish(allowance{here: r.world.behind(r.world.active)})
	if err := r.control.publish(r.world); err != nil {
		return err
	}
	if r.proxy, err = startProxy(r.mode, *binary, strings.Fields(*extra), dir, r.control.port); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.proxy.stop()) }()

	authority := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	r.probe = &http1{authority: authority}
	defer r.probe.close()
	if err := r.effect("left"); err != nil {
		return fmt.Errorf("the first snapshot: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.traffic.start(ctx, *clients, authority)
	err = r.steps()
	cancel()
	r.traffic.clients.Wait()
	total, failures := r.traffic.failed()
	r.total = total
	if len(failures) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d requests failed, first:\n  %s",
			len(failures), total, strings.Join(failures[:min(5, len(failures))], "\n  ")))
	}
	if err != nil {
		return fmt.Errorf("%w\nthe proxy's log ends:\n%s", err, r.proxy.tail())
	}
	return nil
}

func (r *run) steps() error {
	for n := range *snapshots {
		s := plan[n%len(plan)]
		if err := r.step(s); err != nil {
			return fmt.Errorf("snapshot %d (%s): %w", n+1, s.name, err)
		}
		if n+1 == *snapshots/2 {
			if err := r.refuse(); err != nil {
				return fmt.Errorf("the bad snapshot: %w", err)
			}
		}
	}
	if err := r.control.waitAnswered(*limit); err != nil {
		return err
	}
	for _, n := range r.control.refusals()[r.nacks:] {
		return fmt.Errorf("a good snapshot was refused: %v", n)
	}
	return nil
}

// step publishes one change and waits for its ACKs and for its effect: on a probe of the cluster
// concerned, then on every client.
func (r *run) step(s step) error {
	legal, touched := r.world.change(s)
	begin := time.Now()
	r.traffic.publish(legal)
	if err := r.control.publish(r.world); err != nil {
		return err
	}
	// Endpoints of a removed cluster may be unsubscribed before they would be answered.
	must := s.types
	if s.removes {
		must = slices.DeleteFunc(slices.Clone(must), func(t string) bool { return t == resource.EndpointType })
	}
	if err := r.control.waitAcked(r.world, must, *limit); err != nil {
		return err
	}
	r.acks = append(r.acks, time.Since(begin))
	if err := r.effect(touched); err != nil {
		return err
	}
	routes, gateway := r.world.version(resource.RouteType), r.world.serverName()
	if err := r.traffic.settle(*limit, func(a answer) bool {
		return a.routes == routes && a.gateway == gateway && legal.here[a.origin]
	}); err != nil {
		return err
	}
	r.effects = append(r.effects, time.Since(begin))
	return r.alive()
}

// effect asks /probe/NAME/ until the answers are the world's: each origin of the cluster and no other,
// or 503 when the cluster is gone.
func (r *run) effect(name string) error {
	want := r.world.behind(name)
	var last answer
	var failure error
	missing := len(want)
	seen := map[string]bool{}
	reached := func() bool {
		last, failure = r.probe.get(probePath(name))
		switch {
		case failure != nil:
		case len(want) == 0:
			return last.status == http.StatusServiceUnavailable
		case last.status == http.StatusOK && want[last.origin]:
			seen[last.origin] = true
		default:
			clear(seen)
		}
		return len(seen) == missing && missing > 0
	}
	if eventually(*limit, reached) {
		return nil
	}
	return fmt.Errorf("no effect within %v: %s answers %+v (%v), not all of %v", *limit, probePath(name), last, failure, want)
}

// refuse publishes a set with one bad cluster, waits for the NACK that names it and its field, lets the
// clients go on for a while, and takes the cluster back.
func (r *run) refuse() error {
	good := r.control.refusals()
	if len(good) > 0 {
		return fmt.Errorf("a good snapshot was refused before: %v", good[0])
	}
	r.world.broken = true
	r.world.touch(resource.ClusterType)
	if err := r.control.publish(r.world); err != nil {
		return err
	}
	bad := r.world.version(resource.ClusterType)
	named := func(n nack) bool {
		return n.url == resource.ClusterType && n.version == bad &&
			!slices.ContainsFunc(strings.Split(*names, ","), func(name string) bool { return !strings.Contains(n.text, name) })
	}
	if !eventually(*limit, func() bool { return slices.ContainsFunc(r.control.refusals(), named) }) {
		return fmt.Errorf("no NACK naming %s within %v, only %v", *names, *limit, r.control.refusals())
	}
	before, _ := r.traffic.failed()
	if !eventually(*limit, func() bool { now, _ := r.traffic.failed(); return now >= before+20**clients }) {
		return errors.New("requests stopped after the NACK")
	}
	for _, name := range []string{"left", "right"} {
		if err := r.effect(name); err != nil {
			return fmt.Errorf("after the NACK: %w", err)
		}
	}
	r.world.broken = false
	r.world.touch(resource.ClusterType)
	if err := r.control.publish(r.world); err != nil {
		return err
	}
	if err := r.control.waitAcked(r.world, []resource.Type{resource.ClusterType}, *limit); err != nil {
		return fmt.Errorf("taking it back: %w", err)
	}
	r.nacks = len(r.control.refusals())
	return nil
}

// alive reports the first failure as soon as there is one, so that its step is known.
func (r *run) alive() error {
	if r.proxy.ended() {
		return errors.New("the proxy ended")
	}
	if _, failures := r.traffic.failed(); len(failures) > 0 {
		return errors.New("a request failed")
	}
	return nil
}

func (r *run) summary() string {
	return fmt.Sprintf("%d snapshots, %d requests, 0 failed; ACK median %v max %v; effect median %v max %v; bad snapshot refused",
		len(r.acks), r.total, median(r.acks), slices.Max(r.acks).Round(time.Millisecond),
		median(r.effects), slices.Max(r.effects).Round(time.Millisecond))
}

func median(of []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(of))[len(of)/2].Round(100 * time.Microsecond)
}
