package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"

	// Registers the balancer outlier_detection_experimental.
	_ "google.golang.org/grpc/xds"

	"gokit/trimpb"
)

// Round robin under outlier detection, and the tutorial's retries: three attempts in 500 ms. The interval
// is one second, as the drill's rows last seconds. The other values are the defaults of gRFC A50, but for
// the volume and the hosts, which five instances reach.
const serviceConfig = `{
  "loadBalancingConfig": [{"outlier_detection_experimental": {
    "interval": "1s",
    "baseEjectionTime": "30s",
    "maxEjectionPercent": 50,
    "successRateEjection": {"minimumHosts": 3, "requestVolume": 20},
    "failurePercentageEjection": {"minimumHosts": 3, "requestVolume": 20},
    "childPolicy": [{"round_robin": {}}]
  }}],
  "methodConfig": [{
    "name": [{}],
    "timeout": "0.5s",
    "retryPolicy": {
      "maxAttempts": 3,
      "initialBackoff": "0.01s",
      "maxBackoff": "0.25s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "DATA_LOSS"]
    }
  }]
}`

// Wait before a failed query is repeated.
const queryBackoff = 250 * time.Millisecond

// serveAddGRPC serves POST /concat until it is killed. It calls the trim service as users of grpc-go do
// who have no mesh: balancer, outlier detection and retries are grpc-go's own.
func serveAddGRPC(args []string) error {
	flags := flag.NewFlagSet("add-grpc", flag.ExitOnError)
	address := flags.String("consul", "localhost:8500", "address of Consul")
	trimName := flags.String("trim-name", "trim_service", "service name of the trim instances")
	listen := flags.String("listen", "127.0.0.1:0", "HTTP address; port 0 is any free one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	agent, err := consulClient(*address)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(
		"consul:///"+*trimName,
		grpc.WithResolvers(consulResolver{agent.Health()}),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	client := trimpb.NewTrimClient(connection)
	return serveConcat(*listen, func(ctx context.Context, text any) (any, error) {
		var instance peer.Peer
		reply, err := client.TrimSpace(ctx, &trimpb.TrimRequest{S: text.(string)}, grpc.Peer(&instance))
		if err != nil {
			return nil, err
		}
		return trimmed{text: reply.GetS(), instance: instance.Addr.String()}, nil
	})
}

// consulResolver finds passing instances by Consul's blocking queries.
type consulResolver struct {
	health *api.Health
}

// Scheme implements resolver.Builder.
func (consulResolver) Scheme() string { return "consul" }

// Build implements resolver.Builder.
func (builder consulResolver) Build(
	target resolver.Target,
	connection resolver.ClientConn,
	_ resolver.BuildOptions,
) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	go builder.watch(ctx, target.Endpoint(), connection)
	return watch{cancel}, nil
}

func (builder consulResolver) watch(ctx context.Context, service string, connection resolver.ClientConn) {
	index := uint64(0)
	for ctx.Err() == nil {
		options := (&api.QueryOptions{WaitIndex: index}).WithContext(ctx)
		entries, meta, err := builder.health.Service(service, "", true, options)
		if err != nil {
			connection.ReportError(fmt.Errorf("instances of %s: %w", service, err))
			select {
			case <-ctx.Done():
			case <-time.After(queryBackoff):
			}
			continue
		}
		// A restarted Consul begins anew.
		if meta.LastIndex < index {
			index = 0
		} else {
			index = meta.LastIndex
		}
		var state resolver.State
		for _, entry := range entries {
			host := entry.Service.Address
			if host == "" {
				host = entry.Node.Address
			}
			address := net.JoinHostPort(host, strconv.Itoa(entry.Service.Port))
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{
				Addresses: []resolver.Address{{Addr: address}},
			})
		}
		// An error asks for another resolution, which the loop makes anyway.
		_ = connection.UpdateState(state)
	}
}

// watch is the resolver of one connection.
type watch struct {
	cancel context.CancelFunc
}

// ResolveNow implements resolver.Resolver. The watch is always up to date.
func (watch) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (w watch) Close() { w.cancel() }
