package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	nodeID            = "interop"
	managementCluster = "xds_cluster"
)

// proxy is one run of the binary under test.
type proxy struct {
	command *exec.Cmd
	admin   string
	log     string
	done    chan struct{} // closed when the process has ended
}

// startProxy writes the bootstrap, starts the binary and waits for GET /ready to say 200.
func startProxy(m mode, binary string, extra []string, dir string, management uint32) (*proxy, error) {
	config, admin := filepath.Join(dir, "bootstrap.yaml"), filepath.Join(dir, "admin-address")
	text, err := bootstrapText(m, management)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return nil, err
	}
	p := &proxy{log: filepath.Join(dir, "proxy.log"), done: make(chan struct{})}
	output, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	args := append([]string{
		"-c", config, "--concurrency", "2", "--admin-address-path", admin, "--drain-time-s", "1",
	}, extra...)
	p.command = exec.Command(binary, args...)
	p.command.Stdout, p.command.Stderr = output, output
	// The proxy must not outlive a driver that is killed.
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.command.Wait()
		close(p.done)
	}()
	if !eventually(20*time.Second, func() bool { return p.ended() || p.ready(admin) }) || p.ended() {
		p.kill()
		return nil, fmt.Errorf("the proxy did not become ready; its log ends:\n%s", p.tail())
	}
	return p, nil
}

func (p *proxy) ready(path string) bool {
	address, err := os.ReadFile(path)
	if err != nil || len(address) == 0 {
		return false
	}
	p.admin = strings.TrimSpace(string(address))
	response, err := (&http.Client{Timeout: time.Second}).Get("http://" + p.admin + "/ready")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK
}

func (p *proxy) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the proxy to end and insists after ten seconds.
func (p *proxy) stop() error {
	if p.ended() {
		return fmt.Errorf("the proxy ended by itself (%v); its log ends:\n%s", p.command.ProcessState, p.tail())
	}
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if !p.command.ProcessState.Success() {
			return fmt.Errorf("the proxy ended with %v; its log ends:\n%s", p.command.ProcessState, p.tail())
		}
		return nil
	case <-time.After(10 * time.Second):
		p.kill()
		return errors.New("the proxy did not end within 10 s of SIGTERM")
	}
}

func (p *proxy) kill() {
	_ = p.command.Process.Kill()
	<-p.done
}

func (p *proxy) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}

// bootstrapText renders the bootstrap as JSON, which is YAML too.
func bootstrapText(m mode, management uint32) ([]byte, error) {
	http2, err := anypb.New(&upstream.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstream.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstream.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &core.Http2ProtocolOptions{},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	xds := &cluster.Cluster{
		Name:                 managementCluster,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(2 * time.Second),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
		},
		LoadAssignment: &endpoint.ClusterLoadAssignment{
			ClusterName: managementCluster,
			Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{{
				HostIdentifier: &endpoint.LbEndpoint_Endpoint{
					Endpoint: &endpoint.Endpoint{Address: loopback(management)},
				},
			}}}},
		},
	}
	dynamic := &bootstrap.Bootstrap_DynamicResources{CdsConfig: m.source(), LdsConfig: m.source()}
	if m.aggregated {
		dynamic.AdsConfig = m.server()
	}
	return protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(&bootstrap.Bootstrap{
		Node:             &core.Node{Id: nodeID, Cluster: "interop"},
		Admin:            &bootstrap.Admin{Address: loopback(0)},
		StaticResources:  &bootstrap.Bootstrap_StaticResources{Clusters: []*cluster.Cluster{xds}},
		DynamicResources: dynamic,
	})
}
