package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"gokit/trimpb"
)

// trimmer implements pb.Trim.
type trimmer struct {
	trimpb.UnimplementedTrimServer
}

func (trimmer) TrimSpace(_ context.Context, request *trimpb.TrimRequest) (*trimpb.TrimResponse, error) {
	return &trimpb.TrimResponse{S: strings.ReplaceAll(request.GetS(), " ", "")}, nil
}

// serveTrim serves pb.Trim until SIGTERM or SIGINT. It then deregisters and exits at once, as the
// tutorial's program does: calls in flight are lost.
func serveTrim(args []string) error {
	flags := flag.NewFlagSet("trim", flag.ExitOnError)
	consul := flags.String("consul", "localhost:8500", "address of Consul")
	name := flags.String("name", "trim_service", "service name to register")
	ip := flags.String("ip", "127.0.0.1", "address to listen on and to register")
	port := flags.Int("port", 0, "port; 0 is any free one")
	maxAge := flags.Duration("max-age", 0, "age at which a connection ends with GOAWAY; 0 is never")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", *ip, *port))
	if err != nil {
		return err
	}
	*port = listener.Addr().(*net.TCPAddr).Port

	var options []grpc.ServerOption
	if *maxAge > 0 {
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: *maxAge}))
	}
	server := grpc.NewServer(options...)
	trimpb.RegisterTrimServer(server, trimmer{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	agent, err := consulClient(*consul)
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%s-%s-%d", *name, *ip, *port)
	err = agent.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID:      id,
		Name:    *name,
		Address: *ip,
		Port:    *port,
		Check: &api.AgentServiceCheck{
			GRPC:     listener.Addr().String(),
			Interval: "1s",
			Timeout:  "1s",
			Status:   api.HealthPassing,
		},
	})
	if err != nil {
		return fmt.Errorf("cannot register %s: %w", id, err)
	}
	fmt.Printf("trim listening grpc=%s id=%s\n", listener.Addr(), id)

	stopped, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	select {
	case err := <-failed:
		return err
	case <-stopped.Done():
		return agent.Agent().ServiceDeregister(id)
	}
}

func consulClient(address string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = address
	return api.NewClient(config)
}
