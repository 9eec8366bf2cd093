// Command orca-peer speaks ORCA with grpc-go: its servers report load, and its clients weigh servers by it.
//
//	orca-peer serve RPS UTILIZATION EPS       serves until it is killed; prints its address
//	orca-peer call per-call|oob SECONDS HOST:PORT...
//	    calls pb.Trim/TrimSpace with the policy weighted_round_robin; in the last second, prints how many
//	    calls each server received
//	orca-peer watch HOST:PORT                 prints the reports of OpenRcaService, one line each
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	orcav3 "github.com/cncf/xds/go/xds/service/orca/v3"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/weightedroundrobin"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

const usage = "usage: orca-peer serve RPS UTILIZATION EPS | call per-call|oob SECONDS HOST:PORT... | watch HOST:PORT"

// An empty TrimRequest and an empty TrimResponse have the same bytes as an Empty.
const method = "/pb.Trim/TrimSpace"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--help" {
		fmt.Println(usage)
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "orca-peer:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 4 && arguments[0] == "serve":
		var figures [3]float64
		for index, text := range arguments[1:] {
			figure, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return err
			}
			figures[index] = figure
		}
		return serve(figures[0], figures[1], figures[2])
	case len(arguments) >= 4 && arguments[0] == "call":
		seconds, err := strconv.Atoi(arguments[2])
		if err != nil {
			return err
		}
		return call(arguments[1] == "oob", time.Duration(seconds)*time.Second, arguments[3:])
	case len(arguments) == 2 && arguments[0] == "watch":
		return watch(arguments[1])
	}
	return errors.New(usage)
}

// serve reports these figures out of band, and twice the utilization in the trailers of calls.
func serve(rps, utilization, eps float64) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	load := orca.NewServerMetricsRecorder()
	load.SetQPS(rps)
	load.SetApplicationUtilization(utilization)
	load.SetEPS(eps)
	server := grpc.NewServer(orca.CallMetricsServerOption(load))
	if err := orca.Register(server, orca.ServiceOptions{ServerMetricsProvider: load}); err != nil {
		return err
	}
	trim := func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		request := new(emptypb.Empty)
		if err := decode(request); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, _ any) (any, error) {
			recorder := orca.CallMetricsRecorderFromContext(ctx)
			recorder.SetApplicationUtilization(2 * utilization)
			recorder.SetRequestCost("bytes", 7)
			return new(emptypb.Empty), nil
		}
		return interceptor(ctx, request, &grpc.UnaryServerInfo{FullMethod: method}, handle)
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "pb.Trim",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "TrimSpace", Handler: trim}},
	}, struct{}{})
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

// call makes about 500 calls a second.
func call(outOfBand bool, length time.Duration, servers []string) error {
	policy, err := json.Marshal(map[string]any{
		"loadBalancingConfig": []any{map[string]any{"weighted_round_robin": map[string]any{
			"enableOobLoadReport": outOfBand,
			"oobReportingPeriod":  "0.2s",
			"blackoutPeriod":      "0s",
			"weightUpdatePeriod":  "0.1s",
		}}},
	})
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
	counts := make(map[string]int)
	end := time.Now().Add(length)
	for time.Now().Before(end) {
		var server peer.Peer
		err := client.Invoke(context.Background(), method, new(emptypb.Empty), new(emptypb.Empty),
			grpc.Peer(&server), grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if time.Until(end) < time.Second {
			counts[server.Addr.String()]++
		}
		time.Sleep(2 * time.Millisecond)
	}
	for _, address := range servers {
		fmt.Println(address, counts[address])
	}
	return nil
}

// watch asks for a report each 200 ms.
func watch(server string) error {
	client, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer client.Close()
	request := &orcav3.OrcaLoadReportRequest{ReportInterval: durationpb.New(200 * time.Millisecond)}
	stream, err := orcav3.NewOpenRcaServiceClient(client).StreamCoreMetrics(context.Background(), request)
	if err != nil {
		return err
	}
	for {
		report, err := stream.Recv()
		if err != nil {
			return err
		}
		fmt.Printf("cpu %g application %g rps %g eps %g\n", report.CpuUtilization,
			report.ApplicationUtilization, report.RpsFractional, report.Eps)
	}
}
