// Command otlp lets a proxy push its metrics to the receiver of the OpenTelemetry Collector, over gRPC and over
// HTTP, while a client sends requests: what the collector makes of them must be what the client and the
// origin counted.
//
//	otlp -proxy target/release/nuncio
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var binary = flag.String("proxy", "", "the proxy that pushes: its `path`")

const (
	requests = 200
	failures = 7
	patience = 20 * time.Second
)

func main() {
	// The proxy is told to die with the thread that started it: this one.
	runtime.LockOSThread()
	flag.Parse()
	if *binary == "" {
		flag.Usage()
		os.Exit(2)
	}
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		if err := run(protocol); err != nil {
			fmt.Printf("%-14s FAILED: %v\n", protocol, err)
			os.Exit(1)
		}
		fmt.Printf("%-14s ok: %d requests, as the collector's receiver has them\n", protocol, requests+failures)
	}
}

func run(protocol string) error {
	dir, err := os.MkdirTemp("", "nuncio-otlp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	collector, err := startCollector()
	if err != nil {
		return err
	}
	defer collector.stop()
	var asked atomic.Int64
	origin, err := startOrigin(&asked)
	if err != nil {
		return err
	}
	defer origin.Close()
	proxy, address, err := startProxy(dir, protocol, collector, origin.Addr().(*net.TCPAddr).Port)
	if err != nil {
		return err
	}
	defer proxy.end()
	if err := send(address); err != nil {
		return err
	}
	service := map[string]string{"service": "origin", "instance": origin.Addr().String(), "strategy": "round_robin"}
	ok := map[string]string{"http.request.method": "GET", "http.response.status_code": "200"}
	failed := map[string]string{"http.response.status_code": "500", "error.type": "500"}
	wanted := []struct {
		name       string
		attributes map[string]string
		value      int64
	}{
		{"gateway.loadbalancer.requests", service, asked.Load()},
		{"gateway.loadbalancer.request.duration", service, asked.Load()},
		{"gateway.loadbalancer.instance_health", service, 1},
		{"gateway.loadbalancer.active_connections", service, 0},
		{"gateway.connection_pool.total_connections", map[string]string{"service": "origin"}, 1},
		{"gateway.connection_pool.active_connections", map[string]string{"service": "origin"}, 0},
		{"gateway.connection_pool.idle_connections", map[string]string{"service": "origin"}, 1},
		{"gateway.connection_pool.errors", map[string]string{"service": "origin", "kind": "connect"}, 0},
		{"gateway.connection_pool.timeouts", map[string]string{"service": "origin", "kind": "response"}, 0},
		{"http.server.request.duration", ok, requests},
		{"http.server.request.duration", failed, failures},
		{"http.client.request.duration", ok, requests},
	}
	for _, w := range wanted {
		end := time.Now().Add(patience)
		for {
			value, found := collector.value(w.name, w.attributes)
			if found && value == w.value {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s%v is %d (there: %t), not %d", w.name, w.attributes, value, found, w.value)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if name := collector.service(); name != "edge" {
		return fmt.Errorf("service.name is %q", name)
	}
	return nil
}

// startOrigin answers 200, and 500 to /fail.
func startOrigin(asked *atomic.Int64) (net.Listener, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "origin")
	})
	go func() { _ = http.Serve(socket, handler) }()
	return socket, nil
}

// send asks over one connection, one request after the other.
func send(address string) error {
	for i := range requests + failures {
		path, wanted := "/", http.StatusOK
		if i >= requests {
			path, wanted = "/fail", http.StatusInternalServerError
		}
		response, err := http.Get("http://" + address + path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != wanted {
			return fmt.Errorf("%s was answered %d", path, response.StatusCode)
		}
	}
	return nil
}

// proxy is the binary under test while it runs.
type proxy struct {
	command *exec.Cmd
	done    chan struct{} // closed when the process has ended
}

func (p *proxy) end() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.command.Process.Kill()
	}
}

// startProxy starts one worker that pushes often, and returns where it listens.
func startProxy(dir, protocol string, to *collector, origin int) (*proxy, string, error) {
	config, admin := filepath.Join(dir, "bootstrap.yaml"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, fmt.Appendf(nil, bootstrap, origin), 0o644); err != nil {
		return nil, "", err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	p := &proxy{done: make(chan struct{})}
	p.command = exec.Command(*binary, "-c", config, "--concurrency", "1", "--admin-address-path", admin)
	p.command.Stdout, p.command.Stderr = log, log
	p.command.Env = append(os.Environ(),
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://"+to.endpoint(protocol),
		"OTEL_EXPORTER_OTLP_PROTOCOL="+protocol,
		"OTEL_EXPORTER_OTLP_COMPRESSION=gzip",
		"OTEL_METRIC_EXPORT_INTERVAL=100",
		"OTEL_SERVICE_NAME=edge",
	)
	// The proxy must not outlive a driver that is killed.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, "", err
	}
	go func() {
		_ = p.command.Wait()
		close(p.done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		if address := listener(admin); address != "" {
			return p, address, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.end()
	text, _ := os.ReadFile(log.Name())
	return nil, "", fmt.Errorf("the proxy did not become ready; its log:\n%s", text)
}

// listener asks the admin endpoint where the proxy listens; empty if it cannot say yet.
func listener(admin string) string {
	address, err := os.ReadFile(admin)
	if err != nil || len(address) == 0 {
		return ""
	}
	base := "http://" + strings.TrimSpace(string(address))
	if ready, err := http.Get(base + "/ready"); err != nil || ready.StatusCode != http.StatusOK {
		return ""
	}
	response, err := http.Get(base + "/listeners?format=json")
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	var listeners struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if json.NewDecoder(response.Body).Decode(&listeners) != nil || len(listeners.Statuses) == 0 {
		return ""
	}
	socket := listeners.Statuses[0].Address.Socket
	return net.JoinHostPort(socket.Address, fmt.Sprint(socket.Port))
}

const bootstrap = `
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }
static_resources:
  clusters:
  - name: origin
    load_assignment:
      cluster_name: origin
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: %d } } } }] }]
  listeners:
  - name: in
    address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: { virtual_hosts: [{ name: all, domains: ["*"], routes: [{ match: { prefix: / }, route: { cluster: origin } }] }] }
          http_filters:
          - name: router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
`
