package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // Registers gzip: answers are compressed as their requests are.
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// serve serves grpc-go's test service on so many ports until the process is killed.
func serve(servers int) error {
	ended := make(chan error)
	addresses := make([]string, servers)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addresses[i] = listener.Addr().String()
		server := grpc.NewServer(grpc.StreamInterceptor(report))
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		go func() { ended <- server.Serve(listener) }()
	}
	fmt.Println("listening", strings.Join(addresses, " "))
	return <-ended
}

// report prints the beginning and the cancellation of each call that has a stream.
func report(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	fmt.Println("begun", info.FullMethod)
	err := handler(service, stream)
	if stream.Context().Err() == context.Canceled {
		fmt.Println("cancelled", info.FullMethod)
	}
	return err
}
