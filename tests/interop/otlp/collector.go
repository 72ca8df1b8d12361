package main

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// collector is the OpenTelemetry Collector's OTLP receiver, and what it was told last.
type collector struct {
	grpc, http string
	receiver   receiver.Metrics

	mutex sync.Mutex
	last  pmetric.Metrics
}

// startCollector listens on two free ports.
func startCollector() (*collector, error) {
	grpc, err := freeAddress()
	if err != nil {
		return nil, err
	}
	plain, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c := &collector{grpc: grpc, http: plain, last: pmetric.NewMetrics()}
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	at := func(address string) map[string]any { return map[string]any{"endpoint": address} }
	protocols := map[string]any{"grpc": at(grpc), "http": at(plain)}
	if err := confmap.NewFromStringMap(map[string]any{"protocols": protocols}).Unmarshal(config); err != nil {
		return nil, err
	}
	sink, err := consumer.NewMetrics(c.take)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	c.receiver, err = factory.CreateMetrics(ctx, receivertest.NewNopSettings(factory.Type()), config, sink)
	if err != nil {
		return nil, err
	}
	return c, c.receiver.Start(ctx, componenttest.NewNopHost())
}

func (c *collector) stop() { _ = c.receiver.Shutdown(context.Background()) }

func (c *collector) endpoint(protocol string) string {
	if protocol == "grpc" {
		return c.grpc
	}
	return c.http
}

func (c *collector) take(_ context.Context, metrics pmetric.Metrics) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.last = pmetric.NewMetrics()
	metrics.CopyTo(c.last)
	return nil
}

// service is the service.name of the last message.
func (c *collector) service() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.last.ResourceMetrics().Len() == 0 {
		return ""
	}
	name, _ := c.last.ResourceMetrics().At(0).Resource().Attributes().Get("service.name")
	return name.AsString()
}

// value sums the numbers, or the counts of histograms, of this name that have these attributes.
func (c *collector) value(name string, attributes map[string]string) (sum int64, found bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	add := func(of pcommon.Map, value int64) {
		for key, wanted := range attributes {
			if said, ok := of.Get(key); !ok || said.AsString() != wanted {
				return
			}
		}
		sum, found = sum+value, true
	}
	for _, resource := range c.last.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				if metric.Name() == name {
					each(metric, add)
				}
			}
		}
	}
	return sum, found
}

func each(metric pmetric.Metric, add func(pcommon.Map, int64)) {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		for _, point := range metric.Sum().DataPoints().All() {
			add(point.Attributes(), point.IntValue())
		}
	case pmetric.MetricTypeGauge:
		for _, point := range metric.Gauge().DataPoints().All() {
			add(point.Attributes(), point.IntValue())
		}
	case pmetric.MetricTypeHistogram:
		for _, point := range metric.Histogram().DataPoints().All() {
			add(point.Attributes(), int64(point.Count()))
		}
	default:
		panic(fmt.Sprintf("%s is a %s", metric.Name(), metric.Type()))
	}
}
