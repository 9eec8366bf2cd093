// Command health-peer speaks gRPC's health protocol with grpc-go: its servers report their health, and its
// clients watch it.
//
//	health-peer serve [SERVICE]
//	    serves pb.Trim/TrimSpace until it is killed; prints its address. SERVICE has the health SERVING:
//	    SIGUSR1 makes it NOT_SERVING, SIGUSR2 SERVING again. Without SERVICE there is no health service
//	health-peer call [--watch SERVICE] HOST:PORT...
//	    calls pb.Trim/TrimSpace with the policy round_robin until it is killed; prints the address of the
//	    server that answered each call. With --watch, healthCheckConfig names SERVICE
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/emptypb"
)

const usage = "usage: health-peer serve [SERVICE] | call [--watch SERVICE] HOST:PORT..."

// An empty TrimRequest and an empty TrimResponse have the same bytes as an Empty.
const method = "/pb.Trim/TrimSpace"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--help" {
		fmt.Println(usage)
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "health-peer:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "serve":
		return serve(nil)
	case len(arguments) == 2 && arguments[0] == "serve":
		return serve(&arguments[1])
	case len(arguments) >= 4 && arguments[0] == "call" && arguments[1] == "--watch":
		return call(&arguments[2], arguments[3:])
	case len(arguments) >= 2 && arguments[0] == "call" && arguments[1] != "--watch":
		return call(nil, arguments[1:])
	}
	return errors.New(usage)
}

// serve has no health service where service is nil.
func serve(service *string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	if service != nil {
		reported := health.NewServer()
		reported.SetServingStatus(*service, healthpb.HealthCheckResponse_SERVING)
		healthpb.RegisterHealthServer(server, reported)
		changes := make(chan os.Signal, 1)
		signal.Notify(changes, syscall.SIGUSR1, syscall.SIGUSR2)
		go func() {
			for change := range changes {
				status := healthpb.HealthCheckResponse_SERVING
				if change == syscall.SIGUSR1 {
					status = healthpb.HealthCheckResponse_NOT_SERVING
				}
				reported.SetServingStatus(*service, status)
			}
		}()
	}
	trim := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		request := new(emptypb.Empty)
		return request, decode(request)
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "pb.Trim",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "TrimSpace", Handler: trim}},
	}, struct{}{})
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

// call makes up to 500 calls a second. It watches no health where service is nil.
func call(service *string, servers []string) error {
	config := map[string]any{"loadBalancingConfig": []any{map[string]any{"round_robin": struct{}{}}}}
	if service != nil {
		config["healthCheckConfig"] = map[string]any{"serviceName": *service}
	}
	policy, err := json.Marshal(config)
	if err != nil {
		return err
	}
	found := manual.NewBuilderWithScheme("servers")
	state := resolver.State{}
	for _, address := range servers {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	found.InitialState(state)
	client, err := grpc.NewClient("servers:///trim", grpc.WithResolvers(found),
		grpc.WithDefaultServiceConfig(string(policy)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		var server peer.Peer
		err := client.Invoke(context.Background(), method, new(emptypb.Empty), new(emptypb.Empty),
			grpc.Peer(&server), grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		fmt.Println(server.Addr)
		time.Sleep(2 * time.Millisecond)
	}
}
